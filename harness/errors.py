"""The one error a user is meant to read.

Everything that is wrong with what the user gave (a key, a value, a folder, a
missing file) is a UserError; the command line prints it as one line and exits
with 2. Any other exception is a fault of ours and keeps its traceback.
"""


class UserError(Exception):
    """What was expected, what came, and what to do: one line, no newline."""
