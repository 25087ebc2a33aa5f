"""A search over the configuration by Ray Tune: `harness/tune.py` is its command."""
