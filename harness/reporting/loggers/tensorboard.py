"""Copy a run to TensorBoard's event files, in the folder `tensorboard` of the run directory.

The package tensorboardX writes these files without TensorBoard itself. To look at all runs of a
folder, type `tensorboard --logdir runs`.
"""

from collections.abc import Mapping

from tensorboardX import SummaryWriter

from harness.config.kinds import as_typed
from harness.reporting.loggers.protocol import Logged

FOLDER = "tensorboard"


class TensorBoard:
    """A logger that writes event files; see Logger. Each start of a run adds one file."""

    def begin(self, run: Logged) -> None:
        """See Logger.begin."""
        self._writer = SummaryWriter(str(run.directory / FOLDER))
        # TensorBoard shows texts as Markdown. Lines that begin with four spaces are code.
        lines = [f"    {key}: {as_typed(value)}" for key, value in run.options.items()]
        self._writer.add_text("options", "\n".join(lines))

    def log(self, values: Mapping[str, float], num_masks: int) -> None:
        """See Logger.log."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, num_masks)
        self._writer.flush()

    def end(self) -> None:
        """See Logger.end."""
        self._writer.close()
