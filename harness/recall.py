"""Store the masks of a run that exists in reservoirs, one by one, and recall them.

    python harness/recall.py run_dir=runs/mnist5k-permuted-32 reservoir.rules=[hebb,projection]

At each checkpoint some masks are recalled from noisy cues and from images alone: rows of the
table `reservoir`. Which tasks and batches, evaluate.tasks, evaluate.batches and
evaluate.batch_size say: as the run has them, where they are not given. The checkpoints are those
of the masks that are committed. Type the same command again to go on with what was stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import hydra
from omegaconf import DictConfig

from harness.config.commandline import main_guard, typed_keys, unchecked
from harness.config.schema import AUTO, Config
from harness.driver.start import carry_out
from harness.driver.work import Evaluator
from harness.errors import UserError
from harness.plan.units import WorkUnit, recall_units
from harness.run.directory import open_evaluated
from harness.run.existing import stored_configuration, with_given

# What is recalled, and when: all that a recall takes of the evaluation's keys.
_SAMPLE = tuple(f"evaluate.{name}" for name in ("checkpoints", "tasks", "batches", "batch_size"))


class Recaller(Evaluator):
    """Stores and recalls; infers nothing."""

    does = "recall"

    def _units(self, k: int) -> Sequence[WorkUnit]:
        return recall_units(self._config, k)


def configuration(typed: Config, given: Sequence[str]) -> Config:
    """What the run began with, but for reservoirs, what is recalled, and what changes no result.

    Arguments, result and errors as of harness.evaluate.configuration.
    """
    stored = stored_configuration(typed, given, taken=(*_SAMPLE, "reservoir"))
    if typed.actors.shards > 1:
        raise UserError(
            f"actors.shards must be 1 for a reservoir holds all masks, got {typed.actors.shards}: "
            "leave it out"
        )
    own = replace(stored.evaluate, checkpoints=AUTO)
    config = with_given(replace(stored, evaluate=own, reservoir=typed.reservoir), typed, given)
    return replace(config, evaluate=replace(config.evaluate, reservoir=True))


@hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run the job; leave with its exit code unless all is well."""
    config = configuration(unchecked(composed), typed_keys(sys.argv[1:]))
    if code := carry_out(config, open_evaluated, Recaller):
        sys.exit(code)


if __name__ == "__main__":
    main_guard(main)
