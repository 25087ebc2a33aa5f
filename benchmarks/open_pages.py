"""Measure how many bytes reports have, and how long a browser takes to open them.

    python benchmarks/open_pages.py runs/mnist-permuted-2500/report.html
    python benchmarks/open_pages.py A.html B.html --screenshots FOLDER

The pages take turns. In each round, each page is opened at three widths: a phone, a tablet and a
desktop. The time goes from the start of the navigation to the end of the load event, when every
image of the page is decoded and every script has run. It is the browser's own measurement, so the
start of the browser does not count. The program prints the median over the rounds, and the range.

With --screenshots, each page is also written as PNG files into a folder, at each width, with light
and with dark colours. The program needs `chromium` on the PATH.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from browser import CHROMIUM, SCHEMES, WIDTHS, Browser
from commandline import Parser, file, folder, run_program, whole

from harness.errors import UserError

LOAD_TIME = "performance.getEntriesByType('navigation')[0].loadEventEnd"  # milliseconds; 0: not yet


def opening_seconds(browser: Browser, page: Path) -> float:
    """Open a page, and return the seconds until its load event has ended."""
    browser.open(page)
    while not (milliseconds := browser.evaluate(LOAD_TIME)):
        pass
    return float(milliseconds) / 1000


def take_screenshots(browser: Browser, page: Path, name: str) -> None:
    """Write PNG files of a page whose names begin with `name`, at each width in both colours."""
    browser.open(page)
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.look(width, scheme)
            browser.screenshot(Path(f"{name}-{width}-{scheme}.png"))


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("pages", nargs="+", type=file, help="HTML files")
    parser.add_argument("--rounds", type=whole(), default=5)
    parser.add_argument("--screenshots", type=folder, help="folder that gets the PNG files")
    options = parser.parse_args()
    if CHROMIUM is None:
        raise UserError("chromium must be on the PATH, got none: install the package chromium")
    pages = [page.resolve() for page in options.pages]
    seconds: dict[tuple[Path, int], list[float]] = {}
    with TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for _ in range(options.rounds):
            for page in pages:
                for width in WIDTHS:
                    browser.look(width, "light")
                    seconds.setdefault((page, width), []).append(opening_seconds(browser, page))
        for number, page in enumerate(pages if options.screenshots else []):
            take_screenshots(browser, page, str(options.screenshots / f"page-{number}"))
    print(f"{'width':>5} {'bytes':>9}   seconds to open (range)   page")
    for (page, width), times in seconds.items():
        print(
            f"{width:5} {page.stat().st_size:9,}   {statistics.median(times):.3f} "
            f"({min(times):.3f} to {max(times):.3f})    {page}"
        )


if __name__ == "__main__":
    run_program(main)
