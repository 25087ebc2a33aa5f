"""Run a command of the harness, print a user error as one line, and end with an exit code.

Exit codes: 0 if all work is done, 1 if some work failed three times or damage was found, 2 for a
mistake that the user can correct, 130 if the user stopped the command.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from harness.errors import UserError

STOPPED = 130  # the exit code that a shell gives to Ctrl-C
PACKAGE = "supermask-scaling"


def run_command(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command, and end the process with the command's exit code.

    A UserError is printed as one line on stderr, and the exit code is then 2.

    Args:
        command: function that does the work: typed arguments -> exit code.
    """
    try:
        code = command(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped before any work began", file=sys.stderr)
        code = STOPPED
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        code = 2
    sys.exit(code)


def version_text() -> str:
    """Return the text of --version: the name and the version of the package."""
    from importlib.metadata import version  # takes 40 ms, so only --version imports it

    return f"{PACKAGE} {version(PACKAGE)}"
