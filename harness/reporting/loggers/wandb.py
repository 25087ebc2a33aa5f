"""Copy a run to Weights & Biases: to its server, or to the folder `wandb` of the run directory.

The package wandb needs an API key, which `wandb login` stores. With WANDB_MODE=offline, it needs no
key and no network. `wandb sync` then sends the folder later.
"""

import os
from collections.abc import Mapping

# wandb reads this variable when it is imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from harness.reporting.loggers.protocol import Logged

PROJECT = "supermask-scaling"
_X = "num_masks"  # horizontal axis of all numbers


class WandB:
    """A logger that writes to Weights & Biases; see Logger. A later start continues its run."""

    def begin(self, run: Logged) -> None:
        """See Logger.begin."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.directory.name,
            id=run.identity,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.options),
            reinit="create_new",  # a command may have several runs at the same time
            settings=wandb.Settings(console="off", silent=True),
        )
        # Without this call, wandb would drop numbers whose num_masks is below an earlier one.
        self._run.define_metric("*", step_metric=_X)

    def log(self, values: Mapping[str, float], num_masks: int) -> None:
        """See Logger.log."""
        self._run.log({**values, _X: num_masks})

    def end(self) -> None:
        """See Logger.end."""
        self._run.finish()
