"""Options of named things, such as network_options.hidden and method_options.density.

A named thing is a function or a class that the configuration selects by its name, such as a network
or a finder. The options of a named thing are its parameters. But the first parameters of a network
are no options, because the harness sets them. To read the parameters, this module must import
torch, which is slow. So these functions are called when a run begins, and rarely before.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, get_type_hints

from harness.config.keys import OPTION_KEYS
from harness.config.kinds import as_argument, as_typed, bare, converted, is_plain, plain
from harness.config.option import REQUIRED, Option, nearest_key
from harness.config.own_code import import_own, is_own
from harness.config.schema import AnyConfig, Config
from harness.data.names import DATASETS, loaders
from harness.errors import UserError
from supsup_core.knobs import Knob, knob_of
from supsup_core.names import FAMILIES, METHODS, NETWORKS, load

# Each kind of named thing has a pair of values. The first value is the mapping from name to import
# path. The second value is the number of arguments that the harness passes before the options. A
# data set gets one such argument, the places of its files (harness/data/files.py). A network gets
# two: the shape of an input and the number of outputs.
NAMED: Mapping[str, tuple[Mapping[str, str], int]] = {
    "data": (DATASETS, 1),
    "family": (FAMILIES, 0),
    "network": (NETWORKS, 2),
    "method": (METHODS, 0),
}

# Kind of named thing -> import paths of the types that its function or class may make.
_TYPES = {
    "family": ("supsup_core.tasks.protocol:Family",),
    "network": ("supsup_core.networks.protocol:Network", "torch.nn:Module"),
    "method": ("supsup_core.methods.protocol:Method",),
}


def declared_options(
    kind: str, target: Callable[..., Any], num_arguments: int = 0
) -> dict[str, Option]:
    """List the options that a function or a class declares, as a mapping from name to option.

    Args:
        kind: what the function or the class is: data, family, network or method.
        target: the function or the class.
        num_arguments: number of the target's first parameters that are no options, because the
            harness sets them.
    """
    owner = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(owner, include_extras=True)
    parameters = list(inspect.signature(target).parameters.values())[num_arguments:]
    found = {}
    for one in parameters:
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            hint = hints.get(one.name, Any)
            key = f"{OPTION_KEYS[kind]}.{one.name}"
            found[one.name] = Option(key, bare(hint), one.default, knob_of(hint) or Knob(""))
    return found


def check_options(
    kind: str,
    name: str,
    target: Callable[..., Any],
    options: Mapping[str, Any],
    num_arguments: int = 0,
) -> dict[str, Any]:
    """Check the given options of a function or a class, and add defaults for options not given.

    Args:
        kind: what the function or the class is: data, family, network or method.
        name: the name in the configuration, which selects the function or the class.
        target: the function or the class.
        options: a mapping from the name of an option to its value in the configuration.
        num_arguments: number of the target's first parameters that are no options, because the
            harness sets them.

    Returns:
        A mapping from the name of an option to its value. It has all given options. An option that
        is not given has its default, or is left out if config.yaml cannot store the default. A
        whole number becomes a float if the option is declared as a float.

    Raises:
        UserError: an option is unknown or missing, or its value is not allowed.
    """
    declared = declared_options(kind, target, num_arguments)
    if not _takes_any_name(target):
        for given in options:
            if given not in declared:
                raise UserError(_unknown(kind, name, given, declared))
    full: dict[str, Any] = {}
    for option_name, option in declared.items():
        if option_name in options:
            option.check(options[option_name])
            full[option_name] = converted(options[option_name], option.kind)
        elif option.default is REQUIRED:
            raise UserError(
                f"{option.key} must be given for {kind}={name}, got nothing: try "
                f"{option.key}={option.example()}"
            )
        elif is_plain(option.default):
            full[option_name] = plain(option.default)
    return full | {given: value for given, value in options.items() if given not in full}


def load_named(kind: str, known: Mapping[str, str], name: str) -> Callable[..., Any]:
    """Import the function or the class that a name of the configuration stands for.

    Args:
        kind: what the name stands for: data, family, network or method.
        known: the mapping in supsup_core.names of the known names, such as NETWORKS.
        name: a known name, or package.module:object of the user's own code.

    Raises:
        UserError: the name is unknown, or the user's own code cannot be imported.
    """
    if is_own(name):
        return import_own(kind, name)
    if kind == "data":
        known = loaders(name)
    try:
        target: Callable[..., Any] = load(kind, known, name)
    except ValueError as error:
        raise UserError(str(error)) from error
    return target


def make_named(
    kind: str, known: Mapping[str, str], name: str, options: Mapping[str, Any], *arguments: Any
) -> Any:
    """Make the object that a name in the configuration selects.

    Args:
        kind: the kind of object: family, network or method.
        known: the mapping in supsup_core.names that contains the name, such as NETWORKS.
        name: the name in the configuration.
        options: a mapping from the name of an option to its value. A missing option gets its
            default.
        arguments: the arguments that the harness passes before the options.

    Returns:
        The result of the function, or the instance of the class.

    Raises:
        UserError: the name or an option is unknown, or a value is not allowed.
    """
    target = load_named(kind, known, name)
    declared = declared_options(kind, target, len(arguments))
    full = check_options(kind, name, target, options, len(arguments))
    given = {
        option: as_argument(value, declared[option].kind) if option in declared else value
        for option, value in full.items()
    }
    try:
        made = target(*arguments, **given)
    except ValueError as error:
        raise UserError(_refused(kind, name, full, str(error))) from error
    if is_own(name):
        _check_type(kind, name, made)
    return made


def _check_type(kind: str, name: str, made: object) -> None:
    """Raise UserError if the user's own code made an object of a wrong type."""
    types = [load(kind, {path: path}, path) for path in _TYPES[kind]]
    if not isinstance(made, tuple(types)):
        wanted = " or ".join(f"{one.__name__} of {one.__module__}" for one in types)
        raise UserError(
            f"{kind}={name} must make a {wanted}, got {type(made).__name__}: correct the code, or "
            "name another object"
        )


