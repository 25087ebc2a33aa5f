"""Other evaluations of a run that exists, finished or not: nothing is trained.

    python harness/evaluate.py run_dir=runs/mnist5k-permuted-32 evaluate.num_images=4

Every key of `evaluate` that is not given has its default (with masks over units, which the
defaults do not fit, what the run has), and the checkpoints are those of the masks that are
committed. Everything else the run keeps as it began. Type the same command again to go on with
what was stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import hydra
from omegaconf import DictConfig

from harness.config.commandline import main_guard, typed_keys, unchecked
from harness.config.schema import AUTO, UNIT_MASK, Config
from harness.driver.start import carry_out
from harness.driver.work import Evaluator
from harness.run.directory import open_evaluated
from harness.run.existing import stored_configuration, with_given


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
    stored = stored_configuration(typed, given, taken=("evaluate",))
    own = replace(stored.evaluate, checkpoints=AUTO, reservoir=False)
    evaluated = own if stored.method == UNIT_MASK else typed.evaluate
    return with_given(replace(stored, evaluate=evaluated), typed, given)


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = configuration(unchecked(composed), typed_keys(sys.argv[1:]))
    if code := carry_out(config, open_evaluated, Evaluator):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
