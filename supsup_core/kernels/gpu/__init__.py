"""Loops in Triton for GPUs. Triton is optional, so each loop also has a simpler form in torch."""
