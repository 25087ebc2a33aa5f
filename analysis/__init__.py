"""From a run's tables to summaries and figures; reads files, and imports nothing else of ours."""
