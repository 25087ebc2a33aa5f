"""Options of a configuration: check their values, and make the errors for wrong values."""

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from harness.config.kinds import as_typed, element, fits, in_words, is_plain, members, plain
from harness.errors import UserError
from supsup_core.knobs import Knob

MISSING = "???"  # OmegaConf's mark for a value without a default; a recipe sets the value
REQUIRED = inspect.Parameter.empty  # the field `default` of an option without a default has it


@dataclass(frozen=True)
class Option:
    """A key that a user can set.

    Attributes:
        key: the dotted key, such as train.steps.
        kind: the declared type of the value; Any if no type is declared.
        default: the default value; REQUIRED if there is no default.
        knob: the help text and the limits of the value.
        instead: a word that the user may type in place of a value, such as auto; None if there is
            no such word.
    """

    key: str
    kind: Any
    default: Any
    knob: Knob
    instead: str | None = None

    @property
    def expected(self) -> str:
        """The possible values in words, such as "auto or a whole number >= 1"."""
        others = [self.instead] if self.instead else []
        kinds = [one for one in members(self.kind) if one is not NoneType]
        if len(kinds) < len(members(self.kind)):
            others.append("null")
        return " or ".join([*others, *(self._in_words(kind) for kind in kinds)])

    def _in_words(self, kind: Any) -> str:
        limits = self.knob.limits
        if element(kind) is not None:
            filled = self.knob.filled
            once = ", each once" if self.knob.distinct else ""
            if self.knob.one_of:
                many = "one or more" if filled else "any"
                return f"a list with {many} of {', '.join(self.knob.one_of)}{once}"
            words = f"{in_words(kind)} {limits}".rstrip() + once
            return words.replace("a list", "a non-empty list", 1) if filled else words
        return limits if self.knob.one_of else f"{in_words(kind)} {limits}".rstrip()

    def example(self, near: Any = None) -> str:
        """Return an allowed value, as a user types it.

        Args:
            near: a refused value. If an allowed name is similar to the refused value, this name is
                returned. None: no value was refused.
        """
        if self.knob.one_of and near is not None:
            names = near if isinstance(near, list) else [near]
            found = [self._nearest(name) for name in names]
            known = list(dict.fromkeys(name for name in found if name))
            if known:
                return as_typed(known if element(self.kind) is not None else known[0])
        if self.knob.example is not None:
            return as_typed(self.knob.example)
        if self.default is not REQUIRED and self.default is not None and is_plain(self.default):
            return as_typed(plain(self.default))
        return self._any_value()

    def _nearest(self, name: Any) -> str | None:
        found = difflib.get_close_matches(str(name), self.knob.one_of, n=1)
        return found[0] if found else None

    def _any_value(self) -> str:
        """Return a value of the declared type that is within the limits."""
        kind = next(one for one in members(self.kind) if one is not NoneType)
        single = element(kind) or kind
        if get_origin(single) is Literal:
            value = str(get_args(single)[0])
        elif self.knob.one_of:
            value = self.knob.one_of[0]
        elif get_origin(single) is dict:
            value = "{}"
        else:
            tried = (_EXAMPLES.get(single), self.knob.at_least, self.knob.at_most, 1)
            fitting = (one for one in tried if one is not None and self.knob.allows(one))
            value = as_typed(next(fitting, "VALUE"))
        return f"[{value}]" if element(kind) is not None else value

    def check(self, value: Any) -> None:
        """Check that a value has the declared type and is within the limits.

        Raises:
            UserError: the value is not allowed. The message has the key, the allowed values, the
                refused value, and an example of an allowed value.
        """
        if value == self.instead and value is not None:
            return
        if not fits(value, self.kind) or not self.knob.allows(value):
            raise UserError(self.refusal(value))

    def refusal(self, value: Any) -> str:
        """Make the error message for a value that is not allowed."""
        got = as_typed(value) if is_plain(value) else repr(value)
        common = self.knob.common_limits(value) if fits(value, self.kind) else ""
        if not self.knob.limits:
            common = common.removeprefix("and ")
        expected = f"{self.expected} {common}".rstrip()
        return (
            f"{self.key} must be {expected}, got {got or repr(value)}: try "
            f"{self.key}={self.example(value)}"
        )


_EXAMPLES = {bool: True, int: 300, float: 0.5, str: "TEXT"}


def knob(
    default: Any = NO_DEFAULT,
    *,
    kind: Any = None,
    instead: str | None = None,
    help: str,
    **limits: Any,
) -> Any:
    """Declare a field of a schema.

    Args:
        default: the default, or a function without arguments that makes the default.
        kind: the type of the value; None: the type of the field.
        instead: a word that the user may type in place of a value, such as auto; None: no such
            word.
        help: the help text of the option.
        limits: keyword arguments of Knob that limit the value, such as at_least=1.
    """
    metadata = {"knob": Knob(help, **limits), "kind": kind, "instead": instead}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(schema: Any, prefix: str = "") -> dict[str, Option]:
    """List the options of a schema, in the order of declaration.

    Args:
        schema: a dataclass. Each field is declared by `knob`, or its type is another schema.
        prefix: the text before each key, such as "train.".

    Returns:
        A mapping from dotted key, such as train.steps, to the option.
    """
    found: dict[str, Option] = {}
    for entry in fields(schema):
        if is_dataclass(entry.type):
            found |= options_of(entry.type, f"{prefix}{entry.name}.")
        else:
            key = f"{prefix}{entry.name}"
            declared = entry.metadata
            kind = entry.type if declared["kind"] is None else declared["kind"]
            found[key] = Option(key, kind, _default(entry), declared["knob"], declared["instead"])
    return found


def _default(entry: Field[Any]) -> Any:
    if entry.default_factory is not NO_DEFAULT:
        return entry.default_factory()
    return REQUIRED if entry.default in (NO_DEFAULT, MISSING) else entry.default


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Return the known key that is most similar to a mistyped key; None if no key is similar."""
    found = difflib.get_close_matches(key, known, n=1)
    return found[0] if found else None
