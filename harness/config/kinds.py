"""Check and convert configuration values by their declared types, and name the types in errors.

The known types are bool, int, float, str, None, Literal, dict, lists (list, tuple, Sequence,
Iterable), and unions of these types. If a parameter is declared with another type, this module
accepts every value. The function with this parameter must then check the value itself.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_SCALARS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}
_ELEMENTS: Mapping[Any, str] = {
    int: "whole numbers",
    float: "numbers",
    str: "names",
    dict: "mappings",
}
_LISTS = (list, tuple, Sequence, Iterable)


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value has a declared type. A whole number also counts as a float."""
    kind = bare(kind)
    if _is_union(kind):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(kind))
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if kind in _SCALARS:
        return isinstance(value, kind)
    if (one := element(kind)) is not None:
        return isinstance(value, list) and all(fits(single, one) for single in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    return True


def converted(value: Any, kind: Any) -> Any:
    """Convert a checked value to the form that config.yaml stores.

    A whole number becomes a float if the declared type is float. All other values stay the same.
    """
    kind = _member(value, bare(kind))
    if kind is float:
        return float(value)
    if (one := element(kind)) is not None:
        return [converted(single, one) for single in value]
    return value


def as_argument(value: Any, kind: Any) -> Any:
    """Convert a checked value to the argument of a function.

    A list becomes a tuple if the declared type is tuple. All other values stay the same.
    """
    kind = _member(value, bare(kind))
    return tuple(value) if (get_origin(kind) or kind) is tuple else value


def in_words(kind: Any) -> str:
    """Return the name of a declared type for an error message, such as "a whole number"."""
    kind = bare(kind)
    if _is_union(kind):
        return " or ".join(map(in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if (one := element(kind)) is not None:
        words = [_ELEMENTS.get(get_origin(own) or own, "values") for own in members(one)]
        return f"a list of {' or '.join(words)}"
    if get_origin(kind) is dict:
        return "names with values such as {density: 0.3}"
    return _SCALARS.get(kind, getattr(kind, "__name__", "a value"))


def is_plain(value: Any) -> bool:
    """Return whether config.yaml can store a value: a number, a text, null, or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return type(value) in _SCALARS


def plain(value: Any) -> Any:
    """Replace each tuple in a value by a list, because config.yaml can store only lists."""
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def as_typed(value: Any) -> str:
    """Write a value as a user types it on a command line, such as null, true, [1,2] or {n: 1}."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {as_typed(one)}' for key, one in value.items())}}}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def is_text(kind: Any) -> bool:
    """Return whether a declared type is str, or a union of str and None."""
    return {one for one in members(kind) if one is not type(None)} == {str}


def read_text(typed: str) -> str | None:
    """Read a text that a user typed as the value of a key. Quotes around the text are removed.

    A backslash before a quote inside the text is removed too, as in Hydra. Every other backslash
    stays.

    Args:
        typed: the part of KEY=VALUE after the first =.

    Returns:
        The text; None for the word null without quotes.
    """
    if typed.lower() == "null":
        return None
    quote, inner = typed[:1], typed[1:-1]
    if len(typed) < 2 or quote not in ("'", '"') or typed[-1] != quote:
        return typed
    escapes = re.findall(rf"(\\*)({quote}|\Z)", inner)
    if any(len(backslashes) % 2 != bool(then) for backslashes, then in escapes):
        return typed  # a quote inside has no backslash, so the outer quotes belong to the text
    return re.sub(rf"\\+(?={quote}|\Z)", lambda found: found[0][: len(found[0]) // 2], inner)


def bare(kind: Any) -> Any:
    """Return a declared type without its Knob. For Annotated[int, Knob(...)], this is int."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def members(kind: Any) -> tuple[Any, ...]:
    """Return the types in a union. If the type is no union, return a tuple with only this type."""
    kind = bare(kind)
    return get_args(kind) if _is_union(kind) else (kind,)


def element(kind: Any) -> Any:
    """Return the type of the elements of a list type.

    Returns:
        The type; Any if the list type names several types or no type for its elements; None if
        `kind` is no list type.
    """
    own = get_origin(kind) or kind
    if not (inspect.isclass(own) and own in _LISTS):
        return None
    kinds = [one for one in get_args(kind) if one is not Ellipsis]
    return kinds[0] if len(kinds) == 1 else Any


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _member(value: Any, kind: Any) -> Any:
    """Return the type in a union that a value has; the union itself if no type fits.

    A whole number fits both int and float. The class of the value, here int, is then returned.
    """
    fitting = [one for one in members(kind) if fits(value, one)]
    return next((one for one in fitting if one is type(value)), fitting[0] if fitting else kind)
