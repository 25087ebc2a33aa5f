"""Make the configuration of a job from the content of its config.yaml.

This module does not import OmegaConf, so that harness/status.py starts fast. It does not need
OmegaConf: in a stored configuration, every key has a value, and no value refers to another key.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

from harness.config.checks import check_checkpoints
from harness.config.kinds import converted
from harness.config.names import AUTO
from harness.config.option import Option, options_of
from harness.config.schema import AnyConfig, Config
from harness.errors import UserError
from harness.places.places import Place
from harness.places.reading import read_configuration

# Every version of this program writes these keys. So a file in which one of these keys is missing
# is no configuration of a run.
_ALWAYS = (
    *("data", "family", "network", "method", "seed", "tasks", "train.name"),
    *("evaluate.checkpoints", "evaluate.algorithms"),
)


def stored_values(path: Place) -> Any:
    """Read the nested values of a config.yaml.

    Raises:
        UserError: the file is missing, its end is missing, or it is not a YAML file of plain
            values.
    """
    try:
        return read_configuration(path)
    except (OSError, ValueError) as error:
        raise _no_configuration(path, error) from error


@contextmanager
def value_errors(path: Place) -> Iterator[None]:
    """Turn an error in the `with` block into a UserError that names the config.yaml.

    Raises:
        UserError: a value is missing or not allowed.
    """
    try:
        yield
    except (ValueError, UserError) as error:
        raise _no_configuration(path, error) from error


def _no_configuration(path: Place, error: Exception) -> UserError:
    return UserError(
        f"{path} must be the configuration of a run, got an error: {error}: restore the file, or "
        "choose another run_dir"
    )


def from_values(values: Any, schema: type[AnyConfig]) -> AnyConfig:
    """Make a configuration from the content of a config.yaml.

    Args:
        values: the content of config.yaml: nested mappings. It must have every key of the schema
            and no other key.
        schema: schema of the job's configuration.

    Raises:
        ValueError: a key is missing or unknown.
        UserError: a value has the wrong type or is outside its limits.
    """
    given = _leaves(schema, values)
    options = options_of(schema)
    if unknown := sorted(given.keys() - options.keys()):
        raise ValueError(f"every key must be one that --help lists, got {unknown[0]}")
    if missing := [key for key in options if key not in given]:
        raise ValueError(f"every key must be there, got no {missing[0]}")
    config: AnyConfig = _made(schema, {key: _checked(options[key], given[key]) for key in options})
    return config


def from_values_of_any_version(values: Any) -> Config:
    """Make a run's configuration from a config.yaml that any version of this program wrote.

    Names, such as the name of a network, are not checked, because another version knows other
    names. Unknown keys are ignored. A missing key gets its default.

    Args:
        values: the content of config.yaml: nested mappings.

    Raises:
        ValueError: a key that all versions write is missing, or the checkpoints or the algorithms
            are `auto`.
        UserError: a value has the wrong type or is outside its limits.
    """
    given = _leaves(Config, values)
    if missing := [key for key in _ALWAYS if key not in given]:
        raise ValueError(f"every run must have the key {missing[0]}, got none")
    options = {
        key: replace(option, knob=replace(option.knob, one_of=()))
        for key, option in options_of(Config).items()
        if key in given
    }
    config: Config = _made(Config, {key: _checked(options[key], given[key]) for key in options})
    if AUTO in (config.evaluate.checkpoints, config.evaluate.algorithms):
        raise ValueError("the checkpoints and algorithms of a run must be lists, got auto")
    check_checkpoints(config)
    return config


def _checked(option: Option, value: Any) -> Any:
    option.check(value)
    return value if value == option.instead else converted(value, option.kind)


def _leaves(schema: Any, values: Any, prefix: str = "") -> dict[str, Any]:
    """Return a mapping from dotted key to value.

    If a value is itself a mapping, it is divided into its keys only if its key is a group of keys
    in the schema, such as train.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} must have keys with values")
    groups = {entry.name: entry.type for entry in fields(schema) if is_dataclass(entry.type)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in groups:
            found |= _leaves(groups[name], value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _made(schema: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make a configuration. `values` maps each dotted key to its value."""
    given = {}
    for entry in fields(schema):
        key = f"{prefix}{entry.name}"
        if is_dataclass(entry.type):
            given[entry.name] = _made(entry.type, values, f"{key}.")
        elif key in values:
            given[entry.name] = values[key]
    return schema(**given)
