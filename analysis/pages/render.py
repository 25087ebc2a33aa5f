"""Make the HTML of a page with Jinja2. The page needs no other file, and no network."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.pages.content import Page


def render(page: Page) -> str:
    """Make the HTML of a page. All texts are escaped."""
    environment = Environment(
        loader=PackageLoader("analysis"),  # analysis/templates
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page)
