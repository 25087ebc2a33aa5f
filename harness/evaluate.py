"""Other evaluations of a run that exists, finished or not: nothing is trained.

    python harness/evaluate.py run_dir=runs/mnist5k-permuted-32 evaluate.num_images=4

Every key of `evaluate` that is not given has its default, and the checkpoints are those of the
masks that are committed. Everything else the run keeps as it began. Type the same command again
to go on with what was stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import hydra
from omegaconf import DictConfig

from harness.commandline import main_guard, typed_keys, unchecked
from harness.config import AUTO, FREE_KEYS, Config, check, from_yaml, keys, leaf, run_directory
from harness.driver import Evaluator, carry_out
from harness.errors import UserError
from harness.runs import open_evaluated, readable_path_errors


def configuration(typed: Config, given: Sequence[str]) -> Config:
    """What the run began with, but for what is evaluated and what changes no result.

    Args:
        typed: the command line's, with defaults for all that was not typed.
        given: the keys that were typed.

    Returns:
        The configuration, checked; its checkpoints may still be auto.

    Raises:
        UserError: a key that the run keeps, or no run there.
    """
    for key in given:
        if key.partition(".")[0] not in ("evaluate", *FREE_KEYS):
            raise UserError(
                f"keys must be evaluate.*, actors.*, executor, run_dir, data_dir, download or "
                f"quiet, got {key}: leave it out, for a run keeps what it began with"
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
    # How many actors trained, on whatever machine, says nothing about this job.
    config = replace(
        stored, evaluate=typed.evaluate, actors=replace(stored.actors, train=AUTO, shards=1)
    )
    for key in keys(config):
        group, _, name = key.rpartition(".")
        if key in given or group in given:
            setattr(leaf(config, group) if group else config, name, leaf(typed, key))
    check(config)
    return config


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = configuration(unchecked(composed), typed_keys(sys.argv[1:]))
    if code := carry_out(config, open_evaluated, Evaluator):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
