"""The progress of runs and searches, as `status` shows it: harness/status.py is the command."""
