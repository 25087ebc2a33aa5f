"""Baselines: other ways to give each task weights of its own. supsup_core/names.py lists them.

A baseline is a finder (methods/protocol.py) that stores floats instead of bits.
"""
