"""Raw rows without labels, from any source, to rows of a model's tables."""
