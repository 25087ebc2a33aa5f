"""Compile a function with Numba. If possible, store the compiled code on disk for later runs."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """Make a decorator that compiles a function at its first call.

    Division by zero gives infinity or NaN, as in NumPy, and raises no error.

    Args:
        options: further options of numba.njit.
    """

    def decorate(function: F) -> F:
        kernel = numba.njit(error_model="numpy", **options)(function)
        # Numba raises this error if it can write neither to the folder of the source file nor to
        # the user's cache folder. The kernel then works, but every process compiles it again.
        with suppress(RuntimeError):
            kernel.enable_caching()
        return kernel  # type: ignore[no-any-return]

    return decorate
