"""Compose configurations for tests whose subject is not the composition.

Hydra takes half a second to compose a configuration. So the same command line is composed once in a
process, and each test gets a copy.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache

from omegaconf import DictConfig, OmegaConf

from harness.config.compose import checked, compose_overrides
from harness.config.schema import Config
from harness.plan.capabilities import Capabilities
from supsup_core.names import ALGORITHMS

# Capabilities of a run with the default network, finder and family
CAPABILITIES = Capabilities(
    num_gains=266_200,
    num_bits=266_200,
    num_activations=900,
    normalises=False,
    supports=frozenset(ALGORITHMS),
    keeps_alone=True,
    has_planes=True,
    bits_serve=True,
    bfloat16_serves=True,
    order="any",
)

RUN_DIR = "run_dir="


def configured(*overrides: str) -> Config:
    """Compose and check the configuration of a command line.

    The run directory is set after the composition, because each test has its own run directory.
    """
    others = tuple(one for one in overrides if not one.startswith(RUN_DIR))
    config = deepcopy(_checked_once(others))
    for run_dir in (one.removeprefix(RUN_DIR) for one in overrides if one.startswith(RUN_DIR)):
        config = replace(config, run_dir=run_dir)
    return config


@cache
def _checked_once(overrides: tuple[str, ...]) -> Config:
    return checked(compose_overrides(overrides))


def remembered(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Return a form of compose_overrides that composes each command line once.

    All callers get the same object, so it is read-only.
    """

    @cache
    def once(overrides: tuple[str, ...], *more: object) -> DictConfig:
        composed = compose(overrides, *more)
        OmegaConf.set_readonly(composed, True)
        return composed

    def remembering(
        overrides: Sequence[str], name: str, schema: type[Config], config_dir: str | None
    ) -> DictConfig:
        if config_dir is not None:  # the files in this folder may change
            return compose(overrides, name, schema, config_dir)
        return once(tuple(overrides), name, schema)

    return remembering
