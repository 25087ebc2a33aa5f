"""The command lines of `analysis`. A mistake of the user is printed as one line, without traceback.

Exit codes: 0 if all work is done, 2 for a mistake that the user can correct, 130 if the user
stopped the program.
"""

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from matplotlib.figure import Figure

from analysis.load import as_path

MISTAKE, STOPPED = 2, 130
PACKAGE = "supermask-scaling"


class Parser(argparse.ArgumentParser):
    """A parser of options. It prints a mistake as one line, with advice, and exits with code 2.

    Args:
        about: description of the program, which --help prints without changes.
        example: options that a message suggests if it has no other advice.
        program: name of the program in the help; None: the name of its file.
    """

    def __init__(self, about: str, example: str = "--help", program: str | None = None) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(program, description=about, formatter_class=raw, allow_abbrev=False)
        self._example = example
        self.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")

    def error(self, message: str) -> NoReturn:
        """Print a mistake, and exit."""
        told = message.removeprefix("argument ").replace(": must", " must", 1)
        print_error(told if ": try " in told else f"{told}: try {self._example}")
        sys.exit(MISTAKE)


class _Version(argparse.Action):
    """Print the package's name and version, and exit, as the commands of the harness do."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"{PACKAGE} {version(PACKAGE)}")
        parser.exit()


def run_command(
    command: Callable[[], int | None],
    mistakes: tuple[type[Exception], ...] = (OSError, ValueError),
) -> NoReturn:
    """Run a program, and end the process with the program's exit code; see `exit_code`."""
    sys.exit(exit_code(command, mistakes))


def exit_code(
    command: Callable[[], int | None],
    mistakes: tuple[type[Exception], ...] = (OSError, ValueError),
) -> int:
    """Run a program, print a mistake of the user as one line, and return the exit code.

    Args:
        command: function that does the work, and returns an exit code or None for 0.
        mistakes: classes of errors that the user can correct. For such an error, one line is
            printed, and the exit code is 2. Any other error, which is a bug, is raised.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except mistakes as error:
        # Only errors of the operating system have an errno. They do not say what to do.
        by_system = isinstance(error, OSError) and error.errno is not None
        advice = ": check the path, its permissions and the free space" if by_system else ""
        print_error(f"{error}{advice}")
        return MISTAKE


def print_error(message: str) -> None:
    """Print an error message on stderr as one line."""
    print("error:", " ".join(message.split()), file=sys.stderr)


def run_directory(text: str) -> str:
    """Parse an option that names a run, such as FOLDER, s3://BUCKET/FOLDER or run_dir=FOLDER.

    Returns:
        The absolute path of the run's folder, or the URL.
    """
    named = text.removeprefix("run_dir=")
    if not named:
        raise argparse.ArgumentTypeError(
            f"must be a run's folder or URL, got {text!r}: try run_dir=runs/mnist5k-permuted-32"
        )
    try:
        return str(as_path(named))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("run_dir ")) from error


def figure_file(text: str) -> Path:
    """Parse an option that names a figure file to write, such as accuracy.svg. Return its path."""
    path, known = Path(text), Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise argparse.ArgumentTypeError(
            f"must end in one of {', '.join(f'.{one}' for one in known)}, got {text!r}: try "
            f"{path.stem or 'figure'}.svg"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"must be in an existing folder, got {text!r}: try {path.name}, or make the folder"
        )
    return path
