"""Options of named things: network_options.hidden, method_options.density and their like.

A named thing is a function or a class. It declares its options: they are its parameters, without
those that the harness gives it. To load a named thing imports torch, so the functions here are
called where a run begins, and not where a command line is checked.
"""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

from harness.config.kinds import (
    as_argument,
    as_typed,
    converted,
    example,
    fits,
    in_words,
    is_plain,
    plain,
)
from harness.config.schema import OPTION_KEYS, AnyConfig, Config
from harness.errors import UserError
from supsup_core.names import FAMILIES, METHODS, NETWORKS, load

REQUIRED = inspect.Parameter.empty  # the default of an option that must be given

# What has options, and how many arguments the harness gives before them: to a network the shape of
# an input and the number of outputs.
_LOADED: Mapping[str, tuple[Mapping[str, str], int]] = {
    "family": (FAMILIES, 0),
    "network": (NETWORKS, 2),
    "method": (METHODS, 0),
}


@dataclass(frozen=True)
class Option:
    """An option that a named thing declares.

    Attributes:
        name: of the parameter.
        kind: its declared type; Any where none is declared.
        default: its default; REQUIRED if it must be given.
    """

    name: str
    kind: Any
    default: Any

    @property
    def example(self) -> str:
        """A value to type: the default, or any of the declared type."""
        if self.default is None or not is_plain(self.default):
            return example(self.kind)
        return as_typed(plain(self.default))


def declared_options(target: Callable[..., Any], num_arguments: int = 0) -> dict[str, Option]:
    """List the options that a function or a class declares, by name.

    Args:
        target: the function or the class.
        num_arguments: number of its first parameters that the harness gives.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    parameters = list(inspect.signature(target).parameters.values())[num_arguments:]
    return {
        one.name: Option(one.name, hints.get(one.name, Any), one.default)
        for one in parameters
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }


def check_options(
    kind: str,
    name: str,
    target: Callable[..., Any],
    options: Mapping[str, Any],
    num_arguments: int = 0,
) -> dict[str, Any]:
    """Check options against those that a named thing declares, and add its defaults.

    Args:
        kind: what the name is of: data, family, network or method.
        name: as in the configuration.
        target: the function or the class that the name stands for.
        options: as in the configuration.
        num_arguments: number of the target's first parameters that the harness gives.

    Returns:
        Value by option: those given, and the defaults that a configuration can keep. A whole
        number is a float where a float is declared.

    Raises:
        UserError: an unknown option, a missing one, or a value of another type.
    """
    declared = declared_options(target, num_arguments)
    if not _takes_any_name(target):
        for given in options:
            if given not in declared:
                raise UserError(_unknown(kind, name, given, declared))
    full: dict[str, Any] = {}
    for option in declared.values():
        key = f"{OPTION_KEYS[kind]}.{option.name}"
        if option.name in options:
            value = options[option.name]
            if not fits(value, option.kind):
                raise UserError(
                    f"{key} must be {in_words(option.kind)} for {kind}={name}, got {value!r}: "
                    f"try {key}={option.example}"
                )
            full[option.name] = converted(value, option.kind)
        elif option.default is REQUIRED:
            raise UserError(
                f"{key} must be given for {kind}={name}, got none: for example "
                f"{key}={option.example}"
            )
        elif is_plain(option.default):
            full[option.name] = plain(option.default)
    return full | {name: value for name, value in options.items() if name not in full}


def make_named(
    kind: str, known: Mapping[str, str], name: str, options: Mapping[str, Any], *arguments: Any
) -> Any:
    """Make what a name of the configuration stands for.

    Args:
        kind: what the name is of: family, network or method.
        known: the mapping of supsup_core.names that has the name.
        name: as in the configuration.
        options: as in the configuration; one that is missing has its default.
        arguments: what the harness gives before the options.

    Returns:
        What the function or the class returns.

    Raises:
        UserError: an unknown name, or an option that does not fit.
    """
    try:
        target = load(kind, known, name)
    except ValueError as error:
        raise UserError(str(error)) from error
    declared = declared_options(target, len(arguments))
    full = check_options(kind, name, target, options, len(arguments))
    given = {
        option: as_argument(value, declared[option].kind) if option in declared else value
        for option, value in full.items()
    }
    try:
        return target(*arguments, **given)
    except ValueError as error:
        raise UserError(_refused(kind, name, full, str(error))) from error


def resolved_options(config: AnyConfig, kinds: Collection[str] = tuple(OPTION_KEYS)) -> AnyConfig:
    """Write out every option of a configuration, also those that have their defaults.

    Args:
        config: as typed, or as kept.
        kinds: what has the options: some of data, family, network and method.

    Raises:
        UserError: an option that does not fit.
    """
    full: dict[str, Any] = {}
    for kind in kinds:
        target, num_arguments = _target(kind, config)
        options = getattr(config, OPTION_KEYS[kind])
        full[OPTION_KEYS[kind]] = check_options(
            kind, getattr(config, kind), target, options, num_arguments
        )
    return replace(config, **full)


def option_type(config: Config, key: str) -> Any:
    """The declared type of an option.

    Args:
        config: has the name of what declares it.
        key: dotted, such as method_options.density.

    Raises:
        UserError: an unknown option.
    """
    group, _, option = key.partition(".")
    kind = next(kind for kind, own in OPTION_KEYS.items() if own == group)
    declared = declared_options(*_target(kind, config))
    if option not in declared:
        raise UserError(_unknown(kind, getattr(config, kind), option, declared))
    return declared[option].kind


def _target(kind: str, config: Config) -> tuple[Callable[..., Any], int]:
    """What declares the options, and how many arguments the harness gives it."""
    if kind not in _LOADED:
        return _no_options, 0
    known, num_arguments = _LOADED[kind]
    return load(kind, known, getattr(config, kind)), num_arguments


def _no_options() -> None:
    """Declare the options of the known data sets: there are none."""


def _takes_any_name(target: Callable[..., Any]) -> bool:
    """Whether a function takes **options."""
    parameters = inspect.signature(target).parameters.values()
    return any(one.kind is one.VAR_KEYWORD for one in parameters)


def _unknown(kind: str, name: str, option: str, declared: Collection[str]) -> str:
    near = difflib.get_close_matches(option, declared, n=1)
    if near:
        hint = f"did you mean {OPTION_KEYS[kind]}.{near[0]}?"
    elif declared:
        hint = f"there are {', '.join(declared)}"
    else:
        hint = "it has none, leave it out"
    return f"{OPTION_KEYS[kind]}.{option}: unknown option of {kind}={name}: {hint}"


def _refused(kind: str, name: str, options: Mapping[str, Any], reason: str) -> str:
    """Say which option a constructor refused; its own words name the value."""
    option = reason.partition(" ")[0]
    if option in options:
        key = f"{OPTION_KEYS[kind]}.{option}"
        got = "" if "got" in reason else f", got {as_typed(options[option])}"
        return f"{OPTION_KEYS[kind]}.{reason}{got}: type another {key} for {kind}={name}"
    typed = ", ".join(f"{option}: {as_typed(value)}" for option, value in options.items())
    return (
        f"{OPTION_KEYS[kind]} must fit {kind}={name}, got {{{typed}}}: {reason}: type other "
        f"options, or another {kind}"
    )
