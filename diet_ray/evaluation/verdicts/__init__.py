"""Whether a memory is good, and how much of a gap is noise."""
