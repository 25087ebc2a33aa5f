"""Fixed networks. The weights depend on a seed only. supsup_core/names.py lists the networks."""
