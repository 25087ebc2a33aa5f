"""Make the text of --help from a schema. This module imports neither Hydra nor torch."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from inspect import getdoc
from textwrap import fill
from typing import Any

from harness.config.calls import as_called
from harness.config.keys import OPTION_KEYS, is_taken
from harness.config.kinds import as_typed
from harness.config.option import Option, options_of
from harness.config.schema import CONFIG_MODULE, Config

EVERY_KEY = "--help lists every key"
OF_A_FILE = {
    "train": "Recipe. It sets the keys of train.",
    "experiment": "Experiment. It sets keys of every group.",
}
_WIDTH = 100
_HOW_TO_READ = "Each key is shown with its default, then its possible values, then its meaning."


def help_text(
    name: str,
    about: str,
    values: Mapping[str, Any],
    schema: type[Config] = Config,
    takes: Sequence[str] | None = None,
) -> str:
    """Write the help text of a job: its usage, then the meaning and the values of every key.

    Args:
        name: name of the command's file, without .py.
        about: description of the command.
        values: nested mapping from key to value. The help shows these values as the defaults.
        schema: schema of the job's configuration.
        takes: the keys that the command reads. The name of a group, such as evaluate, means all
            keys of this group. None: all keys.
    """
    found = [
        *_opening(f"harness/{name}.py", about, " [--cfg job] [--config-dir FOLDER]"),
        _filled(
            "--cfg job prints the configuration as YAML and stops. --config-dir FOLDER adds a "
            "folder of your own with recipes (train/NAME.yaml) and experiments "
            "(experiment/NAME.yaml). --debug prints the tracebacks of errors."
        ),
        _HOW_TO_READ,
    ]
    for heading, options in sections(schema):
        shown = [one for one in options if takes is None or is_taken(one.key, takes)]
        lines = [line for one in shown for line in _lines(one, values)]
        if heading.startswith("train.") and takes is None:
            lines = [*_files(), *lines]
        if lines:
            found.append("\n".join([_filled(heading), "", *lines]))
    return "\n\n".join(found)


def plain_help(name: str, about: str, schema: Any) -> str:
    """Write the help text of a command that reads no configuration.

    Args:
        name: path of the command's file in the repository.
        about: description of the command.
        schema: dataclass of the command's options.
    """
    lines = [
        line
        for one in options_of(schema).values()
        for line in _entry(f"{one.key}={one.example()}", one.expected, one.knob.help)
    ]
    return "\n\n".join([*_opening(name, about), _HOW_TO_READ, "\n".join(lines)])


def sections(schema: type[Config]) -> Iterator[tuple[str, list[Option]]]:
    """Yield a pair for each group of keys: the heading, and the options in declared order."""
    options = options_of(schema)
    yield "Keys", [one for key, one in options.items() if "." not in key]
    for entry in fields(schema):
        if is_dataclass(entry.type):
            prefix = f"{entry.name}."
            about = " ".join((getdoc(entry.type) or "").split())
            group = [one for key, one in options.items() if key.startswith(prefix)]
            yield f"{prefix}*: {about}", group


def configuration_files() -> Mapping[str, list[str]]:
    """List the recipes and experiments in harness/conf.

    Returns:
        A mapping from the group, train (recipes) or experiment, to the sorted names of its files.
    """
    return {
        group: sorted(
            one.name.removesuffix(".yaml")
            for one in (files(CONFIG_MODULE) / group).iterdir()
            if one.name.endswith(".yaml")
        )
        for group in OF_A_FILE
    }


def named_options(kind: str, config: Config) -> str:
    """Write the help text for the options of a data set, family, network or finder.

    This function imports torch.

    Args:
        kind: data, family, network or method.
        config: a configuration. It selects the data set, family, network or finder by name.
    """
    from harness.config.options import options_of_kind

    heading = f"{OPTION_KEYS[kind]}.*: options of {kind}={getattr(config, kind)}"
    lines = [
        line
        for one in options_of_kind(kind, config).values()
        for line in _entry(f"{one.key}={one.example()}", one.expected, one.knob.help)
    ]
    return "\n".join([heading, "", *(lines or ["  There are no options."])])


def _opening(path: str, about: str, more: str = "") -> list[str]:
    usage = f"usage: python {path} [KEY=VALUE ...] [--help] [--version] [--debug]{more}"
    return [_filled(as_called(usage), "    "), as_called(about.strip())]


def _files() -> list[str]:
    lines = []
    for group, names in configuration_files().items():
        default = "paper" if group == "train" else "null"
        lines += _entry(f"{group}={default}", f"one of {', '.join(names)}", OF_A_FILE[group])
    return lines


def _lines(option: Option, values: Mapping[str, Any]) -> list[str]:
    if option.key in OPTION_KEYS.values():
        kind = next(kind for kind, key in OPTION_KEYS.items() if key == option.key)
        meaning = f"{option.knob.help} --help {kind}=NAME lists them."
        return _entry(f"{option.key}.NAME=VALUE", "", meaning)
    value: Any = values
    for part in option.key.split("."):
        value = value[part]
    return _entry(f"{option.key}={as_typed(value)}", option.expected, option.knob.help)


def _entry(assignment: str, values: str, meaning: str) -> list[str]:
    indent = " " * 6
    return [f"  {assignment}", *(_filled(one, indent, indent) for one in (values, meaning) if one)]


def _filled(text: str, indent: str = "", first: str = "") -> str:
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    return fill(text, width, initial_indent=first, subsequent_indent=indent)
