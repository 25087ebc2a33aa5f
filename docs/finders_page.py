"""Write docs/finders.md from the source of the finders: `python docs/finders_page.py`."""

from collections.abc import Iterator
from inspect import cleandoc, getdoc, getmodule
from math import prod
from pathlib import Path

from harness.config.kinds import as_typed, plain
from harness.config.options import NAMED, declared_options
from supsup_core.methods.protocol import Method, layout_of
from supsup_core.names import METHODS, load
from supsup_core.networks.mlp import lenet_300_100
from supsup_core.networks.protocol import num_gains

PAGE = Path(__file__).with_name("finders.md")
NETWORK = lenet_300_100((28, 28), 500)
_OPENING = f"""\
# Finders and baselines

This page is made from the source by `python docs/finders_page.py`. Each name is a value of
`method`. The [options](options.md) of a method are keys of `method_options`. The numbers in the
tables are for the default options of each method and LeNet 300-100 with images of 28x28 pixels and
500 outputs, which has {num_gains(NETWORK):,} weights. `row bytes` is the size of the state of one
task in the store, with its padding.

A row stores each plane with one bit per weight, at any density. The store does not compress rows.

The column `order` says which tasks can be trained at the same time. `parallel`: all. `after the
first`: task 0 is trained first, then all others can be trained at the same time. `in sequence`: the
tasks are trained one after another.

To compare methods on the same tasks, give a list. The report of the folder then draws the accuracy
against the bytes per task:

    python harness/scale.py tasks=10 'methods=[threshold,{{name: edge_popup, density: 0.3}}]'

`experiment=finders` compares all finders on 50 permutations of MNIST
([several runs](several_runs.md#several-methods)).
"""
_ORDERS = {"any": "parallel", "after_first": "after the first", "sequence": "in sequence"}
_KINDS = {
    "supsup_core.methods": ("Finders", "A finder trains masks, which select fixed weights."),
    "supsup_core.baselines": (
        "Baselines",
        "A baseline gives each task weights of its own in another way than by a mask. "
        "[Baselines](baselines.md) tells more.",
    ),
}


def page() -> str:
    """Make the text of the page."""
    return "\n".join([_OPENING, *_kinds()]) + "\n"


def _kinds() -> Iterator[str]:
    for package, (title, about) in _KINDS.items():
        names = [name for name, target in METHODS.items() if target.startswith(f"{package}.")]
        yield f"## {title}\n"
        yield f"{about}\n"
        yield "| method | what it is | bits per task | floats per task | row bytes | order |"
        yield "|---|---|---|---|---|---|"
        yield from (_row(name) for name in names)
        modules: dict[str, list[str]] = {}
        for name in names:
            modules.setdefault(METHODS[name].partition(":")[0], []).append(name)
        for of_module in modules.values():
            yield from _section(of_module)


def _row(name: str) -> str:
    kind = load("method", METHODS, name)
    method: Method = kind()
    layout = layout_of(NETWORK, method)
    floats = sum(prod(place.spec.shape) for place in layout.floats)
    cells = (
        f"`{name}`",
        " ".join((getdoc(kind) or "").partition("\n\n")[0].split()),
        f"{layout.num_bits:,}",
        f"{floats:,}",
        f"{layout.row_bytes:,}",
        _ORDERS[method.order],
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _section(names: list[str]) -> Iterator[str]:
    """Make the section of the methods of one module: the module's docstring, and the options."""
    yield f"\n### {', '.join(f'`{name}`' for name in names)}\n"
    module = getmodule(load("method", METHODS, names[0]))
    for part in cleandoc((module and module.__doc__) or "").split("\n\n"):
        if not part.startswith("Shape letters"):  # of tensors in the code
            yield f"{part}\n"
    for name in names:
        yield _options(name)


def _options(name: str) -> str:
    known, num_arguments = NAMED["method"]
    declared = declared_options("method", load("method", known, name), num_arguments)
    if not declared:
        return f"`{name}` has no options."
    defaults = [f"`{key}={as_typed(plain(one.default))}`" for key, one in declared.items()]
    return f"Options of `{name}`, with their defaults: {', '.join(defaults)}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
