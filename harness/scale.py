"""Train a mask for each of many tasks, and evaluate task inference during the training.

    python harness/scale.py tasks=2500 data=mnist family=permuted

Type the same command again to continue a run that was stopped.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.scale:JOB"))

from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from harness.config.command import STOPPED
from harness.config.commandline import Job
from harness.config.compose import checked
from harness.config.identity import run_directory
from harness.config.schema import Config, is_streamed
from harness.reporting.html import write_report

if TYPE_CHECKING:
    from harness.driver.protocol import Stage
    from harness.driver.work import Work


def stages(config: Config) -> "list[Callable[[Work], Stage]]":
    """Return the functions that make the stages of this command."""
    from harness.driver.allocate import Allocate
    from harness.driver.evaluate import Evaluate
    from harness.driver.recall import Recall
    from harness.driver.train import Train

    if is_streamed(config):
        return [Allocate, Evaluate]
    return [Train, Evaluate, *([Recall] if config.evaluate.reservoir else [])]


def run(config: Config) -> int:
    """Train and evaluate a run.

    Args:
        config: the checked configuration.

    Returns:
        The exit code: 0 if all work is done, 1 if a work unit failed three times, 130 if the user
        stopped the run.

    Raises:
        UserError: a problem that the user can fix, described in one line.
    """
    # Imported here: torch and Ray take seconds to import, and help and errors do not need them.
    from harness.driver.start import carry_out
    from harness.run.directory import open_run

    return carry_out(config, open_run, stages(config))


def main(composed: DictConfig, overrides: list[str]) -> int:
    """Train and evaluate a run, write its report, and return the exit code."""
    config = checked(composed, overrides)
    code = run(config)
    if code != STOPPED:
        write_report(run_directory(config))
    return code


JOB = Job("scale", __doc__, main)
