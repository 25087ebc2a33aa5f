"""The harness around supsup_core: configuration, data sets, actors, mask store and tables."""
