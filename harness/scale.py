"""The main job: train a mask for each of many tasks, and evaluate them while training goes on.

    python harness/scale.py tasks=2500 data=mnist family=permuted

Type the same command again to go on with a run that was stopped.
"""

import sys

import hydra
from omegaconf import DictConfig

from harness.commandline import from_hydra, main_guard
from harness.driver import run


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    if code := run(from_hydra(composed)):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
