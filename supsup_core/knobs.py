"""A knob: the help text of an option, and the limits of the option's value.

A function or a class declares a knob in the type of a parameter, such as
`density: Annotated[float, Knob("...", above=0, at_most=1)]`. It calls `check_knobs` with the value
of the parameter. The command line reads the help text and the limits from the same declaration.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Knob:
    """The help text of an option, and the limits of the option's value.

    If the value is a list, the limits of numbers and texts apply to each element. Numbers must also
    be finite. None means that there is no such limit.

    Attributes:
        help: one or two sentences for users, which say what the value does and give its unit.
        at_least: the smallest allowed number.
        above: all allowed numbers are larger than this number.
        at_most: the largest allowed number.
        below: all allowed numbers are smaller than this number.
        one_of: the allowed texts; empty if every text is allowed.
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
    filled: bool = False
    distinct: bool = False
    example: Any = None

    def allows(self, value: Any) -> bool:
        """Return whether a value of the declared type is within the limits."""
        if isinstance(value, list | tuple):
            is_complete = bool(value) or not self.filled
            has_each_once = len(set(value)) == len(value) or not self.distinct
            return is_complete and has_each_once and all(map(self.allows, value))
        if self.one_of and isinstance(value, str):
            return value in self.one_of
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        # A whole number is finite, and may be too large to become a float.
        return (isinstance(value, int) or isfinite(value)) and (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    @property
    def limits(self) -> str:
        """The limits as text: "in (0, 1]", ">= 1" or "one of H, G", for example; "" if none."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
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
        return closed, f"{including:g}"
    return (opened, f"{excluding:g}") if excluding is not None else None


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
                limits = f"{fewest} {knob.limits}".strip()
                raise ValueError(f"{name} must be a list of {limits}, got {list(value)}")
            raise ValueError(f"{name} must be {knob.limits}, got {value}")
