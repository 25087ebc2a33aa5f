"""Imports point one way: analysis and harness stand beside each other on supsup_core."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    # The mathematics: no files, no clocks, no log, no configuration, no cluster.
    "supsup_core": {
        *("analysis", "harness"),
        *("hydra", "logging", "omegaconf", "pyarrow", "ray", "time", "zarr"),
    },
    "harness": {"analysis"},
    # It reads what runs have written, and nothing that ran.
    "analysis": {"harness", "supsup_core"},
}
# A notebook that trains: nothing imports it.
EXEMPT = {"analysis/notebooks/05_your_own_method.py"}


def imported(source):
    """The packages that a module's source imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_follow_the_arrows(package):
    wrong = {
        name: sorted(names)
        for file in sorted((ROOT / package).rglob("*.py"))
        if (name := file.relative_to(ROOT).as_posix()) not in EXEMPT
        and (names := imported(file.read_text()) & FORBIDDEN[package])
    }
    assert wrong == {}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_of_the_arrows_exist(package):
    assert (ROOT / package).is_dir()


def test_every_way_to_import_is_seen():
    source = """
import os, ray.tune as tune
from zarr.storage import LocalStore
from . import time
def late():
    import pyarrow.parquet
"""
    assert imported(source) == {"os", "ray", "zarr", "pyarrow"}
