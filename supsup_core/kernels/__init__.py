"""The slowest loops, in Numba for the CPU. Tests compare each loop with a simpler form."""
