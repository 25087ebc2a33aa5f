"""Masks at rest: store, chunks, repair, and who may write."""
