"""Engines of task inference. Each file has one engine, for some networks and state layouts."""
