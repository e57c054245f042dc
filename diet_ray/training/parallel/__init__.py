"""One reference on several processes: dense model replicated, tables in slices, by torch.distributed."""
