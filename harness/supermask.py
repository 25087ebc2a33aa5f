"""Run a command of the project by its name. `pip install .` installs this program as `supermask`.

    supermask scale tasks=2500 data=mnist family=permuted

is the same as `python harness/scale.py tasks=2500 data=mnist family=permuted`. A command is
imported only when it runs, so that `supermask status` starts fast.
"""

import ast
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from harness.config.calls import PROGRAM
from harness.config.command import imported, run_command, version_text
from harness.errors import UserError

# Name -> "module:object". The objects are functions that get the other arguments and return the
# exit code. A text names the report's function, because `harness` may not import `analysis`.
_COMMANDS: Mapping[str, str] = {
    **{name: f"harness.{name}:JOB" for name in ("scale", "evaluate", "recall", "tune")},
    "status": "harness.status:main",
    "report": "analysis.report:command",
}


def command(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names, with the other arguments.

    Returns:
        The command's exit code.

    Raises:
        UserError: the first argument is not the name of a command.
    """
    name = arguments[0] if arguments else "nothing"
    if name in ("--help", "-h"):
        print(_help())
        return 0
    if name == "--version":
        print(version_text())
        return 0
    if name not in _COMMANDS:
        raise UserError(
            f"command must be one of {', '.join(_COMMANDS)}, got {name}: type {PROGRAM} --help"
        )
    return imported(_COMMANDS[name])(arguments[1:])


def _help() -> str:
    lines = [f"  {name:<10}{_about(target)}" for name, target in _COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [KEY=VALUE ...] [--help] [--version] [--debug]",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help describes a command and its keys.",
        ]
    )


def _about(target: str) -> str:
    """Read the first line of a module's docstring. The module is not imported, which takes long."""
    found = find_spec(target.partition(":")[0])
    assert found is not None
    assert found.origin is not None
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def main() -> NoReturn:
    """Run the command that the command line names, and end the process with its exit code."""
    run_command(command)


if __name__ == "__main__":
    main()
