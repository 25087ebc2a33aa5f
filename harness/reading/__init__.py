"""Read a run from Python: its masks, its models, its tables, and answers of task inference."""
