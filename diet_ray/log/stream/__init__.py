"""A log that arrives piece by piece, cut into micro-blocks."""
