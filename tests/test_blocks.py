"""Every block of Python of the README and the guide works exactly as it is printed."""

from pathlib import Path

import pytest

from page_blocks import ROOT, make_runs, make_search, pages, run_page

WITH_RAY = "docs/searching.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs that the pages read."""
    folder = tmp_path_factory.mktemp("pages")
    make_runs(folder, ROOT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if page != WITH_RAY])
def test_the_blocks_of_a_page_run(folder: Path, page: str) -> None:
    run_page(page, folder, ROOT)


@pytest.mark.long
def test_the_blocks_about_searches_run(tmp_path: Path) -> None:
    make_search(tmp_path, ROOT)
    assert "expected_accuracy" in run_page(WITH_RAY, tmp_path, ROOT)
