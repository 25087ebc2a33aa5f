"""What of a configuration decides a run's results, its name, and its file."""

from io import BytesIO
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config.checks import check
from harness.config.schema import AUTO, FREE_KEYS, AnyConfig, Config, keys, leaf
from harness.errors import UserError
from harness.places.places import Place, place


def run_name(config: Config) -> str:
    """A folder name that tells runs apart by what people vary most."""
    parts = [config.data, config.family, str(config.tasks)]
    if config.network == "mlp":
        parts.append("mlp_" + "_".join(map(str, config.hidden or [])))
    elif config.network != Config().network:
        parts.append(config.network)
    if config.method != Config().method:
        parts.append(config.method)
    if config.train.name != "paper":
        parts.append(config.train.name)
    if config.seed:
        parts.append(f"seed{config.seed}")
    return "-".join(parts)


def run_directory(config: Config) -> Place:
    """Where the run lies; see harness.storage.places.place."""
    return place(config.run_dir or f"runs/{run_name(config)}")


def differences(stored: Config, wanted: Config) -> list[str]:
    """Name the keys in which two configurations would give other results.

    A wanted `auto` agrees with whatever it was resolved to when the run began.
    """
    there = result_values(stored)
    return [
        f"{key} is {there[key]} there, {value} here"
        for key, value in result_values(wanted).items()
        if value not in (AUTO, there[key])
    ]


def result_values(config: Config) -> dict[str, Any]:
    """What of a configuration changes a result, by dotted key."""
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
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, UserError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a run's configuration: {reason}: put it back, or choose another run_dir"
        ) from error
    return config
