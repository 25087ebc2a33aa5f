"""Make the configurations of the commands that work on an existing run.

Most values are those of the run. The user may type only some keys.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.checks import check, must_be
from harness.config.identity import from_yaml, run_directory
from harness.config.keys import FREE_KEYS, RECALL_KEYS, is_taken, keys, leaf
from harness.config.names import AUTO
from harness.config.schema import Config, is_streamed
from harness.errors import UserError
from harness.run.refusals import readable_path_errors
from supsup_core.names import SUPERFLUOUS_OBJECTIVES


def evaluation_configuration(typed: Config, given: Sequence[str]) -> Config:
    """Make the configuration for evaluating a run with other settings.

    Two kinds of values come from the command line: the evaluation settings, and the keys that
    change no result. All other values are those of the run. If none of the run's objectives uses
    superfluous neurons, the run's objectives replace the default objectives.

    Args:
        typed: the configuration of the command line, with defaults for keys that were not typed.
        given: the keys that were typed.

    Returns:
        The checked configuration. Its checkpoints, algorithms and num_images may still be auto.

    Raises:
        UserError: a typed key must keep the run's value, a value is not allowed, or run_dir holds
            no run.
    """
    stored = _stored_configuration(typed, given, taken=("evaluate",))
    evaluated = typed.evaluate
    if not set(stored.evaluate.objectives) & set(SUPERFLUOUS_OBJECTIVES):
        # The default objectives use superfluous neurons, and this run may have none.
        evaluated = replace(evaluated, objectives=stored.evaluate.objectives)
    return with_given(replace(stored, evaluate=evaluated), typed, given)


def recall_configuration(typed: Config, given: Sequence[str]) -> Config:
    """Make the configuration for storing a run's masks in reservoirs with other settings.

    The arguments, the result and the errors are like those of evaluation_configuration.
    """
    stored = _stored_configuration(typed, given, taken=RECALL_KEYS)
    if typed.actors.shards > 1:
        raise must_be(
            "actors.shards",
            "1, because a reservoir holds all masks",
            typed.actors.shards,
            "actors.shards=1",
        )
    if is_streamed(stored):
        raise UserError(
            f"scenario must be gn for a recall, got {stored.scenario} in {typed.run_dir}: choose "
            "another run_dir"
        )
    own = replace(stored.evaluate, checkpoints=AUTO, num_images=AUTO)  # recalls ignore num_images
    config = with_given(replace(stored, evaluate=own, reservoir=typed.reservoir), typed, given)
    return replace(config, evaluate=replace(config.evaluate, reservoir=True))


def _stored_configuration(typed: Config, given: Sequence[str], taken: Sequence[str]) -> Config:
    """Read the run's configuration, and reset values that suit the machine of the training.

    These are actors.train, actors.shards, train.device and loggers. This start may be on another
    machine.

    Args:
        typed: the configuration of the command line, with defaults for keys that were not typed.
        given: the keys that were typed.
        taken: keys that this command takes from the command line. The name of a group stands for
            all keys of the group.

    Raises:
        UserError: a typed key must keep the run's value, or run_dir holds no run.
    """
    for key in given:
        if not is_taken(key, (*taken, *FREE_KEYS)):
            own = ", ".join((*taken, *FREE_KEYS))
            raise UserError(
                f"key must be one of {own}, got {key}: leave it out, because a run keeps the "
                "values that it began with"
            )
    if not typed.run_dir:
        raise UserError("run_dir must be given, got nothing: try run_dir=runs/mnist5k-permuted-32")
    directory = run_directory(typed)
    with readable_path_errors(directory):
        if not (directory / "config.yaml").exists():
            raise UserError(
                f"run directory {directory} must hold a run, got no config.yaml in it: "
                "begin a run with harness/scale.py, or choose another run_dir"
            )
    stored = from_yaml(directory / "config.yaml")
    return replace(
        stored,
        actors=replace(stored.actors, train=AUTO, shards=1),
        # Nothing is trained, so the actors may have other devices than those that trained.
        train=replace(stored.train, device=AUTO),
        loggers=[],  # a stranger's run must not send results to the user's account
    )


def with_given(config: Config, typed: Config, given: Sequence[str]) -> Config:
    """Copy the typed values into a configuration, and check the configuration.

    Args:
        config: the configuration to change. This function changes this object, and returns it.
        typed: the configuration of the command line.
        given: the keys that were typed.

    Raises:
        UserError: a value is not allowed.
    """
    for key in keys(config):
        group, _, name = key.rpartition(".")
        if key in given or group in given:
            setattr(leaf(config, group) if group else config, name, leaf(typed, key))
    check(config)
    return config
