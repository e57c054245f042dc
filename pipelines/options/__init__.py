"""The options of each command, on their own: `--help` waits for no PyTorch, no Ray and no pandas."""
