"""The sections of a run's report: each module makes one section from the run's tables."""
