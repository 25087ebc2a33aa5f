"""Hold back the texts that native libraries print, so that an error message stays one line."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2  # the file descriptor of stderr, to which native libraries write directly


@contextmanager
def stderr_held_back() -> Iterator[None]:
    """Hold back everything that this process prints on stderr, until the context ends.

    If the context ends without an error, the text is then printed. If the context ends with an
    error, the text is dropped, because the message of the error gives the reason.
    """
    with tempfile.TemporaryFile() as held:
        try:
            before = os.dup(_STDERR)
        except OSError:  # this process has no stderr
            yield
            return
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            _flush()
            os.dup2(before, _STDERR)
            os.close(before)
        held.seek(0)
        with suppress(OSError), os.fdopen(os.dup(_STDERR), "wb") as stderr:
            shutil.copyfileobj(held, stderr)


def _flush() -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
