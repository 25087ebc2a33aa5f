"""Check types and shapes in the first calls of each function of supsup_core in each test.

Under pytest, jaxtyping decorates all functions of the package, and beartype checks arguments and
results (`--jaxtyping-packages` in pyproject.toml). A check takes about 0.1 ms. The training of a
small network calls the same functions thousands of times, so the checks would take half of the time
of all tests. After CALLS calls of a function, its further calls in the same test are not checked.

To decorate a function takes milliseconds, so a function is decorated when it is first called. A
nested function is a new function each time its outer function runs. It is decorated once in each
test.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from inspect import isclass, isfunction
from types import CodeType
from typing import Any

import jaxtyping

CALLS = 10

_decorate = jaxtyping.jaxtyped
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
    """Return a decorator like jaxtyping's, whose functions check their first calls in each test.

    Of a class, jaxtyping decorates only the method __init__ of a dataclass.
    """

    def decorate(decorated: Any) -> Any:
        if not isclass(decorated):
            return _at_first(decorated, typechecker)
        begins = decorated.__init__
        # A class that inherits the method from a decorated class needs no second check.
        if is_dataclass(decorated) and isfunction(begins) and not hasattr(begins, "is_at_first"):
            decorated.__init__ = _at_first(begins, typechecker)
        return decorated

    return decorate


def _at_first(plain: Any, typechecker: Any) -> Any:
    """Return a function that checks the first calls of a test."""
    code, is_nested = plain.__code__, "<locals>" in plain.__qualname__
    checked: Any = None

    @functools.wraps(plain)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if _calls[code] >= CALLS:
            return plain(*args, **kwargs)
        if checked is None:
            if is_nested and code in _nested:
                return plain(*args, **kwargs)
            if is_nested:
                _nested.add(code)
            checked = _decorate(plain, typechecker=typechecker)
        _calls[code] += 1
        return checked(*args, **kwargs)

    called.is_at_first = True  # type: ignore[attr-defined]
    return called
