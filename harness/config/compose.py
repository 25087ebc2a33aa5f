"""Compose a checked configuration from overrides such as tasks=250.

Only this module and the package harness/search import Hydra.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from harness.config.checks import check
from harness.config.help import EVERY_KEY
from harness.config.keys import OPTION_KEYS
from harness.config.kinds import is_text, read_text
from harness.config.option import Option, nearest_key, options_of
from harness.config.options import option_type
from harness.config.schema import CONFIG_MODULE, Config
from harness.errors import UserError


def store_schema(name: str, schema: type[Config]) -> None:
    """Register the schema of a job with Hydra.

    The groups of options, such as method_options, accept keys that the schema does not have. So a
    user can type method_options.density=0.3. With Hydra's default, the user would have to type
    +method_options.density=0.3.

    Args:
        name: name of the schema, which the files of harness/conf use.
        schema: the schema.
    """
    node = OmegaConf.structured(schema)
    for key in OPTION_KEYS.values():
        OmegaConf.set_struct(node[key], False)
    ConfigStore.instance().store(name=name, node=node)


store_schema("schema", Config)


def compose_overrides(
    overrides: Sequence[str],
    name: str = "config",
    schema: type[Config] = Config,
    config_dir: str | None = None,
) -> DictConfig:
    """Compose a configuration from overrides. An error of Hydra becomes a one-line UserError.

    Args:
        overrides: texts KEY=VALUE, as a user types them.
        name: name of the job's file in harness/conf, without .yaml.
        schema: schema of the job's configuration.
        config_dir: a user's folder with more recipes and experiments; None: no such folder.

    Raises:
        UserError: a key or a recipe is unknown, a value has the wrong type, a key that takes one
            value has several values, an override removes a key that every run needs, or an override
            sets a key of Hydra itself.
    """
    for override in overrides:
        _check_override(override)
    options = options_of(schema)
    given = [_with_text(override, options) for override in overrides]
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            return compose(name, overrides=[*given, *_search_path(config_dir)])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, schema)) from error
    except ValueError as error:  # Hydra raises it for the overrides "=3" and "train=3"
        typed = " ".join(overrides)
        raise UserError(
            f"options must be KEY=VALUE, and train must be the name of a recipe, got {typed}: "
            f"{EVERY_KEY}"
        ) from error


def _search_path(config_dir: str | None) -> list[str]:
    """Return a list with the override that lets Hydra read a user's folder; [] for no folder."""
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir must be a folder, got {config_dir}: correct the path")
    return [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """List the dotted keys of overrides, such as tasks for tasks=8, and train for train=fast."""
    return [_key(override) for override in overrides]


def _key(override: str) -> str:
    """Return the key of KEY=VALUE, without Hydra's marks + and ~ and without a package @NAME."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _check_override(override: str) -> None:
    """Refuse an override that sets a key of Hydra itself or removes a key that every run needs."""
    key = _key(override)
    if re.split("[./]", key)[0] == "hydra":
        raise UserError(
            f"key must be one that --help lists, got {key}: the keys of Hydra itself have no "
            f"effect here; {EVERY_KEY}"
        )
    # The override ~KEY removes a key. Only an option of a named thing, such as
    # method_options.density, may be removed. An experiment may have set the option. After the
    # removal, the option has its default.
    if override.startswith("~") and key.partition(".")[0] not in OPTION_KEYS.values():
        raise UserError(
            f"options must be KEY=VALUE, because a run needs every key, got {override}: leave it "
            "out"
        )


def _with_text(override: str, options: Mapping[str, Option]) -> str:
    """Quote the value of a text key, so that Hydra reads the typed characters.

    Without quotes, Hydra reads 1.10 as the number 1.1, and refuses characters such as ~. If the key
    is not declared as a text, return the override unchanged.
    """
    key, is_pair, typed = override.partition("=")
    option = options.get(_key(override))
    text = read_text(typed) if is_pair and option and is_text(option.kind) else None
    return override if text is None else f"{key}={quoted(text)}"


def quoted(text: str) -> str:
    """Put a text in quotes, so that Hydra reads special characters in it as plain text."""
    return QuotedString(text, Quote.single).with_quotes()


def _set_text_options(config: Config, overrides: Sequence[str]) -> None:
    """Set each option that is declared as a text to the characters that the user typed.

    Hydra does not know the declared types of options such as method_options.NAME, and reads 1.10 as
    the number 1.1. If Hydra read a number, true or false, this function imports torch to read the
    declared type of the option. If the declared type is text, the option is set to the text "1.10".
    """
    for override in overrides:
        group, _, option = _key(override).partition(".")
        values = getattr(config, group) if group in OPTION_KEYS.values() else {}
        if isinstance(values.get(option), bool | int | float):
            text = read_text(override.partition("=")[2])
            if text is not None and is_text(option_type(config, f"{group}.{option}")):
                values[option] = text


def _explain(error: Exception, schema: type[Config]) -> str:
    """Make a one-line message from an error of Hydra."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, name = str(cause.missing_cfg_file).rpartition("/")
        known = sorted(cause.options)
        near = nearest_key(name, known) or known[0]
        return f"{group} must be one of {', '.join(known)}, got {name}: try {group}={near}"
    if isinstance(cause, OverrideParseException):
        return (
            f"options must be KEY=VALUE, got {cause.override}: a value with special characters "
            f"needs quotes inside quotes, \"KEY='VALUE'\"; {EVERY_KEY}"
        )
    key = getattr(cause, "full_key", None)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return unknown_key(str(key), schema)
    if key and isinstance(cause, ValidationError):
        return _refused(str(key).partition("[")[0], getattr(cause, "value", None), schema)
    first = str(cause).strip().splitlines()[0]
    if "--multirun" in str(cause):  # Hydra advises this for key=a,b
        typed = first.partition("'")[2].rpartition("'")[0]
        key, _, values = typed.partition("=")
        return (
            f"{key} must have one value, got {values}: give {key}=VALUE for one run, or "
            f"{key}=[VALUE,VALUE] for a list; {EVERY_KEY}"
        )
    return f"{key or 'options'} must be valid, got an error: {first}: {EVERY_KEY}"


def _refused(key: str, value: Any, schema: type[Config]) -> str:
    option = options_of(schema).get(key)
    if option is not None:
        return option.refusal(value)
    under = next(one for one in options_of(schema).values() if one.key.startswith(f"{key}."))
    return f"{key} must be set key by key, got {value!r}: try {under.key}={under.example()}"


def unknown_key(key: str, schema: type[Config]) -> str:
    """Make the error message for a key that the schema does not have."""
    options = options_of(schema)
    groups = [entry.name for entry in fields(schema) if is_dataclass(entry.type)]
    near = nearest_key(key, [*options, *groups])
    said = f"key must be one that --help lists, got {key}"
    if near in options and near not in OPTION_KEYS.values():
        return f"{said}: try {near}={options[near].example()}"
    return f"{said}: did you mean {near}? {EVERY_KEY}" if near else f"{said}: {EVERY_KEY}"


def checked(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Convert a configuration that Hydra composed to a Config, and check every value.

    Args:
        composed: the configuration that compose_overrides returned.
        overrides: the overrides as typed. An option that is declared as a text gets the characters
            that the user typed.

    Raises:
        UserError: a value is not allowed.
    """
    config = unchecked(composed)
    check(config)
    _set_text_options(config, overrides)
    return config


def unchecked(composed: DictConfig) -> Config:
    """Convert a configuration that Hydra composed to a Config, without checking its values.

    A job that continues an existing run first replaces some values by the values of the run. It
    then checks all values.

    Raises:
        UserError: a key is unknown, or a key has no value.
    """
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:  # the user removed a value, or typed an interpolation
        raise UserError(_explain(error, Config)) from error
    assert isinstance(config, Config)
    _refuse_added_keys(config, type(config))
    return config


def _refuse_added_keys(config: Any, schema: type[Config], prefix: str = "") -> None:
    """Refuse unknown keys, which a user can add by +KEY=VALUE. Hydra itself accepts such keys.

    Raises:
        UserError: a key is unknown.
    """
    known = {entry.name for entry in fields(config)}
    for name, value in vars(config).items():
        if name not in known:
            raise UserError(unknown_key(f"{prefix}{name}", schema))
        if is_dataclass(value):
            _refuse_added_keys(value, schema, f"{prefix}{name}.")
