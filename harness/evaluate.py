"""Other evaluations of a run that exists, finished or not: nothing is trained.

    python harness/evaluate.py run_dir=runs/mnist5k-permuted-32 evaluate.num_images=4

Every key of `evaluate` that is not given has its default, but a run that has no objective of
superfluous neurons keeps its objectives. The checkpoints are those of the masks that are committed.
Everything else the run keeps as it began. Type the same command again to go on with what was
stopped.
"""

import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from harness.config.commandline import main_guard, typed_keys, unchecked
from harness.config.schema import Config
from harness.driver.evaluate import Evaluate
from harness.driver.protocol import Stage
from harness.driver.recall import Recall
from harness.driver.start import carry_out
from harness.driver.work import Work
from harness.run.directory import open_evaluated
from harness.run.existing import evaluation_configuration


def stages(config: Config) -> list[Callable[[Work], Stage]]:
    """The stages of the job, each made from the run in progress."""
    return [Evaluate, *([Recall] if config.evaluate.reservoir else [])]


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = evaluation_configuration(unchecked(composed), typed_keys(sys.argv[1:]))
    if code := carry_out(config, open_evaluated, stages(config)):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
