"""The main job: train a mask for each of many tasks, and evaluate them while training goes on.

    python harness/scale.py tasks=2500 data=mnist family=permuted

Type the same command again to go on with a run that was stopped.
"""

import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from harness.config.commandline import STOPPED, from_hydra, main_guard
from harness.config.identity import run_directory
from harness.config.schema import Config
from harness.driver.evaluate import Evaluate
from harness.driver.protocol import Stage
from harness.driver.recall import Recall
from harness.driver.start import carry_out
from harness.driver.train import Train
from harness.driver.work import Work
from harness.reporting.html import write_report
from harness.run.directory import open_run


def stages(config: Config) -> list[Callable[[Work], Stage]]:
    """The stages of the main job, each made from the run in progress."""
    return [Train, Evaluate, *([Recall] if config.evaluate.reservoir else [])]


def run(config: Config) -> int:
    """Do the main job. Arguments, result and errors are those of carry_out."""
    return carry_out(config, open_run, stages(config))


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = from_hydra(composed)
    code = run(config)
    if code != STOPPED:
        write_report(run_directory(config))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
