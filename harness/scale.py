"""The main job: train a mask for each of many tasks, and evaluate them while training goes on.

    python harness/scale.py tasks=2500 data=mnist family=permuted

Type the same command again to go on with a run that was stopped.
"""

import sys

import hydra
from omegaconf import DictConfig

from harness.config.commandline import STOPPED, from_hydra, main_guard
from harness.config.identity import run_directory
from harness.driver.start import run
from harness.reporting.html import write_report


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
