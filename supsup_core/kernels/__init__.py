"""The hot loops: a Numba version for the CPU beside a plain one in torch for any device."""
