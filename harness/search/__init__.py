"""Search for a good configuration with Ray Tune; harness/tune.py is the command."""
