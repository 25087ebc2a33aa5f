"""Build an HTML page that needs no other file, with inline SVG figures and sortable tables."""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# matplotlib draws text and axes in this colour. `drawn` replaces this colour, and the black that
# some figures use, by the text colour of the page. So the same SVG fits a light and a dark page.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    # Text stays text and is not drawn as curves. So it is small, and can be selected or read aloud.
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.framealpha": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _INK),
    **dict.fromkeys(("axes.titlecolor", "xtick.color", "ytick.color"), _INK),
}

_CSS = """
:root { color-scheme: light dark; --ink: #1d232a; --soft: #5a6572; --line: #d9dee4;
  --ground: #fff; --raised: #f5f7f9; --accent: #1f6fb2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa7b4; --line: #323b45;
  --ground: #14181d; --raised: #1c2229; --accent: #6cb2ee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--ground); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p, figcaption { max-width: 50rem; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; font-size: .9rem; }
a { color: var(--accent); }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .75rem; margin: 1.25rem 0; }
dl.facts div { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; }
dl.facts dt { color: var(--soft); font-size: .8rem; }
dl.facts dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 1.5rem; } .wide { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; color: var(--ink); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; } td.n { text-align: right; }
th { background: var(--raised); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; }
th button::after { content: " \\2195"; opacity: .4; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
tbody tr:hover { background: var(--raised); }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; overflow-x: auto; font-size: .8rem; }
summary { cursor: pointer; margin: .5rem 0; }
@media print { nav { display: none; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].innerText;
  const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") :
    (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
};
"""


def drawn(figure: Figure, alt: str) -> str:
    """Draw a figure as inline SVG that uses the page's text colour.

    Args:
        figure: a figure made within `style()`.
        alt: a description of the figure for readers who cannot see it.

    Returns:
        The `<svg>` element.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # all figures use the same ids for groups
    svg = svg.replace(_INK, "currentColor").replace("#000000", "currentColor")
    svg = re.sub(
        r"font: ([^;\"]*)'DejaVu Sans'", r"font: \1'DejaVu Sans', Verdana, sans-serif", svg
    )
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def figure(alt: str, draw: Callable[[], Figure], salt: str) -> str:
    """Draw a figure with a caption.

    Args:
        alt: the caption, which also describes the figure for readers who cannot see it.
        draw: a function that makes the figure.
        salt: a text that differs for each figure of the page.

    Returns:
        The `<figure>` element.
    """
    with style(salt):
        svg = drawn(draw(), alt)
    caption = f"<figcaption>{escape(alt)}</figcaption>"
    return f'<figure><div class="wide">{svg}</div>{caption}</figure>'


def number(value: float, form: str = ".4f") -> tuple[str, float]:
    """Make the cell of a number for `table`: its text, which is "" for NaN, and the number."""
    return ("" if value != value else format(value, form)), float(value)


def style(salt: str) -> AbstractContextManager[None]:
    """Return a context manager that sets the style of figures. Make and draw one figure within it.

    Args:
        salt: a text that differs for each figure of the page, so that SVG ids differ too.
    """
    return mpl.rc_context({**_STYLE, "svg.hashsalt": salt})


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Build a table. A click on the head of a column sorts the rows by this column.

    Args:
        caption: a description of the table.
        columns: the heads of the columns.
        rows: the cells of each row. A cell is a text, a number, or a pair (text, number). The page
            shows the text of a pair, and sorts by its number.

    Returns:
        The table as HTML.
    """
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        text, by = value
        return f'<td class="n" data-v="{"" if by != by else by}">{escape(text)}</td>'
    kind = ' class="n"' if isinstance(value, int) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def section(title: str, *parts: str) -> str:
    """Build a section of the page from a title and parts of HTML. `page` adds a link to it."""
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{"".join(parts)}</section>\n'


def page(title: str, head: str, sections: Sequence[str]) -> str:
    """Build the whole page.

    Args:
        title: plain text.
        head: HTML to put below the title.
        sections: results of `section`.

    Returns:
        The page as HTML.
    """
    found = [re.match(r'<section id="([^"]*)"><h2>(.*?)</h2>', one) for one in sections]
    links = "".join(f'<a href="#{one[1]}">{one[2]}</a>' for one in found if one)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_CSS}</style></head><body>\n<header>'
        f'<h1>{escape(title)}</h1>{head}</header>\n<nav aria-label="Contents">{links}</nav>\n'
        f"<main>{''.join(sections)}</main>\n<script>{_SCRIPT}</script></body></html>\n"
    )
