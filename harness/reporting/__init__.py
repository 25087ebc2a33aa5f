"""Output about a run for people: progress bars, end tables, metrics and the report."""
