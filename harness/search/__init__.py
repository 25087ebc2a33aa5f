"""Search the configuration with Ray Tune; harness/tune.py is the command."""
