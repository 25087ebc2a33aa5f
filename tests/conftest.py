"""Fixtures for all tests: a temporary home, one torch thread, and one Ray for the whole session."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import shape_checks

shape_checks.install()
CORE = Path(__file__).parent / "supsup_core"

# Without this call pytest rewrites asserts only in the files that it collects.
pytest.register_assert_rewrite("conformance")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a temporary home, so that no test sees the user's caches, tokens and configuration."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(home)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ.pop("SUPERMASKS_DATA", None)
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Check shapes anew in each test."""
    shape_checks.begin_test()


@pytest.hookimpl(tryfirst=True)  # before the hook of pytest-xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide the tests among the processes of pytest-xdist: one group per file, and one with Ray.

    All tests with Ray share one process, so that one Ray serves the whole session. The tests of a
    file share one process, so that fixtures of the module are made once. The short tests of
    supsup_core come last, so that all processes end at about the same time.
    """
    items.sort(key=lambda item: CORE in item.path.parents)
    for item in items:
        group = "ray" if "ray_session" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def ray_session(_home: None) -> Iterator[ModuleType]:
    """The module `ray`. Ray runs with two CPUs and is started once per session."""
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()
