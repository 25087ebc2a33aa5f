"""Store the masks of a run that exists in reservoirs, one by one, and recall them.

    python harness/recall.py run_dir=runs/mnist5k-permuted-32 reservoir.rules=[hebb,projection]

At each checkpoint some masks are recalled from noisy cues and from images alone: rows of the
table `reservoir`. Which tasks and batches, evaluate.tasks, evaluate.batches and
evaluate.batch_size say: as the run has them, where they are not given. The checkpoints are those
of the masks that are committed. Type the same command again to go on with what was stopped.
"""

import sys

import hydra
from omegaconf import DictConfig

from harness.config.commandline import main_guard, typed_keys, unchecked
from harness.driver.recall import Recall
from harness.driver.start import carry_out
from harness.run.directory import open_evaluated
from harness.run.existing import recall_configuration


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = recall_configuration(unchecked(composed), typed_keys(sys.argv[1:]))
    if code := carry_out(config, open_evaluated, [Recall]):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
