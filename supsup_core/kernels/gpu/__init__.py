"""Loops in Triton for GPUs, each with a plain form in torch. Triton is optional."""
