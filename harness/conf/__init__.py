"""Hydra's configuration files, found through the package from any folder."""
