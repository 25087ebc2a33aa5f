"""The YAML files of the configuration. Hydra finds them through this package from any folder."""
