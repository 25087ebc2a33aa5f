"""What a run can be told: schema, checks, identity, command line."""
