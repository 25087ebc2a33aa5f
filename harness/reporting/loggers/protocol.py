"""The protocol of a logger, and the function that begins the loggers of a run.

A logger copies numbers from the tables of a run, or of a trial of a search, to a program that shows
experiments. Only the driver has loggers. No result depends on a logger.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.config.names import LOGGERS
from harness.errors import UserError, one_line
from supsup_core.names import load


@dataclass(frozen=True)
class Logged:
    """The run that a logger copies. A search and each of its trials are runs of a logger too.

    Attributes:
        directory: the folder of the run or of the search.
        identity: text of letters and digits. It is the same in each start of the run, and differs
            from the texts of all other runs.
        options: dotted key, such as train.steps -> value.
        axis: name of the horizontal axis, such as num_masks.
        trial: the name of the trial in its search, such as trial-3; "" if this is no trial.
        search: the identity of the trial's search; "" if this is no trial.
        searched: the keys of `options` whose values differ between the trials of the search; empty
            if this is no trial.
    """

    directory: Path
    identity: str
    options: Mapping[str, Any]
    axis: str = "num_masks"
    trial: str = ""
    search: str = ""
    searched: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of the run in the other program: its folder's name, and the trial's name."""
        return f"{self.directory.name}/{self.trial}" if self.trial else self.directory.name


class Logger(Protocol):
    """A copy of a run in another program. The functions are called in the order begin, log, end."""

    def begin(self, run: Logged) -> None:
        """Open the copy of a run. If an earlier start has made this copy, continue it.

        Raises:
            Exception: the program cannot be used, for example because it needs a key.
        """
        ...

    def log(self, values: Mapping[str, float], at: int) -> None:
        """Add numbers.

        Args:
            values: name, such as tasks/accuracy -> number. A name consists of words of letters,
                digits and underscores, with slashes between the words.
            at: the place of the numbers on the axis `Logged.axis`, such as the number of masks to
                which they belong. The calls need not be in the order of these places. The same name
                and place may come again, with the same value, after the run was stopped.

        Raises:
            Exception: the numbers cannot be written. The logger is then not called again, except
                `end`.
        """
        ...

    def end(self, *, failed: bool = False) -> None:
        """Write all numbers, and close the copy.

        Args:
            failed: whether the run is a trial that failed.
        """
        ...


def check_packages(names: Sequence[str]) -> None:
    """Import the packages of loggers.

    Args:
        names: names of loggers, keys of LOGGERS.

    Raises:
        UserError: a package is not installed.
    """
    for name in names:
        try:
            load("loggers", LOGGERS, name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"loggers=[{name}] needs the package {error.name}, which is not installed: type "
                "python -m pip install --constraint constraints.txt -e '.[loggers]', or loggers=[]"
            ) from error


def begin_loggers(names: Sequence[str], run: Logged) -> dict[str, Logger]:
    """Make loggers, and let them begin.

    Args:
        names: names of loggers, keys of LOGGERS.
        run: the run to copy.

    Returns:
        Name -> logger.

    Raises:
        UserError: a logger cannot begin. The other loggers have ended.
    """
    found: dict[str, Logger] = {}
    with ExitStack() as begun:
        for name in names:
            found[name] = load("loggers", LOGGERS, name)()
            try:
                found[name].begin(run)
            except Exception as error:
                raise UserError(
                    f"loggers=[{name}] must be able to begin, got {one_line(error)}: follow this "
                    "message, or leave the logger out"
                ) from error
            begun.callback(found[name].end)
        begun.pop_all()
    return found
