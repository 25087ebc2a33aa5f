"""Output about a run for people: progress, end tables, metrics and the report."""
