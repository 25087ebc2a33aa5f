"""The configurations of jobs on a run that exists: what they keep of it, and what may be typed."""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.checks import check
from harness.config.identity import from_yaml, run_directory
from harness.config.schema import AUTO, FREE_KEYS, Config, keys, leaf
from harness.errors import UserError
from harness.run.refusals import readable_path_errors
from supsup_core.names import SUPERFLUOUS_OBJECTIVES

# What a recall takes of the evaluation's keys: which masks are recalled, and when.
_SAMPLE = tuple(f"evaluate.{name}" for name in ("checkpoints", "tasks", "batches", "batch_size"))


def evaluation_configuration(typed: Config, given: Sequence[str]) -> Config:
    """The run's own configuration, with other evaluations and what changes no result.

    Args:
        typed: the command line's, with defaults for all that was not typed.
        given: the keys that were typed.

    Returns:
        The configuration, checked; its checkpoints, algorithms and num_images may still be auto.

    Raises:
        UserError: a key that the run keeps, or no run there.
    """
    stored = _stored_configuration(typed, given, taken=("evaluate",))
    evaluated = typed.evaluate
    if not set(stored.evaluate.objectives) & set(SUPERFLUOUS_OBJECTIVES):
        # The run may have no superfluous neurons, which the default objectives read.
        evaluated = replace(evaluated, objectives=stored.evaluate.objectives)
    return with_given(replace(stored, evaluate=evaluated), typed, given)


def recall_configuration(typed: Config, given: Sequence[str]) -> Config:
    """The run's own configuration, with other reservoirs and what changes no result.

    Arguments, result and errors are those of evaluation_configuration.
    """
    stored = _stored_configuration(typed, given, taken=(*_SAMPLE, "reservoir"))
    if typed.actors.shards > 1:
        raise UserError(
            f"actors.shards must be 1 for a reservoir holds all masks, got {typed.actors.shards}: "
            "leave it out"
        )
    own = replace(stored.evaluate, checkpoints=AUTO, num_images=AUTO)  # which it does not read
    config = with_given(replace(stored, evaluate=own, reservoir=typed.reservoir), typed, given)
    return replace(config, evaluate=replace(config.evaluate, reservoir=True))


def _stored_configuration(typed: Config, given: Sequence[str], taken: Sequence[str]) -> Config:
    """What the run began with, but for how many actors it had, on whatever machine.

    Args:
        typed: the command line's, with defaults for all that was not typed.
        given: the keys that were typed.
        taken: the keys that this job takes, and the groups that it takes whole.

    Raises:
        UserError: a key that the run keeps, or no run there.
    """
    for key in given:
        if key.partition(".")[0] not in FREE_KEYS and not any(_is_of(key, own) for own in taken):
            own = ", ".join(name if "." in name else f"{name}.*" for name in (*taken, "actors"))
            raise UserError(
                f"keys must be {own}, executor, run_dir, data_dir, download or quiet, got {key}: "
                "leave it out, for a run keeps what it began with"
            )
    if not typed.run_dir:
        raise UserError(
            "run_dir must be given, got none: for example run_dir=runs/mnist5k-permuted-32"
        )
    directory = run_directory(typed)
    with readable_path_errors(directory):
        if not (directory / "config.yaml").exists():
            raise UserError(
                f"run directory {directory} must hold a run, got no config.yaml in it: "
                "begin one by harness/scale.py, or choose another run_dir"
            )
    stored = from_yaml(directory / "config.yaml")
    return replace(stored, actors=replace(stored.actors, train=AUTO, shards=1))


def _is_of(key: str, taken: str) -> bool:
    return key == taken or key.startswith(f"{taken}.")


def with_given(config: Config, typed: Config, given: Sequence[str]) -> Config:
    """A configuration with the values that were typed, checked.

    Args:
        config: changed in place.
        typed: the command line's.
        given: the keys that were typed.

    Raises:
        UserError: a value that no run can have.
    """
    for key in keys(config):
        group, _, name = key.rpartition(".")
        if key in given or group in given:
            setattr(leaf(config, group) if group else config, name, leaf(typed, key))
    check(config)
    return config
