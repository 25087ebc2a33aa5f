"""The error for mistakes that the user can correct, and the error lines for all other errors.

A UserError means that an input of the user is wrong: a key, a value, a folder or a missing file.
The command line prints the UserError as one line, and ends with exit code 2. Any other error may
come from the user's own network, finder, family or rule. So the line that is printed for such an
error also has a file name and a line number.
"""

import re
import sysconfig
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path


class UserError(Exception):
    """A wrong input of the user.

    The message is one line. It says what was expected, what was given, and what to do.
    """


def one_line(error: BaseException) -> str:
    """Format an error as one line: its type and message."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if said else ''}{said}"


@dataclass(frozen=True)
class Failure:
    """An error as texts, which can be sent from one process to another.

    Attributes:
        line: the error's type and message, and the file and the line number of its origin.
        traceback: the traceback, several lines.
    """

    line: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Describe an error that this process has caught."""
        return cls.described(error, "".join(traceback.format_exception(error)))

    @classmethod
    def described(cls, error: BaseException, text: str) -> "Failure":
        """Describe an error that another process raised. `text` is the error's traceback."""
        return cls(one_line(error) + origin(text), text)


_FRAME = re.compile(r'^[ |]*File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)
_OWN = tuple(f"{Path(__file__).parents[1] / name}/" for name in ("harness", "supsup_core"))
_LIBRARIES = (f"{sysconfig.get_path('stdlib')}/", "<")


def origin(text: str) -> str:
    """Find the line of code that most likely caused an error.

    This is the last line of the traceback that is neither in a library nor in this project. If
    there is no such line, it is the last line in this project, because users may add files to the
    project. If there is no line in this project either, it is the last line of the traceback.

    Args:
        text: a traceback.

    Returns:
        " (FILE, line NUMBER)"; "" if the traceback has no line of code.
    """
    frames = [(found["file"], found["line"]) for found in _FRAME.finditer(text)]
    ours = [one for one in frames if not is_library(one[0])]
    theirs = [one for one in ours if not one[0].startswith(_OWN)]
    return "".join(f" ({file}, line {line})" for file, line in (theirs or ours or frames)[-1:])


def is_library(file: str) -> bool:
    """Return whether a file belongs to Python or to an installed package."""
    return "-packages/" in file or file.startswith(_LIBRARIES)


def keep_traceback(text: str) -> Path | None:
    """Write a traceback to a new file in the system's folder for temporary files.

    Returns:
        The path of the file; None if the file cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="supermask-scaling-", suffix=".txt", encoding="utf-8", delete=False
        ) as file:
            file.write(text)
    except OSError:
        return None
    return Path(file.name)
