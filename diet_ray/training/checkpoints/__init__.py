"""The reference's state in files: a full checkpoint and increments over it, in shards."""
