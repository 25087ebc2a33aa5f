"""Settings of Sphinx. `make docs` builds the guide and the project's other pages."""

project = "Supermask task scaling"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "*.md", "cluster/*.md", "analysis/records/*.md"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 3  # headings of three levels can be the targets of links
# Annotations name types of other packages, which have no page here.
nitpick_ignore_regex = [("py:.*", ".*")]


def _escape_stars(app, what, name, of, options, lines):
    """Escape the stars of shapes such as (N, *shape), which reStructuredText takes for emphasis."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app):
    """Change docstrings before napoleon reads them."""
    app.connect("autodoc-process-docstring", _escape_stars, priority=400)
