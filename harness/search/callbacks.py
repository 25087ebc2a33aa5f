"""The callbacks that Ray Tune gets for a search: one object, which calls all others.

Ray Tune pickles its callbacks with the state of the search, but the progress bar on the screen and
the loggers cannot be pickled. So when Ray Tune reads pickled callbacks, it gets the callbacks that
this process has made. A continued search can thus have other loggers than before.
"""

from contextvars import ContextVar
from typing import Any

from ray.tune.callback import CallbackList


class Callbacks(CallbackList):
    """Several callbacks of Ray Tune, of which a pickle has nothing; see the module's docstring."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _now, ()


now: ContextVar[Callbacks | None] = ContextVar("callbacks", default=None)


def _now() -> Callbacks | None:
    return now.get()
