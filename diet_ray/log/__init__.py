"""Interaction logs: ids to rows of tables, rows to batches."""
