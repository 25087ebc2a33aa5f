"""Progress of a run at work: live bars on a terminal, log lines elsewhere."""

import logging
import time
from textwrap import fill
from typing import Protocol, Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

logger = logging.getLogger("harness")

SECONDS_BETWEEN_LINES = 5.0
LINE_WIDTH = 110
BAR_WIDTH, NARROW_BAR_WIDTH = 24, 6  # in columns, on a terminal with and without room for more


class Display(Protocol):
    """Named progress bars. A bar shows a count, its total and a named accuracy so far."""

    def __enter__(self) -> Self:
        """Start the display."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop the display; the last state stays on the screen."""
        ...

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar.

        Args:
            name: name of the bar.
            total: number of units at which the bar is full.
            done: number of units that were done before the bar started.
            unit: plural name of the counted units, such as "tasks".
            measure: a few words that say what the accuracy is, such as "one_shot H".
        """
        ...

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Show the progress of a bar.

        A rate and the time left are shown only after this start has completed a unit. Before that,
        the time is spent on compiling and on starting actors, and says nothing about the rate.

        Args:
            name: name of the bar.
            done: number of units whose results are kept.
            accuracy: mean accuracy so far, in [0, 1]; None if there is none yet.
            under_way: work that is done and not kept yet, as a number of units.
        """
        ...


def _count(done: int, under_way: float, total: int) -> str:
    """Write a count, such as "8+3/32": 8 of 32 units are kept, and the work of 3 more is done."""
    return f"{done}{f'+{int(under_way)}' if under_way >= 1 else ''}/{total}"


def _digits(rate: float) -> str:
    """Format a rate with three significant digits, or as a whole number from 999.5 on."""
    return f"{rate:.3g}" if rate < 999.5 else f"{rate:.0f}"


def _rate(task: Task) -> float:
    """Return the units per second since the bar started; 0 until a unit is kept."""
    if task.fields["done"] <= task.fields["before"]:
        return 0.0
    # The clock of a full bar runs on, so a full bar uses the time when it became full.
    seconds = task.finished_time if task.finished else task.elapsed
    return (task.completed - task.fields["before"]) / seconds if seconds else 0.0


class _RateColumn(ProgressColumn):
    """Column with the rate of a bar per second."""

    def render(self, task: Task) -> Text:
        """Format the rate; the text is empty until a unit is kept."""
        rate = _rate(task)
        return Text(f"{_digits(rate)}/s" if rate > 0 else "")


class _LeftColumn(ProgressColumn):
    """Column with the remaining time of a bar at its rate, as h:mm:ss."""

    def render(self, task: Task) -> Text:
        """Format the time; the text is empty until a unit is kept, and after the last unit."""
        rate = _rate(task)
        if rate <= 0 or task.finished or task.remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.remaining / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02} left")


class _AccuracyColumn(ProgressColumn):
    """Column with the accuracy of a bar, and then what it is; only that name may be cut."""

    def render(self, task: Task) -> Text:
        """Format the accuracy; the text is empty until there is one."""
        return Text(task.fields["accuracy"], no_wrap=True, overflow="ellipsis")


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


class LiveDisplay:
    """Live bars on a terminal. A bar fits on one line of 80 columns, with all its numbers."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            _text("{task.description}"),
            BarColumn(
                BAR_WIDTH if console.width >= LINE_WIDTH else NARROW_BAR_WIDTH,
                table_column=Column(no_wrap=True),
            ),
            _text("{task.fields[count]}"),
            _RateColumn(table_column=Column(no_wrap=True)),
            _LeftColumn(table_column=Column(no_wrap=True)),
            # Only this column may wrap, so rich shrinks this column first, and cuts no other one.
            _AccuracyColumn(table_column=Column(no_wrap=False)),
            console=console,
            refresh_per_second=4,
        )
        self._bars: dict[str, tuple[TaskID, int, str]] = {}

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the display; the last state stays on the screen."""
        self._progress.stop()

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar; see Display.add."""
        bar = self._progress.add_task(
            name.removesuffix(" masks"),
            total=total,
            completed=done,
            before=done,
            done=done,
            count=f"{done}/{total}",
            accuracy="",
        )
        self._bars[name] = (bar, total, measure)

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Show the progress of a bar; see Display.update."""
        bar, total, measure = self._bars[name]
        self._progress.update(
            bar,
            completed=done + under_way,
            done=done,
            count=_count(done, under_way, total),
            accuracy="" if accuracy is None else f"{accuracy:.4f} {measure}",
        )


class LineDisplay:
    """Log lines instead of bars: a line per bar every few seconds, and a line for a full bar."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[int, int, str, str, float]] = {}
        self._said: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar; see Display.add."""
        now = time.monotonic()
        self._bars[name] = (total, done, unit, measure, now)
        self._said[name] = (now, done)

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Log the progress of a bar, unless its last line is younger than SECONDS_BETWEEN_LINES.

        A full bar is logged once, whatever the age of its last line.
        """
        total, before, unit, measure, began = self._bars[name]
        now, (said_at, said) = time.monotonic(), self._said[name]
        full = done >= total > said
        if not full and (now - said_at < SECONDS_BETWEEN_LINES or done >= total):
            return
        self._said[name] = (now, done)
        speed = ""
        if done > before:
            rate = (done + under_way - before) / max(now - began, 1e-9)
            speed = f", {_digits(rate)}/s"
            speed += "" if full else f", {(total - done - under_way) / rate:.0f} s left"
        score = "" if accuracy is None else f", {measure} {accuracy:.4f}"
        count = _count(done, under_way, total)
        logger.info("%s: %s %s%s%s", name, count, unit, speed, score)


def make_console() -> Console:
    """Make the console for tables: as wide as the terminal, or LINE_WIDTH without a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=LINE_WIDTH)


def say(console: Console, text: str) -> None:
    """Print a text that, on a terminal, wraps between words only.

    A number, a word or a path is never divided. (The terminal itself would divide them at its
    edge.) Without a terminal, a text is one line, so that programs can search it.
    """
    if console.is_terminal:
        # rich either divides long words or does not wrap at all.
        text = fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text(text), soft_wrap=True)


def fits(console: Console, table: Table) -> bool:
    """Return whether a table fits the console without wrapping or cutting a cell."""
    unlimited = console.options.update(max_width=10 * console.width)
    return Measurement.get(console, unlimited, table).maximum <= console.width


class _ConsoleHandler(logging.Handler):
    """A handler that prints log lines above the live bars of a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        say(self._console, self.format(record))


def make_display(console: Console, *, quiet: bool) -> Display:
    """Make live bars if the console is a terminal and quiet is false, else log lines.

    The function also directs the log of the harness to the chosen display.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    live = console.is_terminal and not quiet
    handler = _ConsoleHandler(console) if live else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    return LiveDisplay(console) if live else LineDisplay()
