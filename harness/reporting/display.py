"""Show the progress of a run: live bars on a terminal, log lines elsewhere."""

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
BAR_WIDTH, NARROW_BAR_WIDTH = 24, 6  # in columns, on a wide and on a narrow terminal


class Display(Protocol):
    """Progress bars with names.

    A bar counts units, for example tasks. It shows the number of stored units, the total number of
    units, and an accuracy. A unit is stored when its results are on disk.
    """

    def __enter__(self) -> Self:
        """Start the display."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop the display. The last state stays on the screen."""
        ...

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar.

        Args:
            name: name of the bar.
            total: number of units at which the bar is full.
            done: number of units that are stored already.
            unit: plural name of the counted units, such as "tasks".
            measure: a short name of the accuracy, such as "one_shot H".
        """
        ...

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Show the progress of a bar.

        After `add`, the bar shows no rate and no time left until a unit is stored. Before that,
        actors start and kernels are compiled, so the rate would be too low.

        Args:
            name: name of the bar.
            done: number of units whose results are on disk.
            accuracy: mean accuracy of these units, in [0, 1]; None if no accuracy is known yet.
            under_way: work that is done but not on disk, as a number of units, such as 2.5.
        """
        ...


def _count(done: int, under_way: float, total: int) -> str:
    """Write a count: "8+3/32" if 8 of 32 units are on disk, and the work of 3 more is done."""
    return f"{done}{f'+{int(under_way)}' if under_way >= 1 else ''}/{total}"


def _digits(rate: float) -> str:
    """Format a rate with three significant digits, or as a whole number from 999.5 on."""
    return f"{rate:.3g}" if rate < 999.5 else f"{rate:.0f}"


def _rate(task: Task) -> float:
    """Return the units per second since the bar started; 0 if no unit was stored since then."""
    if task.fields["done"] <= task.fields["before"]:
        return 0.0
    # task.elapsed still grows when the bar is full. finished_time is when the bar became full.
    seconds = task.finished_time if task.finished else task.elapsed
    return (task.completed - task.fields["before"]) / seconds if seconds else 0.0


class _RateColumn(ProgressColumn):
    """Column with the number of units per second, such as 12.3/s."""

    def render(self, task: Task) -> Text:
        """Write the units per second. The text is empty before the first unit is stored."""
        rate = _rate(task)
        return Text(f"{_digits(rate)}/s" if rate > 0 else "")


class _LeftColumn(ProgressColumn):
    """Column with the time left until the bar is full, as h:mm:ss, if the rate does not change."""

    def render(self, task: Task) -> Text:
        """Write the time left. The text is empty before the first unit, and after the last unit."""
        rate = _rate(task)
        if rate <= 0 or task.finished or task.remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.remaining / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02} left")


class _AccuracyColumn(ProgressColumn):
    """Column with an accuracy and its name, such as "0.9348 one_shot H". A long name is cut."""

    def render(self, task: Task) -> Text:
        """Write the accuracy and its name. The text is empty if the accuracy is unknown."""
        return Text(task.fields["accuracy"], no_wrap=True, overflow="ellipsis")


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


class LiveDisplay:
    """Live bars on a terminal. All numbers of a bar fit on one line of 80 columns."""

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
            # Only this column may wrap. So if the line is too long, rich makes this column
            # narrower, and cuts no other column.
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
        """Stop the display. The last state stays on the screen."""
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
    """Log lines instead of bars: a line for each bar every few seconds, and when it is full."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[int, int, str, str, float]] = {}
        self._said: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        """Return this display. Log lines need no start."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing, because log lines need no end."""

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar; see Display.add."""
        now = time.monotonic()
        self._bars[name] = (total, done, unit, measure, now)
        self._said[name] = (now, done)

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Log the progress of a bar, but at most once in SECONDS_BETWEEN_LINES seconds.

        When the bar becomes full, a line is logged at once. For the arguments, see Display.update.
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


class Labelled:
    """The bars of one of several runs, on a display that the runs share.

    Args:
        display: the shared display. This class neither starts nor stops it.
        label: the label of the run, which begins the name of each bar.
    """

    def __init__(self, display: Display, label: str) -> None:
        self._display, self._label = display, label

    def __enter__(self) -> Self:
        """Do nothing, because all runs share the display."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing, because all runs share the display."""

    def add(self, name: str, total: int, done: int, unit: str, measure: str) -> None:
        """Start a bar; see Display.add."""
        self._display.add(f"{self._label} {name}", total, done, unit, measure)

    def update(self, name: str, done: int, accuracy: float | None, under_way: float = 0.0) -> None:
        """Show the progress of a bar; see Display.update."""
        self._display.update(f"{self._label} {name}", done, accuracy, under_way)


def make_console() -> Console:
    """Make the console for tables. Without a terminal, it is LINE_WIDTH columns wide."""
    console = Console()
    return console if console.is_terminal else Console(width=LINE_WIDTH)


def say(console: Console, text: str) -> None:
    """Print a text.

    On a terminal, a long text is broken into lines between words. (The terminal itself would break
    it at the edge of the screen, in the middle of a number, a word or a path.) Without a terminal,
    the text is printed as one line, so that programs can search it.
    """
    if console.is_terminal:
        # rich cannot break lines only between words: it also divides long words.
        text = fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text(text), soft_wrap=True)


def fits(console: Console, table: Table) -> bool:
    """Return whether the console is so wide that no cell of a table must be wrapped or cut."""
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

    This function also sends all log lines of the harness to the same console.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    live = console.is_terminal and not quiet
    handler = _ConsoleHandler(console) if live else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    return LiveDisplay(console) if live else LineDisplay()
