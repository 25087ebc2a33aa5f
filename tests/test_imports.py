"""Imports point in one direction: between packages, between folders, and between modules."""

import ast
import json
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    # The mathematics uses no files, clocks, log, configuration or cluster.
    "supsup_core": {
        *("analysis", "harness"),
        *("hydra", "logging", "omegaconf", "pyarrow", "ray", "time", "zarr"),
    },
    "harness": {"analysis"},
    # `analysis` reads the files of runs and imports no code that made them.
    "analysis": {"harness", "supsup_core"},
}
# These notebooks train, so they import the other packages. Nothing imports the notebooks.
EXEMPT = {
    "analysis/notebooks/05_your_own_method.ipynb",
    "analysis/notebooks/07_your_own_model.ipynb",
}


def imported(source):
    """Return the packages that a source imports, at the top or inside a function."""
    return {name.split(".")[0] for name in modules_imported(source)}


def modules_imported(source, files=()):
    """Return the modules that a source imports anywhere, without relative imports.

    `from package import module` imports the module, if `files` has it.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner if inner <= {*files} else {node.module}
    return found


def code_of(file):
    """Return the source of a module, or of the cells of a notebook."""
    text = file.read_text()
    if file.suffix != ".ipynb":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in [*cell, "\n"]]
    return "".join(line for line in lines if not line.startswith("%"))


def sources(package, root=ROOT):
    """Return the files of a package: module name -> path."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted((root / package).rglob("*.py"))
    }


def room(module, files):
    """Return the folder of a module, or the module itself if it lies at the top of its package."""
    if files[module].name == "__init__.py" or module.count(".") == 1:
        return module
    return module.rpartition(".")[0]


def circle(arrows):
    """Return the names on a cycle of the arrows, in order; () if there is no cycle."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def arrows_between(files, named):
    """Return name -> imported names, for imports among `files`. `named` gives a module's name."""
    arrows = {}
    for module, file in files.items():
        here = named(module)
        for other in modules_imported(file.read_text(), files) & files.keys():
            arrows.setdefault(here, set())
            if named(other) != here:
                arrows[here].add(named(other))
    return arrows


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_follow_the_arrows(package):
    wrong = {
        name: sorted(names)
        for kind in ("*.py", "*.ipynb")
        for file in sorted((ROOT / package).rglob(kind))
        if (name := file.relative_to(ROOT).as_posix()) not in EXEMPT
        and (names := imported(code_of(file)) & FORBIDDEN[package])
    }
    assert wrong == {}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_folders_do_not_import_each_other(package):
    files = sources(package)
    assert circle(arrows_between(files, lambda module: room(module, files))) == ()


@pytest.mark.parametrize("package", FORBIDDEN)
def test_modules_do_not_import_each_other(package):
    assert circle(arrows_between(sources(package), lambda module: module)) == ()


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_of_the_arrows_exist(package):
    assert (ROOT / package).is_dir()


def test_only_commands_and_errors_stand_at_the_door():
    commands = {file.stem for file in (ROOT / "harness").glob("*.py")} - {"__init__", "errors"}
    assert commands == {"supermask", "scale", "evaluate", "recall", "tune", "status"}
    for name in commands:
        assert 'if __name__ == "__main__":' in (ROOT / "harness" / f"{name}.py").read_text()


def test_every_way_to_import_is_seen():
    source = """
import os, ray.tune as tune
from zarr.storage import LocalStore
from . import time
def late():
    import pyarrow.parquet
"""
    assert imported(source) == {"os", "ray", "zarr", "pyarrow"}


def test_a_circle_between_folders_is_seen(tmp_path):
    for name, source in {
        "__init__": "",
        "errors": "",
        "low/__init__": "",
        "low/a": "from house.errors import UserError\nfrom house.high.b import late",
        "high/__init__": "",
        "high/b": "from house.errors import UserError",
        "high/c": "from house.low.a import early",
    }.items():
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    files = sources("house", tmp_path)
    assert circle(arrows_between(files, lambda module: module)) == ()
    found = circle(arrows_between(files, lambda module: room(module, files)))
    assert set(found) == {"house.low", "house.high"}
