"""The content of a page, without HTML: sections, and parts such as texts, tables and figures.

Each part names its template, a file in analysis/templates. The templates make the HTML, and escape
every text.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what the page shows.
        value: the number by which the page sorts the rows; None for a text.
    """

    text: str
    value: float | None = None

    @property
    def sorts_as(self) -> str:
        """The number as a text, "" for NaN. Empty cells come last."""
        return "" if self.value is None or self.value != self.value else f"{self.value:.10g}"


def number(value: float, form: str = ".4f") -> Cell:
    """Make the cell of a number. The text is "" for NaN."""
    return Cell("" if value != value else format(value, form), float(value))


def interval(low: float, high: float) -> Cell:
    """Make the cell of an interval. It sorts by the lower end. The text is "" for NaN."""
    return Cell("" if low != low else f"{low:.4f} to {high:.4f}", float(low))


def as_cell(value: object) -> Cell:
    """Convert a value to a cell. A missing value becomes "", a whole float a text without point."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        return Cell("" if value is None else str(value))
    amount = float(value)
    if amount != amount:
        return Cell("")
    return Cell(str(int(amount)) if amount.is_integer() else str(value), amount)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    template: ClassVar[str] = "text.html.j2"


@dataclass(frozen=True)
class Code:
    """A text in a font of constant width, such as a configuration."""

    text: str
    template: ClassVar[str] = "code.html.j2"


@dataclass(frozen=True)
class Table:
    """A table. A click on the head of a column sorts the rows by this column."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    template: ClassVar[str] = "table.html.j2"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Make a table from plain values or cells."""
    return Table(caption, heads, [[as_cell(value) for value in row] for row in rows])


@dataclass(frozen=True)
class Entry:
    """An entry of a figure's legend: its label, and the look of its line."""

    label: str
    color: str
    dashes: str
    has_line: bool
    marker: str
    is_open: bool


@dataclass(frozen=True)
class Drawing:
    """A figure: panels as SVG, one legend, and a caption."""

    caption: str
    panels: Sequence[Markup]
    legend: Sequence[Entry]
    template: ClassVar[str] = "drawing.html.j2"


@dataclass(frozen=True)
class Picture:
    """An image: its title, its file as a `data:` URL, and a text for the pointer."""

    title: str
    url: str
    told: str = ""


@dataclass(frozen=True)
class Gallery:
    """A row of images with a caption."""

    caption: str
    pictures: Sequence[Picture]
    template: ClassVar[str] = "gallery.html.j2"


@dataclass(frozen=True)
class Details:
    """Parts that the page shows after a click on their summary."""

    summary: str
    parts: "Sequence[Part]"
    template: ClassVar[str] = "details.html.j2"


@dataclass(frozen=True)
class Links:
    """A sentence that ends with links: pairs of a text and an address."""

    text: str
    links: Sequence[tuple[str, str]]
    template: ClassVar[str] = "links.html.j2"


Part = Text | Code | Table | Drawing | Gallery | Details | Links


@dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    parts: Sequence[Part]

    @property
    def name(self) -> str:
        """The name of the section in links."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: the title.
        result: the first line, which states the result in one sentence.
        described: a line that says what was run.
        facts: pairs of a name and a value.
        sections: the sections, in their order.
    """

    title: str
    result: str
    described: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = field(default=())
