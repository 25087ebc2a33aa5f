"""Engines of task inference: which arithmetic serves which network and states, one a file."""
