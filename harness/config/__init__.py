"""The configuration of a run: schema, checks, identity, command line and help."""
