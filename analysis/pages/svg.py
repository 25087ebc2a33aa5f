"""Draw the panels of matplotlib figures as inline SVG that uses the colours of the page.

The page defines colours as CSS variables, so the same SVG fits light and dark pages and paper.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from analysis.drawing.style import GROUND, HOVER, PANEL_INCHES, SEQUENCE, legend_entries
from analysis.pages.content import Drawing, Entry

# The colours of lines on a light page. analysis/templates/style.css has the same colours, and
# others for dark pages, as the variables --c0 to --c9.
PALETTE = (
    *("#2166b5", "#c8501a", "#12806a", "#8a4fc4", "#9a6b00"),
    *("#c23374", "#4f6a83", "#6b7310", "#a33b3b", "#22848f"),
)
# matplotlib draws text and axes in this colour. It becomes the colour of the page's text, as the
# black of some lines does.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    # Text stays text and is not drawn as curves. So it is small, and can be selected or read aloud.
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _INK),
    **dict.fromkeys(("axes.titlecolor", "xtick.color", "ytick.color"), _INK),
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
_ON_PAGE = {
    _INK: "currentColor",
    "#000000": "currentColor",
    GROUND: "var(--ground)",
    **{color: f"var(--c{number})" for number, color in enumerate(PALETTE)},
    **{color: f"var(--s{number})" for number, color in enumerate(SEQUENCE)},
}


def drawing(
    caption: str, draw: Callable[[], Figure], salt: str, *, height: float = PANEL_INCHES[1]
) -> Drawing:
    """Draw a figure for a page. Each panel becomes an SVG, so a narrow page can stack the panels.

    Args:
        caption: the caption, which also describes the figure for readers who cannot see it.
        draw: a function that makes the figure.
        salt: a text that differs for each figure of the page, so that SVG ids differ too.
        height: height of a panel in inches. All panels of a page have the same width.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = draw()
        entries = [_entry(label, handle) for label, handle in legend_entries(figure).items()]
        for legend in [*figure.legends]:
            legend.remove()
        panels = []
        for number, axes in enumerate(figure.axes):
            mpl.rcParams["svg.hashsalt"] = f"{salt}-{number}"
            described = f"{axes.get_title()}. {caption}" if axes.get_title() else caption
            panels.append(_panel(figure, axes, height, described))
    return Drawing(caption, panels, entries)


def _panel(figure: Figure, axes: Axes, height: float, described: str) -> Markup:
    """Draw one of a figure's panels alone, in the width that all panels of a page have."""
    if legend := axes.get_legend():
        legend.remove()
    for other in figure.axes:
        other.set_visible(other is axes)
        other.set_in_layout(other is axes)
    axes.set_subplotspec(GridSpec(1, 1, figure)[0])
    figure.set_size_inches(PANEL_INCHES[0], height)
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), described)


def _for_page(svg: bytes, described: str) -> Markup:
    """Convert matplotlib's SVG for a page: its colours and font, and the texts of points."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{{{_SVG}}}g"):
        name = group.attrib.pop("id", "")  # all figures use the same ids for groups
        if name.startswith(HOVER):
            _add_titles(group, json.loads(name.removeprefix(HOVER)))
    for size in ("width", "height"):
        root.attrib.pop(size)  # the page gives all panels one width
    root.set("role", "img")
    root.set("aria-label", described)
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub("|".join(_ON_PAGE), lambda found: _ON_PAGE[found[0]], text)
    return Markup(text.replace("'DejaVu Sans'", _FONT))


def _add_titles(group: ElementTree.Element, texts: list[str]) -> None:
    """Give each point of a group its text as <title>, which browsers show on the point."""
    for point, text in zip(_points(group), texts, strict=True):
        title = ElementTree.Element(f"{{{_SVG}}}title")
        title.text = text
        point.insert(0, title)


def _points(group: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the markers of a line, or the shapes of a collection, in their order."""
    markers = list(group.iter(f"{{{_SVG}}}use"))
    return markers or list(_shapes(group))


def _shapes(group: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for child in group:
        if child.tag == f"{{{_SVG}}}path":
            yield child
        elif child.tag != f"{{{_SVG}}}defs":
            yield from _shapes(child)


def _entry(label: str, handle: Any) -> Entry:
    """Describe the look of a line or a container of lines for the legend on the page."""
    line = handle[0] if isinstance(handle, Container) else handle
    color = to_hex(line.get_color())
    style, marker = line.get_linestyle(), line.get_marker()
    return Entry(
        label=label,
        color=_ON_PAGE.get(color, color),
        dashes={"--": "6 4", ":": "2 3", "-.": "8 3 2 3"}.get(style, ""),
        has_line=style not in ("None", "", " "),
        marker="" if marker in ("None", "", " ", None) else str(marker),
        is_open=line.get_markerfacecolor() == "none",
    )
