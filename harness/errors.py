"""The error for mistakes that the user can correct.

A UserError means that an input of the user is wrong: a key, a value, a folder or a missing file.
The command line prints it as one line and ends with exit code 2. Any other exception is a bug of
this program and keeps its traceback.
"""


class UserError(Exception):
    """A wrong input of the user. The message is one line: expected, got, and what to do."""


def one_line(error: BaseException) -> str:
    """Format an error as one line: its type and message."""
    return " ".join(f"{type(error).__name__}: {error}".split())
