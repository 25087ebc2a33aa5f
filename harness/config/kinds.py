"""Which values of a configuration fit a declared type, and how an error names the type.

Of types it knows bool, int, float, str, None, Literal, lists (list, tuple, Sequence, Iterable) and
unions of those. It lets every value of another type through: the constructor must refuse it.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

_SCALARS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}
_ELEMENTS: Mapping[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
_EXAMPLES: Mapping[Any, str] = {bool: "true", int: "300", float: "0.5", str: "TEXT"}
_LISTS = (list, tuple, Sequence, Iterable)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared type; a whole number is also a float."""
    if _is_union(kind):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(kind))
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if kind in _SCALARS:
        return isinstance(value, kind)
    if _is_list(kind):
        return isinstance(value, list) and all(fits(one, _element(kind)) for one in value)
    return True


def converted(value: Any, kind: Any) -> Any:
    """A value that fits, as config.yaml keeps it: a whole number becomes a float if declared so."""
    if _is_union(kind):
        kind = _member(value, kind)
    if kind is float:
        return float(value)
    return [converted(one, _element(kind)) for one in value] if _is_list(kind) else value


def as_argument(value: Any, kind: Any) -> Any:
    """A value that fits, as a function takes it: a list becomes a tuple if declared so."""
    if _is_union(kind):
        kind = _member(value, kind)
    return tuple(value) if (get_origin(kind) or kind) is tuple else value


def in_words(kind: Any) -> str:
    """A declared type for an error, such as "a whole number"."""
    if _is_union(kind):
        return " or ".join(map(in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if _is_list(kind):
        return f"a list of {_ELEMENTS.get(_element(kind), 'values')}"
    return _SCALARS.get(kind, getattr(kind, "__name__", "a value"))


def example(kind: Any) -> str:
    """A value of a declared type, as it is typed on a command line."""
    if _is_union(kind):
        return example(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return str(get_args(kind)[0])
    if _is_list(kind):
        return "[{0},{0}]".format(_EXAMPLES.get(_element(kind), "VALUE"))
    return _EXAMPLES.get(kind, "VALUE")


def is_plain(value: Any) -> bool:
    """Whether config.yaml can keep a value."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in _EXAMPLES


def plain(value: Any) -> Any:
    """A plain value with lists for tuples."""
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def as_typed(value: Any) -> str:
    """A plain value as it is typed on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _member(value: Any, union: Any) -> Any:
    """The type of a union that a value has; an exact one before a float for a whole number."""
    fitting = [one for one in get_args(union) if fits(value, one)]
    return next((one for one in fitting if one is type(value)), fitting[0])


def _is_list(kind: Any) -> bool:
    own = get_origin(kind) or kind
    return inspect.isclass(own) and own in _LISTS


def _element(kind: Any) -> Any:
    """The type of a list's elements; Any where they differ or nothing is declared."""
    kinds = [one for one in get_args(kind) if one is not Ellipsis]
    return kinds[0] if len(kinds) == 1 else Any
