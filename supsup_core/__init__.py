"""The mathematics of supermasks in superposition, without files, clocks or global random state.

Source of the idea: Wortsman et al., "Supermasks in Superposition", NeurIPS 2020,
arXiv:2006.14769.
"""
