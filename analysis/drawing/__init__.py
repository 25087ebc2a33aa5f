"""Functions that draw figures from tables: one module for each kind of figure."""
