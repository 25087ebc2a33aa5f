"""From what was typed to a configuration, with one clear line for every mistake.

With harness/search/space.py, the only module that reads Hydra.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from harness.config.checks import check, must_be_one_of
from harness.config.schema import OPTION_KEYS, Config, keys
from harness.errors import UserError

CONFIG_MODULE = "harness.conf"
STOPPED = 130  # the exit code that a shell gives to Ctrl-C


def store_schema(name: str, schema: type[Config]) -> None:
    """Give Hydra the schema of a job.

    Its options may be typed as any key, method_options.density=0.3: without the flag Hydra would
    ask for a + before a key that the schema does not have.
    """
    node = OmegaConf.structured(schema)
    for key in OPTION_KEYS.values():
        OmegaConf.set_struct(node[key], False)
    ConfigStore.instance().store(name=name, node=node)


store_schema("schema", Config)


def compose_command_line(
    arguments: Sequence[str], name: str = "config", schema: type[Config] = Config
) -> DictConfig | None:
    """Compose what was typed, refusing what Hydra would answer with a page of its own.

    Args:
        arguments: as typed.
        name: of the job's file in harness/conf.
        schema: of the job.

    Returns:
        The configuration to run; None where Hydra is asked for something else: to
        print, or to read its files elsewhere.

    Raises:
        UserError: an unknown key or recipe, a value of another type, or a sweep.
    """
    parsed, unknown = get_args_parser().parse_known_args(list(arguments))
    if parsed.multirun:
        raise UserError(
            "options must give one run, got --multirun: each run has its own directory and lock; "
            "type one command a value"
        )
    if unknown:
        raise UserError(f"options must be key=value or those of --hydra-help, got {unknown[0]}")
    if parsed.config_path or parsed.config_name:
        return None
    overrides = [*parsed.overrides, *_search_path(parsed.config_dir)]
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            composed = compose(name, overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, schema)) from error
    except ValueError as error:  # "=3", "train=3"
        typed = " ".join(parsed.overrides)
        raise UserError(
            f"options must be key=value, and train the name of a recipe, got {typed}: "
            "--cfg job lists all keys"
        ) from error
    asked = (parsed.help, parsed.hydra_help, parsed.cfg, parsed.info, parsed.shell_completion)
    return None if any(asked) or parsed.experimental_rerun else composed


def _search_path(config_dir: str | None) -> list[str]:
    """Let Hydra find files in a folder of the user's too, as its --config-dir does."""
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir must be a folder, got {config_dir}: mend the path")
    quoted = f"file://{folder}".replace("'", "\\'")
    return [f"hydra.searchpath=['{quoted}']"]


def typed_keys(arguments: Sequence[str]) -> list[str]:
    """The dotted names that a command line sets; the recipe's is `train`."""
    overrides = get_args_parser().parse_known_args(list(arguments))[0].overrides
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [override.key_or_group for override in parsed]


def _explain(error: Exception, schema: type[Config] = Config) -> str:
    """Say in one line what Hydra says in several."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, name = str(cause.missing_cfg_file).rpartition("/")
        return must_be_one_of(group, name, cause.options)
    if isinstance(cause, OverrideParseException):
        return (
            f"options must be key=value, got {cause.override!r}: --cfg job lists all keys; "
            "a value with special characters needs quotes inside quotes, \"key='value'\""
        )
    key = getattr(cause, "full_key", None)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(str(key), schema)
    if key and isinstance(cause, ValidationError):
        key, value = str(key).partition("[")[0], getattr(cause, "value", None)
        got = "null" if value is None else repr(value)
        return f"{key} must be {expected(key, schema)}, got {got}: --cfg job shows its default"
    first = str(cause).strip().splitlines()[0]
    if "--multirun" in str(cause):  # Hydra's advice for key=a,b
        typed = first.partition("'")[2].rpartition("'")[0]
        return f"options must have one value, got {typed}: type one command a value, or key=[a,b]"
    return f"{key}: {first}" if key else f"{first} (--cfg job lists all keys)"


def _unknown_key(key: str, schema: type[Config]) -> str:
    groups = [entry.name for entry in fields(schema) if is_dataclass(entry.type)]
    known = [*keys(schema()), *groups, *OPTION_KEYS.values()]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "--cfg job lists all keys"
    return f"unknown key {key}: {hint}"


_KINDS: dict[Any, str] = {
    int: "a whole number",
    int | None: "a whole number or null",
    int | str: "a whole number or auto",
    float: "a number",
    bool: "true or false",
    dict[str, Any]: "names with values such as {density: 0.3}",
    list[str]: "a list of names such as [H,G]",
}


def expected(key: str, schema: type[Config] = Config) -> str:
    """What values a key of the schema takes."""
    kind: Any = schema
    for part in key.split("."):
        kind = {entry.name: entry.type for entry in fields(kind)}.get(part)
        if not is_dataclass(kind):
            return _KINDS.get(kind, "a text")
    return f"set key by key, such as {key}.{fields(kind)[0].name}=..."


def from_hydra(composed: DictConfig) -> Config:
    """Convert what Hydra composed and check every value.

    Raises:
        UserError: a value that no run can have.
    """
    config = unchecked(composed)
    check(config)
    return config


def unchecked(composed: DictConfig) -> Config:
    """Convert what Hydra composed, for a job that has yet to put a run's values in.

    Raises:
        UserError: a key that there is not, or a value taken away.
    """
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:  # a value taken away, or an interpolation
        raise UserError(_explain(error)) from error
    assert isinstance(config, Config)
    _refuse_addedkeys(config, type(config))
    return config


def _refuse_addedkeys(config: Any, schema: type[Config], prefix: str = "") -> None:
    """Refuse +key=value, which would be accepted and then do nothing."""
    known = {entry.name for entry in fields(config)}
    for name, value in vars(config).items():
        if name not in known:
            raise UserError(_unknown_key(f"{prefix}{name}", schema))
        if is_dataclass(value):
            _refuse_addedkeys(value, schema, f"{prefix}{name}.")


def main_guard(job: Any, name: str = "config", schema: type[Config] = Config) -> None:
    """Run a job's command line: user errors are one line on stderr and exit code 2.

    Args:
        job: decorated by hydra.main. Given a configuration, it runs without Hydra, which
            would put a traceback around a user error and leave a log of its own.
        name: of the job's file in harness/conf.
        schema: of the job.
    """
    try:
        composed = compose_command_line(sys.argv[1:], name, schema)
        job() if composed is None else job(composed)
    except KeyboardInterrupt:
        print("stopped before any work began", file=sys.stderr)
        sys.exit(STOPPED)
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
