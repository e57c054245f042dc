"""What a memory is worth: cells of the comparison, probes, trials, rankings, exports."""
