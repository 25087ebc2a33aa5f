"""The executors, which run work units: one in this process, one on Ray actors."""
