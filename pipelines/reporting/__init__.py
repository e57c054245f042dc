"""Charts and pages of a report."""
