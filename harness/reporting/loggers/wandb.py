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


class WandB:
    """A logger that writes to Weights & Biases; see Logger. A later start continues its run."""

    def begin(self, run: Logged) -> None:
        """See Logger.begin."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.name,
            group=run.directory.name if run.trial else None,
            id=run.identity,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.options),
            reinit="create_new",  # a command may have several runs at the same time
            settings=wandb.Settings(console="off", silent=True),
        )
        self._axis = run.axis
        # Without this call, wandb would drop numbers whose place is before that of earlier numbers.
        self._run.define_metric("*", step_metric=run.axis)

    def log(self, values: Mapping[str, float], at: int) -> None:
        """See Logger.log."""
        self._run.log({**values, self._axis: at})

    def end(self, *, failed: bool = False) -> None:
        """See Logger.end."""
        self._run.finish(exit_code=1 if failed else 0)
