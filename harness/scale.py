"""Train a mask for each of many tasks, and evaluate task inference during the training.

    python harness/scale.py tasks=2500 data=mnist family=permuted

Type the same command again to continue a run that was stopped. With a list of seeds, such as
seeds=[0,1,2], one command makes a run for each seed, on the same actors.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.scale:JOB"))

from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from harness.config.commandline import Job
from harness.config.compose import checked, store_schema, typed_keys
from harness.config.identity import run_directory
from harness.config.schema import Config, is_streamed
from harness.config.several import ScaleConfig, configurations
from harness.reporting.html import with_reports

if TYPE_CHECKING:
    from harness.driver.protocol import Stage
    from harness.driver.work import Work

store_schema("scale_schema", ScaleConfig)


def stages(config: Config) -> "list[Callable[[Work], Stage]]":
    """Return the functions that make the stages of this command."""
    from harness.driver.allocate import Allocate
    from harness.driver.evaluate import Evaluate
    from harness.driver.recall import Recall
    from harness.driver.recover import Recover
    from harness.driver.train import Train

    if is_streamed(config):
        return [Allocate, Evaluate]
    found: list[Callable[[Work], Stage]] = [Train, Evaluate]
    if config.evaluate.reservoir:
        found += [Recall, Recover]
    return found


def run(*configs: Config) -> int:
    """Train and evaluate runs.

    Args:
        configs: the checked configuration of each run, at least one.

    Returns:
        The exit code: 0 if all work is done, 1 if a work unit failed three times, 130 if the user
        stopped the command.

    Raises:
        UserError: a problem that the user can fix, described in one line.
    """
    # Imported here: torch and Ray take seconds to import, and help and errors do not need them.
    from harness.driver.start import carry_out
    from harness.run.directory import open_trained
    from harness.run.several import check_folders

    check_folders(configs)
    return carry_out(configs, open_trained, stages(configs[0]))


def main(composed: DictConfig, overrides: list[str]) -> int:
    """Train and evaluate runs, write their reports, and return the exit code."""
    job = checked(composed, overrides)
    assert isinstance(job, ScaleConfig)
    configs = configurations(job, typed_keys(overrides))
    return with_reports(run(*configs), [run_directory(config) for config in configs])


JOB = Job("scale", __doc__, main, config_name="scale", schema=ScaleConfig)
