"""The identity of a run: its name, its config.yaml, and the keys that change its results."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from harness.config.checks import check
from harness.config.keys import FREE_KEYS, OPTION_KEYS, keys, leaf
from harness.config.kinds import as_typed
from harness.config.names import AUTO
from harness.config.options import resolved_options
from harness.config.schema import AnyConfig, Config
from harness.config.stored import from_values, stored_values, value_errors
from harness.places.places import Place, place
from harness.places.reading import END

_NOT_GIVEN = "not given"


def run_name(config: Config) -> str:
    """Make the name of a run's folder from the keys that users change most often.

    The data set, the family and the number of tasks are always in the name. The network, the
    finder, the recipe, the transfer and the seed are in the name only if they differ from their
    defaults. An option, such as density, is in the name only if the user gave it.
    """
    default = Config()
    parts = [_short(config.data), *_options_name(config.data_options)]
    parts += [_short(config.family), *_options_name(config.family_options), str(config.tasks)]
    hidden = config.network_options.get("hidden")
    if config.network != default.network or hidden:
        widths = hidden if isinstance(hidden, list) else []
        parts.append("_".join(map(str, [_short(config.network), *widths])))
    parts += _options_name(config.network_options, without="hidden")
    if config.method != default.method:
        parts.append(_short(config.method))
    parts += _options_name(config.method_options)
    if config.scenario != default.scenario:
        parts.append(config.scenario)
    if config.train.name != "paper":
        parts.append(config.train.name)
    if config.train.transfer != default.train.transfer:
        parts.append(f"transfer_{config.train.transfer}")
    if config.seed:
        parts.append(f"seed{config.seed}")
    return "-".join(parts)


def _short(name: str) -> str:
    """Shorten a name for the folder's name: birds for ../birds.npz, mynets.conv for mynets:conv."""
    last = name.rstrip("/").rpartition("/")[2].removesuffix(".npz").replace(":", ".")
    return re.sub(r"[^\w.+-]+", "_", last).strip("._") or "data"


def _options_name(options: Mapping[str, Any], without: str | None = None) -> list[str]:
    """Write each option as a part of the folder's name: density0.3 for density=0.3."""
    texts = (f"{name}{as_typed(value)}" for name, value in options.items() if name != without)
    return [re.sub(r"[^\w.+-]+", "_", text).strip("_") for text in texts]


def method_label(method: str, options: Mapping[str, Any]) -> str:
    """Name a method and its options in the name of a folder, such as edge_popup_density0.3."""
    return "_".join([_short(method), *_options_name(options)])


def run_directory(config: Config) -> Place:
    """Return the run's folder, which is on a disk or in a bucket."""
    return place(config.run_dir or f"runs/{run_name(config)}")


def differences(stored: Config, wanted: Config) -> list[str]:
    """List the keys that change results, and whose values differ between two configurations.

    When a run begins, it replaces each `auto` by a value, and stores the value. So `auto` in the
    typed configuration agrees with every stored value. An option that is not given is compared by
    its default. To read the defaults, this function imports torch, but only if options differ.

    Args:
        stored: the configuration of an existing run.
        wanted: the configuration that a user typed.

    Returns:
        One text per key. It has the key, the stored value and the typed value.

    Raises:
        UserError: an option is unknown, or its value is not allowed.
    """
    # Options are compared only if both configurations have the same named thing, because two named
    # things, such as two networks, have different options.
    compared = []
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
            found.append(f"{key} is {old} in the folder, {new} in this command")
    return found


def result_values(config: Config) -> dict[str, Any]:
    """Return a mapping from dotted key to value, for all keys that change results.

    Each option that is given has a key of its own, such as method_options.density.
    """
    found = {key: leaf(config, key) for key in keys(config)}
    checkpoints = config.evaluate.checkpoints
    if isinstance(checkpoints, list):  # a run stores its checkpoints sorted
        found["evaluate.checkpoints"] = sorted(set(checkpoints))
    return {key: value for key, value in found.items() if key.split(".")[0] not in FREE_KEYS}


def to_yaml(config: Config) -> str:
    """Return the text of `config.yaml`: every key with its value, and "..." as the last line."""
    return OmegaConf.to_yaml(OmegaConf.structured(config)) + END


def from_yaml(path: Place) -> Config:
    """Read the configuration of a run from its config.yaml; see job_from_yaml."""
    return job_from_yaml(path, Config)


def job_from_yaml(path: Place, schema: type[AnyConfig]) -> AnyConfig:
    """Read and check the configuration of a job from its config.yaml.

    Args:
        path: path of config.yaml.
        schema: schema of the job's configuration.

    Raises:
        UserError: the file is missing, its end is missing, a key is missing or unknown, or a value
            is not allowed.
    """
    values = stored_values(path)
    with value_errors(path):
        config = from_values(values, schema)
        check(config)
    return config
