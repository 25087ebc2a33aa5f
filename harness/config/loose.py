"""Read the config.yaml of a run without checks, even if an older or newer version wrote the file.

This module does not import OmegaConf, so that harness/status.py starts fast.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from harness.config.schema import Config


def read_loosely(text: str) -> Config:
    """Read a configuration without checks.

    Keys that the schema does not have are ignored. A missing key gets its default, unless every run
    has this key; then the text is refused.

    Args:
        text: the content of config.yaml.

    Raises:
        KeyError, TypeError, ValueError, yaml.YAMLError: the text is not the configuration of a run.
    """
    values = yaml.safe_load(text)
    for key in ("data", "family", "network", "method", "seed", "tasks"):
        values[key]
    for group, key in (("train", "name"), ("evaluate", "checkpoints")):
        values[group][key]
    config: Config = _loosely(Config, values)
    config.tasks = int(config.tasks)
    return config


def _loosely(schema: Any, values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise TypeError(f"expected keys and values, got {values!r}")
    found = {}
    for entry in fields(schema):
        if is_dataclass(entry.type):
            found[entry.name] = _loosely(entry.type, values.get(entry.name, {}))
        elif entry.name in values:
            found[entry.name] = values[entry.name]
    return schema(**found)
