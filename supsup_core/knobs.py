"""A knob: the help text of an option, and the limits of the option's value.

A function or a class declares a knob in the type of a parameter, such as
`density: Annotated[float, Knob("...", above=0, at_most=1)]`. It calls `check_knobs` with the value
of the parameter. The command line reads the help text and the limits from the same declaration.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

# The smallest and the largest positive number that float32 can store with full precision. Scores,
# gradients and logits are float32. (To import numpy for numpy.finfo would take longer than --help.)
SMALLEST_FLOAT = 2.0**-126
LARGEST_FLOAT = (2 - 2.0**-23) * 2.0**127

# No count of tasks, steps or images comes near to this number: a billion training steps of the
# smallest network take days.
LARGEST_WHOLE = 10**9


# The form of a name of the user's own code, as a regular expression: package.module:object.
OWN_OBJECT = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"


@dataclass(frozen=True)
class Knob:
    """The help text of an option, and the limits of the option's value.

    The limits of a list apply to each element. None means that there is no limit. But float32 must
    be able to hold every number, and a whole number without an upper limit must be at most
    LARGEST_WHOLE.

    Attributes:
        help: one or two sentences for users. They say what the value does, and give its unit.
        at_least: the smallest allowed number.
        above: all allowed numbers are larger than this number.
        at_most: the largest allowed number.
        below: all allowed numbers are smaller than this number.
        one_of: the allowed texts; empty if every text is allowed.
        also: forms of texts that are allowed besides `one_of`. A form is a pair: a description,
            such as "package.module:object", and a regular expression for the whole text.
        filled: if true, a list must have at least one element.
        distinct: if true, all elements of a list must be different.
        example: a value that error messages suggest. If it is None, they suggest the default, or a
            value within the limits.
    """

    help: str
    at_least: int | float | None = None
    above: int | float | None = None
    at_most: int | float | None = None
    below: int | float | None = None
    one_of: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    filled: bool = False
    distinct: bool = False
    example: Any = None

    def allows(self, value: Any) -> bool:
        """Return whether a value of the declared type is within the limits."""
        if isinstance(value, list | tuple):
            is_complete = bool(value) or not self.filled
            has_each_once = not self.distinct or len(set(value)) == len(value)
            return is_complete and has_each_once and all(map(self.allows, value))
        if self.one_of and isinstance(value, str):
            return value in self.one_of or any(re.fullmatch(form, value) for _, form in self.also)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return self._is_usable(value) and (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _is_usable(self, value: int | float) -> bool:
        if isinstance(value, int) and self.at_most is None and self.below is None:
            return abs(value) <= LARGEST_WHOLE
        return value == 0 or SMALLEST_FLOAT <= abs(value) <= LARGEST_FLOAT  # false for nan

    def common_limits(self, value: Any) -> str:
        """Return, in words, the limits that apply to all numbers.

        If the value is within these limits, return "".
        """
        if isinstance(value, list | tuple):
            return next(filter(None, map(self.common_limits, value)), "")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or self._is_usable(value):
            return ""
        if isinstance(value, int):
            return f"and <= {LARGEST_WHOLE}"
        return f"that float32 can hold ({SMALLEST_FLOAT:.3g} to {LARGEST_FLOAT:.3g})"

    @property
    def limits(self) -> str:
        """The limits as text, such as "in (0, 1]", ">= 1" or "one of H, G"; "" without limits."""
        if self.one_of:
            words = [words for words, _ in self.also]
            return " or ".join([f"one of {', '.join(self.one_of)}", *words])
        low = _bound("[", self.at_least, "(", self.above)
        high = _bound("]", self.at_most, ")", self.below)
        if low and high:
            return f"in {low[0]}{low[1]}, {high[1]}{high[0]}"
        if low:
            return f"{'>=' if low[0] == '[' else '>'} {low[1]}"
        return f"{'<=' if high[0] == ']' else '<'} {high[1]}" if high else ""


def _bound(
    closed: str, including: int | float | None, opened: str, excluding: int | float | None
) -> tuple[str, str] | None:
    """Return the bracket and the number for one end of an interval; None if there is no limit."""
    if including is not None:
        return closed, _number(including)
    return (opened, _number(excluding)) if excluding is not None else None


def _number(limit: int | float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def knob_of(hint: Any) -> Knob | None:
    """Return the knob in a declared type, Annotated[..., Knob(...)]; None if it has no knob."""
    if get_origin(hint) is not Annotated:
        return None
    return next((one for one in get_args(hint)[1:] if isinstance(one, Knob)), None)


def check_knobs(target: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Check that values are within the limits of their knobs.

    Args:
        target: the function or the class that declares the knobs.
        values: a mapping from the name of a parameter to its value. Values of parameters without a
            knob are not checked.

    Raises:
        ValueError: a value is outside the limits. The message names the parameter, the limits and
            the value.
    """
    owner = target.__init__ if inspect.isclass(target) else target
    for name, hint in get_type_hints(owner, include_extras=True).items():
        knob = knob_of(hint)
        if knob and name in values and not knob.allows(values[name]):
            value = values[name]
            if isinstance(value, list | tuple):
                fewest = "at least one value" if knob.filled else "values"
                limits = f"{fewest} {_all_limits(knob, value)}".strip()
                raise ValueError(f"{name} must be a list of {limits}, got {list(value)}")
            raise ValueError(f"{name} must be {_all_limits(knob, value)}, got {value}")


def _all_limits(knob: Knob, value: Any) -> str:
    """Return the limits of a knob in words.

    If the value is outside the limits that apply to all numbers, return these limits too.
    """
    common = knob.common_limits(value)
    return f"{knob.limits} {common}".strip() if knob.limits else common.removeprefix("and ")
