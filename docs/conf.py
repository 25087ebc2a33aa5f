"""Settings of Sphinx. `make docs` builds the guide and the project's other pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for notebook_runs

project = "Supermask task scaling"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
extensions += ["notebook_runs"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "*.md", "cluster/*.md", "analysis/records/*.md"]
include_patterns += ["analysis/notebooks/*.ipynb"]
html_theme = "furo"
html_title = project
html_extra_path = ["redirect/index.html"]  # so that the pages also begin at build/docs/index.html
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds for a cell
nb_merge_streams = True
myst_heading_anchors = 3  # headings of three levels can be the targets of links
# Annotations name types of other packages, which have no page here.
nitpick_ignore_regex = [("py:.*", ".*")]


def _escape_stars(app, what, name, of, options, lines):
    """Escape the stars of shapes such as (N, *shape), which reStructuredText takes for emphasis."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app):
    """Change docstrings before napoleon reads them."""
    app.connect("autodoc-process-docstring", _escape_stars, priority=400)
