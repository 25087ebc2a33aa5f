"""What all tests share: a home of their own, one thread, and one Ray for the whole session."""

import logging
import os
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

pytest.register_assert_rewrite("conformance")  # its classes are no test modules of their own


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep caches, tokens and configuration of the person who tests out of the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(home)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ.pop("SUPERMASKS_DATA", None)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session(_home: None) -> Iterator[ModuleType]:
    """Ray with two CPUs, started once."""
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
