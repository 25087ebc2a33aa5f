"""Store the masks of a run in reservoirs, one by one, and recall them.

    python harness/recall.py run_dir=runs/mnist5k-permuted-32 reservoir.rules=[hebb,projection]

At each checkpoint, some masks are recalled in two ways: from noisy copies of the masks, and from
images without labels. The results are rows of the table `reservoir`. With the cue descent, masks
are also recovered by gradient descent, and the results are rows of the table `recovery`. The keys
evaluate.tasks, evaluate.batches and evaluate.batch_size choose the tasks and the batches of images.
If you do not give one of these keys, it has the run's value. All masks of a checkpoint must be
committed. Type the same command again to continue a recall that was stopped. If run_dir has several
runs, for example one for each seed, the masks of all of them are recalled.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.recall:JOB"))

from omegaconf import DictConfig

from harness.config.commandline import Job
from harness.config.compose import typed_keys, unchecked
from harness.config.identity import run_directory
from harness.config.keys import FREE_KEYS, RECALL_KEYS
from harness.reporting.html import with_reports


def main(composed: DictConfig, overrides: list[str]) -> int:
    """Recall masks of the runs, write their reports, and return the exit code."""
    # Imported here: torch and Ray take seconds to import, and help and errors do not need them.
    from harness.driver.recall import Recall
    from harness.driver.recover import Recover
    from harness.driver.start import carry_out
    from harness.run.directory import open_evaluated
    from harness.run.existing import recall_configuration
    from harness.run.several import each_run

    typed, given = unchecked(composed), typed_keys(overrides)
    configs = [recall_configuration(one, given) for one in each_run(typed)]
    code = carry_out(configs, open_evaluated, [Recall, Recover])
    return with_reports(code, [run_directory(config) for config in configs])


JOB = Job("recall", __doc__, main, takes=(*RECALL_KEYS, *FREE_KEYS))
