"""The command line of a job. A job is a command that reads a configuration."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from harness.config.command import version_text
from harness.config.compose import compose_overrides, typed_keys
from harness.config.help import EVERY_KEY, help_text, named_options
from harness.config.keys import OPTION_KEYS
from harness.config.schema import Config
from harness.errors import UserError


@dataclass(frozen=True)
class Job:
    """A command that reads a configuration.

    Attributes:
        name: name of the command's file in harness/, without .py.
        about: description of the command, which --help shows.
        main: function that does the work. It gets the composed configuration and the overrides as
            typed, and returns the exit code.
        takes: the keys that the command reads. The name of a group, such as evaluate, means all
            keys of this group. None: all keys.
        config_name: name of the job's file in harness/conf, without .yaml.
        schema: schema of the job's configuration.
        rewrite: function that changes the typed arguments before they are parsed.
    """

    name: str
    about: str
    main: Callable[[DictConfig, list[str]], int]
    takes: tuple[str, ...] | None = None
    config_name: str = "config"
    schema: type[Config] = Config
    rewrite: Callable[[Sequence[str]], list[str]] = list

    def __call__(self, arguments: Sequence[str]) -> int:
        """Do the command's work. But with --help, --version or --cfg, print a text and do no work.

        Args:
            arguments: the arguments of the command line, as typed.

        Returns:
            The exit code.

        Raises:
            UserError: the user made a mistake, such as an unknown key.
        """
        parsed = _parse(self.rewrite(arguments))
        if parsed.version:
            print(version_text())
            return 0
        composed = compose_overrides(
            parsed.overrides, self.config_name, self.schema, parsed.config_dir
        )
        if parsed.help:
            print(self._help(composed, parsed.overrides))
            return 0
        if parsed.cfg:
            print(OmegaConf.to_yaml(composed), end="")
            return 0
        return self.main(composed, parsed.overrides)

    def _help(self, composed: DictConfig, overrides: Sequence[str]) -> str:
        values: Any = OmegaConf.to_container(composed, throw_on_missing=False)
        found = [help_text(self.name, self.about, values, self.schema, self.takes)]
        typed = set(typed_keys(overrides))
        kinds = [kind for kind in OPTION_KEYS if kind in typed or "experiment" in typed]
        if kinds:
            config = OmegaConf.to_object(composed)
            assert isinstance(config, Config)
            found += [named_options(kind, config) for kind in kinds]
        return "\n\n".join(found)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(
            "options must be KEY=VALUE, --help, --version, --debug, --cfg job or --config-dir "
            f"FOLDER, got an error: {message}: {EVERY_KEY}"
        )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--config-dir", "-cd")
    return parser.parse_intermixed_args(list(arguments))
