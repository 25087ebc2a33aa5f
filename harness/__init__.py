"""The harness around supsup_core: configuration, data sets, actors, mask store and tables."""

from typing import TYPE_CHECKING, Any

from harness.places.kernel_cache import set_kernel_cache

if TYPE_CHECKING:
    from harness.reading.stored_run import open_run

__all__ = ["open_run"]

set_kernel_cache()


def __getattr__(name: str) -> Any:
    """Import `open_run` when it is first used, because torch takes seconds to import."""
    if name == "open_run":
        from harness.reading.stored_run import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
