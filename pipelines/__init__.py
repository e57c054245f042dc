"""What a person runs: prepare, distill, evaluate, inspect."""
