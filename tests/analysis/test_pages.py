"""The pages in a browser: what a reader sees on a wide and a narrow screen, in light and dark."""

import re

import matplotlib as mpl
import pytest
from browser import CHROMIUM, SCHEMES, WIDTHS, Browser
from matplotlib.figure import Figure

from analysis import report
from analysis.drawing.style import SEQUENCE, hover, panels
from analysis.pages.content import Page, Section, Text, as_cell, number, table
from analysis.pages.render import render
from analysis.pages.svg import PALETTE, drawing

LARGEST = 2_000_000  # bytes of a page

LOOK = """(() => {
  const box = element => element.getBoundingClientRect();
  const luminance = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
    .map(v => v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = getComputedStyle(document.body).backgroundColor, wrong = [];
  const say = (what, panel) => wrong.push(what + ": " + (panel.ariaLabel ?? panel.textContent));
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is too wide");
  for (const text of document.querySelectorAll("p, figcaption, td, th button, li, svg text"))
    if (contrast(getComputedStyle(text)[text.closest("svg") ? "fill" : "color"], ground) < 4.5)
      say("no contrast", text);
  for (const panel of document.querySelectorAll(".panels > div > svg")) {
    const outer = box(panel), texts = [...panel.querySelectorAll("text")].map(box);
    if (outer.width < 200 || outer.height < 100) say("too small", panel);
    if (texts.length < 3) say("no text", panel);
    if (!panel.querySelector("[style*='var(--c'], [style*='stroke: currentColor'], image"))
      say("empty", panel);
    for (const [i, one] of texts.entries()) {
      if (one.left < outer.left - 2 || one.right > outer.right + 2 ||
          one.top < outer.top - 2 || one.bottom > outer.bottom + 2) say("cut text", panel);
      for (const other of texts.slice(i + 1))
        if (Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
            Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 3)
          say("texts overlap", panel);
    }
  }
  for (const picture of document.images)
    if (!picture.naturalWidth) say("broken", picture);
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  return {wrong, ground, asked: asked.filter(name => !name.startsWith("data:"))};
})()"""

SORT = """(() => {
  const table = [...document.querySelectorAll("details table")].at(-1), column = 1;
  const click = () => {
    table.tHead.rows[0].cells[column].firstElementChild.click();
    return [...table.tBodies[0].rows].map(row => row.cells[column].textContent);
  };
  return [click(), click()];
})()"""


def look_at(browser, page):
    """Open a page, and check its size and its look at every width, in light and dark."""
    assert page.stat().st_size <= LARGEST
    browser.open(page)
    grounds = set()
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.look(width, scheme)
            seen = browser.evaluate(LOOK)
            assert seen["wrong"] == [], (page, width, scheme)
            assert seen["asked"] == []
            grounds.add(seen["ground"])
    assert len(grounds) == 2
    assert browser.errors == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_shows_every_page_whole_at_every_width_in_light_and_dark(
    run_dir, folder_of_methods, search_dir, tmp_path
):
    pages = [run_dir / report.NAME, report.write(folder_of_methods), search_dir / report.NAME]
    with Browser(tmp_path / "profile") as browser:
        for page in pages:
            look_at(browser, page)
        browser.open(pages[0])
        up, down = browser.evaluate(SORT)
    assert up == ["0.1100", "0.8000", "0.9000"]
    assert down == up[::-1]


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_the_report_of_2500_tasks_is_small_and_whole(run_of_2500_tasks, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        look_at(browser, report.write(run_of_2500_tasks))


def drawn(draw):
    return str(drawing("caption", draw, "salt").panels[0])


def test_the_points_of_a_line_have_their_texts():
    def draw() -> Figure:
        figure, [axes] = panels(1)
        [line] = axes.plot([1, 2, 3], [0.1, 0.2, 0.3], "o-", label="a line")
        hover(line, ["first", "second <", "third"])
        return figure

    svg = drawn(draw)
    assert re.findall("<title>(.*?)</title>", svg) == ["first", "second &lt;", "third"]
    assert "hover:" not in svg
    assert "var(--c0)" in svg
    assert PALETTE[0] not in svg


def test_a_figure_has_one_legend_outside_its_panels():
    def draw() -> Figure:
        figure, both = panels(2)
        for axes in both:
            axes.plot([1], [1], "k--", label="given")
            axes.plot([1], [1], "s", label="own")
            axes.legend()
        return figure

    before = dict(mpl.rcParams)
    made = drawing("caption", draw, "salt")
    assert dict(mpl.rcParams) == before
    looks = [(one.label, one.color, one.dashes, one.marker) for one in made.legend]
    assert looks == [("given", "currentColor", "6 4", ""), ("own", "var(--c0)", "", "s")]
    assert len(made.panels) == 2
    assert all("given" not in panel for panel in made.panels)


def test_the_colours_of_figures_are_those_of_the_page():
    css = render(Page("title", "result", "run", []))
    light = css.partition("@media")[0]
    assert [f"--c{i}: {color};" in light for i, color in enumerate(PALETTE)] == [True] * 10
    assert [css.count(f"--c{i}:") for i in range(10)] == [2] * 10  # light and dark
    assert [f"--s{i}: {color};" in light for i, color in enumerate(SEQUENCE)] == [True] * 5
    assert [css.count(f"--s{i}:") for i in range(5)] == [2] * 5


def test_every_text_of_a_page_is_escaped():
    bad = "<script>alert(1)</script>"
    parts = [Text(bad), table(bad, [bad], [[bad]])]
    html = render(Page(bad, bad, bad, [Section(bad, parts)], [(bad, bad)]))
    assert bad not in html
    assert html.count("&lt;script&gt;") == 13


def test_cells_sort_by_their_numbers():
    assert [as_cell(one).text for one in (1, 2.0, 2.5, None, float("nan"), "x", True)] == [
        *("1", "2", "2.5", "", "", "x", "True"),
    ]
    assert (number(0.12345).text, number(0.12345).sorts_as) == ("0.1235", "0.12345")
    assert (number(float("nan")).text, number(float("nan")).sorts_as) == ("", "")
