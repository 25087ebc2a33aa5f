"""Fixed networks. Their weights depend only on a seed. supsup_core/names.py lists the networks."""
