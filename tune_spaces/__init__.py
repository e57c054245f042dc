"""Search spaces of candidate architectures."""
