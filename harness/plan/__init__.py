"""Plan the work of a configuration: work units, values of `auto`, sizes of the pools."""
