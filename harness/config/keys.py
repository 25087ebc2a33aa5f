"""Dotted keys of a configuration, such as train.steps, and the groups that commands treat alike."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

# A named thing is a function or a class that the configuration selects by its name, such as a
# network. This mapping gives, for each kind of named thing, the key of its options.
OPTION_KEYS = {
    "data": "data_options",
    "family": "family_options",
    "network": "network_options",
    "method": "method_options",
}

# Keys that may change when a run is continued: no result depends on them.
FREE_KEYS = ("executor", "actors", "run_dir", "data_dir", "download", "quiet", "loggers")

# The keys of the groups `evaluate` and `reservoir` that harness/recall.py reads.
RECALL_KEYS = (
    *(f"evaluate.{name}" for name in ("checkpoints", "tasks", "batches", "batch_size")),
    "reservoir",
)


def keys(config: Any, prefix: str = "") -> list[str]:
    """List the dotted keys of all values in a configuration, such as train.steps.

    Each option that is given has a key of its own, such as method_options.density.
    """
    found = []
    for entry in fields(config):
        value, name = getattr(config, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            found += keys(value, f"{name}.")
        elif name in OPTION_KEYS.values():
            found += [f"{name}.{option}" for option in value]
        else:
            found.append(name)
    return found


def is_taken(key: str, takes: Sequence[str]) -> bool:
    """Return whether a command takes a key.

    Args:
        key: a dotted key, such as train.steps.
        takes: the keys that the command takes. The name of a group, such as train, means all keys
            of this group.
    """
    return any(key == one or key.startswith(f"{one}.") for one in takes)


def leaf(config: Any, key: str) -> Any:
    """Return the value of a dotted key.

    Raises:
        KeyError: the key is an option that is not given, such as method_options.density.
    """
    for part in key.split("."):
        config = config[part] if isinstance(config, Mapping) else getattr(config, part)
    return config
