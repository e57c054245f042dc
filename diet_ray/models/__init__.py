"""The five architectures of the paper over one multi-task head, and the registry that builds them."""
