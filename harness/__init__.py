"""The harness around supsup_core: configuration, data sets, actors, mask store and tables."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.places.kernel_cache import set_kernel_cache

if TYPE_CHECKING:
    from harness.reading.stored_run import open_run
    from harness.search.stored import open_search
    from harness.search.trainable import trainable

__all__ = ["open_run", "open_search", "trainable"]

# Name -> the module that defines it.
_MODULES = {
    "open_run": "harness.reading.stored_run",
    "open_search": "harness.search.stored",
    "trainable": "harness.search.trainable",
}

set_kernel_cache()


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, because torch and Ray take seconds to import."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
