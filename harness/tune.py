"""Search for a good configuration: Ray Tune trains a few tasks with each of many configurations.

    python harness/tune.py 'train.learning_rate=tag(log, interval(1e-4, 1e-2))' \
        'train.smoothing=interval(0.1, 0.99)' train.optimizer=rmsprop,adam

A key with several values is searched. (In Hydra, such a list of values is called a sweep.) Every
other key has the same value in all trials, and the same meaning as in harness/scale.py. In a YAML
file, list the searched keys under `tune.space`, and write each sweep as a text. Type the same
command again to continue a search that was stopped. The search writes a report, report.html, and
the best configuration to a file. Every other command can use this file:

    python harness/scale.py --config-dir runs/tune-mnist5k-permuted-8-fast +recipe=best tasks=2500
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.tune:JOB"))

from omegaconf import DictConfig

from harness.config.commandline import Job
from harness.config.compose import checked
from harness.reporting.html import with_reports
from harness.search.config import TuneJob
from harness.search.sweeps import with_space


def main(composed: DictConfig, overrides: list[str]) -> int:
    """Run the search, write its report, and return the exit code."""
    # Imported here: torch and Ray take seconds to import, and help and errors do not need them.
    from harness.search.start import carry_out_search, search_directory

    job = checked(composed, overrides)
    assert isinstance(job, TuneJob)
    return with_reports(carry_out_search(job), [search_directory(job)])


JOB = Job("tune", __doc__, main, config_name="tune", schema=TuneJob, rewrite=with_space)
