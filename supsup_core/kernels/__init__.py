"""The loops that take the most time, in Numba for the CPU. Tests compare each with a plain form."""