def resolved_options(config: AnyConfig, kinds: Collection[str] = tuple(OPTION_KEYS)) -> AnyConfig:
    """Copy a configuration. In the copy, each option that was not given has its default.

    Args:
        config: a configuration that a user typed, or that config.yaml stored.
        kinds: kinds of named things: data, family, network or method. Only the options of these
            kinds get their defaults.

    Raises:
        UserError: an option is unknown, or its value is not allowed.
    """
    full: dict[str, Any] = {}
    for kind in kinds:
        target, num_arguments = _target(kind, config)
        options = getattr(config, OPTION_KEYS[kind])
        full[OPTION_KEYS[kind]] = check_options(
            kind, getattr(config, kind), target, options, num_arguments
        )
    return replace(config, **full)


def options_of_kind(kind: str, config: Config) -> dict[str, Option]:
    """List the options of the data set, family, network or finder that a configuration names.

    Args:
        kind: data, family, network or method.
        config: the configuration.

    Returns:
        A mapping from the name of an option to the option.
    """
    return declared_options(kind, *_target(kind, config))


def option_type(config: Config, key: str) -> Any:
    """Return the declared type of an option.

    Args:
        config: a configuration. Its `method` says which finder declares method_options.density.
        key: the dotted key of the option, such as method_options.density.

    Raises:
        UserError: the option is unknown.
    """
    group, _, option = key.partition(".")
    kind = next(kind for kind, own in OPTION_KEYS.items() if own == group)
    declared = options_of_kind(kind, config)
    if option not in declared:
        raise UserError(_unknown(kind, getattr(config, kind), option, declared))
    return declared[option].kind


def _target(kind: str, config: Config) -> tuple[Callable[..., Any], int]:
    """Find the function or the class that the configuration selects for a kind.

    Returns:
        The function or the class, and the number of its first parameters that are no options.
    """
    known, num_arguments = NAMED[kind]
    return load_named(kind, known, getattr(config, kind)), num_arguments


def _takes_any_name(target: Callable[..., Any]) -> bool:
    """Return whether a function has a parameter such as **options, which accepts any name."""
    parameters = inspect.signature(target).parameters.values()
    return any(one.kind is one.VAR_KEYWORD for one in parameters)


def _unknown(kind: str, name: str, given: str, declared: Mapping[str, Option]) -> str:
    group = OPTION_KEYS[kind]
    if not declared:
        return f"{group} must be empty for {kind}={name}, got {given}: leave it out"
    near = nearest_key(given, tuple(declared)) or next(iter(declared))
    hint = f"try {group}.{near}={declared[near].example()}"
    return f"{group} must be among {', '.join(declared)} for {kind}={name}, got {given}: {hint}"


def _refused(kind: str, name: str, options: Mapping[str, Any], reason: str) -> str:
    """Make the error message for the ValueError of a constructor.

    Args:
        kind: the kind of object that the constructor makes: family, network or method.
        name: the name of the object in the configuration.
        options: a mapping from the name of an option to its value.
        reason: the text of the ValueError. If its first word is the name of an option, the message
            shows the key and the value of this option. Otherwise it shows all options.
    """
    option = reason.partition(" ")[0]
    if option in options:
        key = f"{OPTION_KEYS[kind]}.{option}"
        got = "" if "got" in reason else f", got {as_typed(options[option])}"
        return f"{OPTION_KEYS[kind]}.{reason}{got}: choose another {key} for {kind}={name}"
    typed = ", ".join(f"{option}: {as_typed(value)}" for option, value in options.items())
    return (
        f"{OPTION_KEYS[kind]} must fit {kind}={name}, got {{{typed}}}: {reason}: choose other "
        f"options, or another {kind}"
    )
