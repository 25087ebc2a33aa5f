import re
import runpy
from inspect import getmodule
from pathlib import Path

import pytest

from supsup_core.names import METHODS, load

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "runs"} & set(p.parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_the_readme_names_what_make_offers():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert {"run", "test"} <= used <= set(targets)


def test_the_page_of_options_is_current():
    made = runpy.run_path(str(ROOT / "docs" / "options_page.py"))["page"]()
    assert made == (ROOT / "docs" / "options.md").read_text(), "run python docs/options_page.py"


def test_the_page_of_finders_is_current_and_names_every_source():
    made = runpy.run_path(str(ROOT / "docs" / "finders_page.py"))
    assert made["page"]() == (ROOT / "docs" / "finders.md").read_text(), (
        "run python docs/finders_page.py"
    )
    modules = [getmodule(load("method", METHODS, name)) for name in METHODS]
    assert not [m for m in modules if not re.search(r"^Source: ", m.__doc__ or "", re.MULTILINE)]


def test_the_guide_names_the_zarr_that_reads_a_store():
    # The store has Zarr's format 3, which zarr 2 cannot read.
    said = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert "only the packages zarr (version 3 or newer) and numpy" in said


def test_readme_and_architecture_are_short():
    for page, most in (("README.md", 600), ("ARCHITECTURE.md", 1500)):
        assert len((ROOT / page).read_text().split()) <= most
