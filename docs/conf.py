"""How Sphinx builds the guide, and the project's other pages with it: `make docs`."""

project = "Supermask task scaling"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "*.md", "cluster/*.md", "analysis/records/*.md"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 3  # links to headings, as on a forge
