"""Check types and shapes in the first calls of each function of supsup_core in each test.

Under pytest, jaxtyping decorates all functions of the package, and beartype checks arguments and
results (`--jaxtyping-packages` in pyproject.toml). A check takes about 0.1 ms. The training of a
small network calls the same functions thousands of times, so the checks would take half of the time
of all tests. After CALLS calls of a function, its further calls in the same test are not checked.

A nested function is decorated again each time its outer function runs, which takes milliseconds. So
it is decorated once in each test.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from inspect import isclass
from types import CodeType
from typing import Any

import jaxtyping

CALLS = 10

_checks_all = jaxtyping.jaxtyped
_calls: Counter[CodeType] = Counter()  # number of checked calls of each function in this test
_nested: set[CodeType] = set()  # nested functions that were decorated in this test


def install() -> None:
    """Let jaxtyping's hook decorate functions with `jaxtyped` of this module.

    Raises:
        AssertionError: the package is imported already, so its functions are decorated.
    """
    assert "supsup_core" not in sys.modules
    jaxtyping.jaxtyped = jaxtyped


def begin_test() -> None:
    """Begin to count from 0."""
    _calls.clear()
    _nested.clear()


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """Return a decorator as jaxtyping's, whose functions check their first calls in each test."""
    check = functools.partial(_checks_all, typechecker=typechecker)

    def decorate(decorated: Any) -> Any:
        if isclass(decorated):
            plain = decorated.__init__
            if not hasattr(plain, "is_checked_at_first"):  # as that of a base class is
                check(decorated)
            if decorated.__init__ is not plain:  # a dataclass
                decorated.__init__ = _at_first(plain, decorated.__init__)
            return decorated
        if "<locals>" not in decorated.__qualname__:
            return _at_first(decorated, check(decorated))
        if decorated.__code__ in _nested:
            return decorated
        _nested.add(decorated.__code__)
        return _at_first(decorated, check(decorated))

    return decorate


def _at_first(plain: Any, checked: Any) -> Any:
    """Return a function that calls `checked` in the first calls of a test, and then `plain`."""
    code = plain.__code__

    @functools.wraps(plain)
    def called(*args: Any, **kwargs: Any) -> Any:
        if _calls[code] >= CALLS:
            return plain(*args, **kwargs)
        _calls[code] += 1
        return checked(*args, **kwargs)

    called.is_checked_at_first = True  # type: ignore[attr-defined]
    return called
