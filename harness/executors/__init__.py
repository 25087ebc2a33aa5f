"""Where work units run: in this process, or on Ray actors."""
