"""The driver: the one process that writes. It submits work units and keeps their results."""
