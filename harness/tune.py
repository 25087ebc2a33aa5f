"""Search the configuration: Ray Tune trains a few tasks by each of many configurations.

    python harness/tune.py 'train.learning_rate=tag(log, interval(1e-4, 1e-2))' \
        'train.smoothing=interval(0.1, 0.99)' train.optimizer=rmsprop,adam

A key that has many values, in Hydra's own form of a sweep, is searched; any other is given to
every trial, as to harness/scale.py. `tune.space` of a YAML file says the same (key: text). Type
the same command again to go on with a search that was stopped. The best configuration becomes a
file that any job takes:

    python harness/scale.py --config-dir runs/tune-mnist5k-permuted-8-fast +recipe=best tasks=2500
"""

import sys

import hydra
from omegaconf import DictConfig

from harness.config.commandline import from_hydra, main_guard, store_schema
from harness.errors import UserError
from harness.search.config import TuneJob
from harness.search.space import with_space
from harness.search.start import carry_out_search

store_schema("tune_schema", TuneJob)


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="tune")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    job = from_hydra(composed)
    assert isinstance(job, TuneJob)
    if code := carry_out_search(job):
        sys.exit(code)


def guarded_main() -> None:
    """Run the command line: errors of the user are one line on stderr and exit code 2."""
    try:
        sys.argv[1:] = with_space(sys.argv[1:])
    except UserError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
    main_guard(main, "tune", TuneJob)


if __name__ == "__main__":
    guarded_main()
