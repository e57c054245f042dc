"""Real rows and reduced rows through models: tables, optimisers, checkpoints, scores."""
