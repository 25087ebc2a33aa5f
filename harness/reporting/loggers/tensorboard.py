"""Copy a run to TensorBoard's event files, in the folder `tensorboard` of the run directory.

The package tensorboardX writes these files without TensorBoard itself. To look at all runs of a
folder, type `tensorboard --logdir runs`. Each trial of a search has a folder of its own, and the
page HPARAMS of TensorBoard compares the trials.
"""

from collections.abc import Mapping

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from harness.config.kinds import as_typed
from harness.reporting.loggers.protocol import Logged

FOLDER = "tensorboard"


class TensorBoard:
    """A logger that writes event files; see Logger. Each start of a run adds one file."""

    def begin(self, run: Logged) -> None:
        """See Logger.begin."""
        self._writer = SummaryWriter(str(run.directory / FOLDER / run.trial))
        # TensorBoard shows texts as Markdown. Lines that begin with four spaces are code.
        lines = [f"    {key}: {as_typed(value)}" for key, value in run.options.items()]
        self._writer.add_text("options", "\n".join(lines))
        self._searched = {key: run.options[key] for key in run.searched}

    def log(self, values: Mapping[str, float], at: int) -> None:
        """See Logger.log."""
        self._write_searched(values)
        for name, value in values.items():
            self._writer.add_scalar(name, value, at)
        self._writer.flush()

    def _write_searched(self, metrics: Mapping[str, float]) -> None:
        """Write the values of the searched keys, once, for the page HPARAMS of TensorBoard.

        Args:
            metrics: numbers of the trial; the page has a column for each name.
        """
        if self._searched:
            plain = bool | int | float | str
            shown = {
                key: value if isinstance(value, plain) else as_typed(value)
                for key, value in self._searched.items()
            }
            for summary in hparams(shown, metrics):
                self._writer.file_writer.add_summary(summary)
            self._searched = {}

    def end(self, *, failed: bool = False) -> None:
        """See Logger.end. Event files cannot say that a trial failed."""
        self._writer.close()
