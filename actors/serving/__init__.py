"""An exported model at work: over the files of a log, and over HTTP."""
