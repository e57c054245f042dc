"""A run directory: where everything lies, what is committed, who writes."""
