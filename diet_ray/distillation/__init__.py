"""The method: score, select, fuse, address, unroll."""
