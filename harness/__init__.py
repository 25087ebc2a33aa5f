"""The harness: configuration, data, actors, store and tables around supsup_core."""
