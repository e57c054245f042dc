"""Judges of a search: cheap scores of candidates on rows before they are learned, and what they are worth."""
