"""Supermasks in superposition: the mathematics, without files, clocks or global random state.

Source of the idea: Wortsman et al., "Supermasks in Superposition", NeurIPS 2020,
arXiv:2006.14769.
"""
