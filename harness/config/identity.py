"""What of a configuration decides a run's results, its name, and its file."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.checks import check
from harness.config.kinds import as_typed
from harness.config.options import resolved_options
from harness.config.schema import AUTO, FREE_KEYS, OPTION_KEYS, AnyConfig, Config, keys, leaf
from harness.errors import UserError
from harness.places.places import Place, place

_NOT_GIVEN = "not given"


def run_name(config: Config) -> str:
    """A folder name that tells runs apart by what people vary most.

    A name stands in it unless it is the default, and then the options that were given.
    """
    default = Config()
    parts = [config.data, *_options_name(config.data_options)]
    parts += [config.family, *_options_name(config.family_options), str(config.tasks)]
    hidden = config.network_options.get("hidden")
    if config.network != default.network or hidden:
        widths = hidden if isinstance(hidden, list) else []
        parts.append("_".join(map(str, [config.network, *widths])))
    parts += _options_name(config.network_options, without="hidden")
    if config.method != default.method:
        parts.append(config.method)
    parts += _options_name(config.method_options)
    if config.train.name != "paper":
        parts.append(config.train.name)
    if config.seed:
        parts.append(f"seed{config.seed}")
    return "-".join(parts)


def _options_name(options: Mapping[str, Any], without: str | None = None) -> list[str]:
    """Options as parts of a folder's name, such as density0.3."""
    texts = (f"{name}{as_typed(value)}" for name, value in options.items() if name != without)
    return [re.sub(r"[^\w.+-]+", "_", text).strip("_") for text in texts]


def run_directory(config: Config) -> Place:
    """Where the run lies; see harness.places.places.place."""
    return place(config.run_dir or f"runs/{run_name(config)}")


def differences(stored: Config, wanted: Config) -> list[str]:
    """Name the keys in which two configurations would give other results.

    A wanted `auto` agrees with whatever it was resolved to when the run began. An option that is
    not given has its default. To know the defaults imports torch, where options differ.

    Raises:
        UserError: an option that does not fit.
    """
    compared = []  # what has the same name in both: options of another network are other options
    ignored = set()
    for kind, key in OPTION_KEYS.items():
        if getattr(stored, kind) != getattr(wanted, kind):
            ignored.add(key)
        elif getattr(stored, key) != getattr(wanted, key):
            compared.append(kind)
    there = result_values(resolved_options(stored, compared))
    here = result_values(resolved_options(wanted, compared))
    found = []
    for key in {**here, **there}:
        old, new = there.get(key, _NOT_GIVEN), here.get(key, _NOT_GIVEN)
        if key.partition(".")[0] not in ignored and new not in (AUTO, old):
            found.append(f"{key} is {old} there, {new} here")
    return found


def result_values(config: Config) -> dict[str, Any]:
    """What of a configuration changes a result, by dotted key; each option has a key of its own."""
    found = {key: leaf(config, key) for key in keys(config)}
    checkpoints = config.evaluate.checkpoints
    if isinstance(checkpoints, list):  # kept sorted, however they were typed
        found["evaluate.checkpoints"] = sorted(set(checkpoints))
    return {key: value for key, value in found.items() if key.split(".")[0] not in FREE_KEYS}


def to_yaml(config: Config) -> str:
    """The configuration as `config.yaml` keeps it."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(path: Place) -> Config:
    """Read a run's configuration back; see job_from_yaml."""
    return job_from_yaml(path, Config)


def job_from_yaml(path: Place, schema: type[AnyConfig]) -> AnyConfig:
    """Read back the configuration of a job.

    Args:
        path: of the file.
        schema: of the job.

    Raises:
        UserError: the file is not one.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), OmegaConf.load(BytesIO(path.read_bytes()))
        )
        config = OmegaConf.to_object(merged)
        assert isinstance(config, schema)
        check(config)
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, UserError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a run's configuration: {reason}: put it back, or choose another run_dir"
        ) from error
    return config


def read_loosely(text: str) -> Config:
    """Read a run's config.yaml without checks, whichever version wrote it.

    A key that the schema does not have is left out. A key that is missing has its default, unless
    every run has it.

    Raises:
        KeyError, TypeError, ValueError, yaml.YAMLError: the text is no run's configuration.
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
