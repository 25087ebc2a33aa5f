"""Make the configuration of a job from the content of its config.yaml.

This module does not import OmegaConf, so that harness/status.py starts fast. A stored configuration
is plain: it has no interpolations, and every key has its value.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

from harness.config.checks import check_checkpoints
from harness.config.kinds import converted
from harness.config.option import Option, options_of
from harness.config.schema import AUTO, AnyConfig, Config
from harness.errors import UserError
from harness.places.places import Place
from harness.places.reading import read_configuration

# Keys without which a file is not the configuration of a run of any version.
_ALWAYS = (
    *("data", "family", "network", "method", "seed", "tasks", "train.name"),
    *("evaluate.checkpoints", "evaluate.algorithms"),
)


def stored_values(path: Place) -> Any:
    """Read a config.yaml.

    Raises:
        UserError: the file is missing, was cut, or is not YAML of plain values.
    """
    try:
        return read_configuration(path)
    except (OSError, ValueError) as error:
        raise _no_configuration(path, error) from error


@contextmanager
def value_errors(path: Place) -> Iterator[None]:
    """Turn an error about the values of a config.yaml into a one-line error for the user.

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
    """Make a configuration from the content of a config.yaml that has exactly the schema's keys.

    Args:
        values: the content of config.yaml; see read_configuration.
        schema: schema of the job's configuration.

    Raises:
        ValueError: a key is missing or unknown.
        UserError: a value has another type or is outside its limits.
    """
    given = _leaves(schema, values)
    options = options_of(schema)
    if unknown := sorted(given.keys() - options.keys()):
        raise ValueError(f"the keys must be those of --help, got {unknown[0]}")
    if missing := [key for key in options if key not in given]:
        raise ValueError(f"every key must be there, got no {missing[0]}")
    config: AnyConfig = _made(schema, {key: _checked(options[key], given[key]) for key in options})
    return config


def from_values_of_any_version(values: Any) -> Config:
    """Make the configuration of a run that an older or newer version may have written.

    Names are not checked, because another version knows other names. A missing key gets its
    default, and unknown keys are ignored. A key that every run has must be there.

    Raises:
        ValueError, UserError: see from_values.
    """
    given = _leaves(Config, values)
    if missing := [key for key in _ALWAYS if key not in given]:
        raise ValueError(f"every run has {missing[0]}, got none")
    options = {
        key: replace(option, knob=replace(option.knob, one_of=()))
        for key, option in options_of(Config).items()
        if key in given
    }
    config: Config = _made(Config, {key: _checked(options[key], given[key]) for key in options})
    if AUTO in (config.evaluate.checkpoints, config.evaluate.algorithms):
        raise ValueError("a run has no checkpoints or algorithms that are auto, got auto")
    check_checkpoints(config)
    return config


def _checked(option: Option, value: Any) -> Any:
    option.check(value)
    return value if value == option.instead else converted(value, option.kind)


def _leaves(schema: Any, values: Any, prefix: str = "") -> dict[str, Any]:
    """List the values by dotted key. A value that is no group of the schema is a leaf."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} must be keys and values")
    groups = {entry.name: entry.type for entry in fields(schema) if is_dataclass(entry.type)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in groups:
            found |= _leaves(groups[name], value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _made(schema: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make a configuration from values by dotted key."""
    given = {}
    for entry in fields(schema):
        key = f"{prefix}{entry.name}"
        if is_dataclass(entry.type):
            given[entry.name] = _made(entry.type, values, f"{key}.")
        elif key in values:
            given[entry.name] = values[key]
    return schema(**given)
