"""Loggers: each module copies the results of a run to one program that shows experiments."""
