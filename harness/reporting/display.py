"""What a run shows while it works: live bars on a terminal, log lines elsewhere."""

import logging
import time
from typing import Protocol, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

logger = logging.getLogger("harness")

SECONDS_BETWEEN_LINES = 5.0
LINE_WIDTH = 110
BAR_WIDTH = 24  # at most: on a narrow terminal the bar alone shrinks


class Display(Protocol):
    """Bars, by name; each counts towards a total and shows the accuracy so far."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        ...

    def add(self, name: str, total: int, done: int, unit: str) -> None:
        """Begin a bar."""
        ...

    def update(self, name: str, done: float, accuracy: float | None) -> None:
        """Say how far a bar is; done counts parts of a unit too."""
        ...


def _digits(rate: float) -> str:
    """Three digits, or all before the point."""
    return f"{rate:.3g}" if rate < 999.5 else f"{rate:.0f}"


def _rate(task: Task) -> float:
    """Units a second since the bar began, what was there before not counted."""
    # A full bar stays on the screen, and its clock runs on.
    seconds = task.finished_time if task.finished else task.elapsed
    return (task.completed - task.fields["before"]) / seconds if seconds else 0.0


class _RateColumn(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """Show nothing until something is done."""
        rate = _rate(task)
        return Text(f"{_digits(rate)} {task.fields['unit']}/s" if rate > 0 else "")


class _LeftColumn(ProgressColumn):
    """Hours, minutes and seconds left at that rate."""

    def render(self, task: Task) -> Text:
        """Show nothing until something is done, nor when all is."""
        rate = _rate(task)
        if rate <= 0 or task.finished or task.remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.remaining / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02} left")


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


class LiveDisplay:
    """Bars on a terminal, each on one line of the usual 80 columns."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            _text("{task.description}"),
            # The one column that may wrap, which is what makes it shrink first.
            BarColumn(BAR_WIDTH, table_column=Column(no_wrap=False)),
            _text("{task.fields[count]} {task.fields[unit]}"),
            _RateColumn(table_column=Column(no_wrap=True)),
            _LeftColumn(table_column=Column(no_wrap=True)),
            _text("{task.fields[accuracy]}"),
            console=console,
            refresh_per_second=4,
        )
        self._bars: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def add(self, name: str, total: int, done: int, unit: str) -> None:
        """Begin a bar."""
        bar = self._progress.add_task(
            name.removesuffix(" masks"),
            total=total,
            completed=done,
            before=done,
            unit=unit,
            count=f"{done}/{total}",
            accuracy="",
        )
        self._bars[name] = (bar, total)

    def update(self, name: str, done: float, accuracy: float | None) -> None:
        """Say how far a bar is."""
        bar, total = self._bars[name]
        said = "" if accuracy is None else f"acc {accuracy:.4f}"
        self._progress.update(bar, completed=done, count=f"{int(done)}/{total}", accuracy=said)


class LineDisplay:
    """A log line for each bar every few seconds, and one when it is full."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[int, int, str, float]] = {}
        self._said: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to end."""

    def add(self, name: str, total: int, done: int, unit: str) -> None:
        """Begin a bar."""
        now = time.monotonic()
        self._bars[name] = (total, done, unit, now)
        self._said[name] = (now, done)

    def update(self, name: str, done: float, accuracy: float | None) -> None:
        """Log how far a bar is, unless it was said a moment ago."""
        total, before, unit, began = self._bars[name]
        now, (said_at, said) = time.monotonic(), self._said[name]
        full = done >= total > said
        if not full and (now - said_at < SECONDS_BETWEEN_LINES or done >= total):
            return
        self._said[name] = (now, done)
        rate = (done - before) / max(now - began, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and not full else ""
        score = "" if accuracy is None else f", accuracy {accuracy:.4f}"
        logger.info("%s: %d/%d %s, %s/s%s%s", name, done, total, unit, _digits(rate), left, score)


def make_console() -> Console:
    """Where people read: as wide as a terminal is, and wide enough for our tables elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=LINE_WIDTH)


def make_display(console: Console, *, quiet: bool) -> Display:
    """Bars if the console is a terminal and quiet is off, else lines; sets up the log for it."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    if console.is_terminal and not quiet:
        # Through the console, so that a log line does not tear a live bar.
        logger.addHandler(RichHandler(console=console, show_path=False, show_level=False))
        return LiveDisplay(console)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    return LineDisplay()
