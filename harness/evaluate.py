"""Evaluate an existing run with other settings. No mask is trained.

    python harness/evaluate.py run_dir=runs/mnist5k-permuted-32 evaluate.num_images=4

The run may be finished or stopped. If you do not give a key of `evaluate`, it has its default
value, not the run's value. There is one exception: if no objective of the run uses superfluous
neurons (outputs without a class), evaluate.objectives has the run's value. All other keys that
change results have the run's values. All masks of a checkpoint must be committed. Type the same
command again to continue an evaluation that was stopped. If run_dir has several runs, for example
one for each seed, all of them are evaluated.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.evaluate:JOB"))

from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from harness.config.commandline import Job
from harness.config.compose import typed_keys, unchecked
from harness.config.identity import run_directory
from harness.config.keys import FREE_KEYS
from harness.config.schema import Config
from harness.reporting.html import with_reports

if TYPE_CHECKING:
    from harness.driver.protocol import Stage
    from harness.driver.work import Work


def stages(config: Config) -> "list[Callable[[Work], Stage]]":
    """Return the functions that make the stages of this command."""
    from harness.driver.evaluate import Evaluate
    from harness.driver.recall import Recall
    from harness.driver.recover import Recover

    found: list[Callable[[Work], Stage]] = [Evaluate]
    if config.evaluate.reservoir:
        found += [Recall, Recover]
    return found


def main(composed: DictConfig, overrides: list[str]) -> int:
    """Evaluate the runs, write their reports, and return the exit code."""
    # Imported here: torch and Ray take seconds to import, and help and errors do not need them.
    from harness.driver.start import carry_out
    from harness.run.directory import open_evaluated
    from harness.run.existing import evaluation_configuration
    from harness.run.several import each_run

    typed, given = unchecked(composed), typed_keys(overrides)
    configs = [evaluation_configuration(one, given) for one in each_run(typed)]
    code = carry_out(configs, open_evaluated, stages(configs[0]))
    return with_reports(code, [run_directory(config) for config in configs])


JOB = Job("evaluate", __doc__, main, takes=("evaluate", *FREE_KEYS))
