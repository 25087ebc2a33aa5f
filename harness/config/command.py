"""Run a command of the harness, print an error as one line, and end with an exit code.

Exit codes: 0 if all work is done, 1 if some work failed three times or damage was found, 2 if an
error ended the command, 130 if the user stopped the command.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from harness.config.calls import as_called
from harness.config.signals import stop_on_signals
from harness.errors import Failure, UserError, keep_traceback

STOPPED = 130  # the exit code that a shell gives to Ctrl-C
BROKEN = 2
PACKAGE = "supermask-scaling"
DEBUG = "--debug"

Command = Callable[[Sequence[str]], int]

_logger = logging.getLogger("harness")
_tracebacks = logging.getLogger("harness.tracebacks")


def run_command(command: Command) -> NoReturn:
    """Run a command, and end the process with the command's exit code.

    Ctrl-C and SIGTERM stop the command; see harness/config/signals.py.
    An error is printed as one line on stderr. The traceback of an error that is not a UserError is
    written to a file, and the printed line has the path of this file. With --debug, the traceback
    of every error is printed, and no such file is written.

    Args:
        command: function that gets the typed arguments, does the work, and returns the exit code.
    """
    arguments = [one for one in sys.argv[1:] if one != DEBUG]
    is_debugging = len(arguments) < len(sys.argv) - 1
    _tracebacks.setLevel(logging.DEBUG if is_debugging else logging.NOTSET)
    _let_pipes_close()
    signals = stop_on_signals()
    try:
        code = command(arguments)
        print(end="", flush=True)  # a full disk then raises its error here, not at Python's end
    except SystemExit:
        raise
    except BaseException as error:  # a panic of a library in Rust is not an Exception
        # A library that is being imported may turn a KeyboardInterrupt into another error.
        if signals or isinstance(error, KeyboardInterrupt):
            print("stopped", file=sys.stderr)
            code = STOPPED
        else:
            _print_error(error, is_debugging)
            code = BROKEN
        _drop_output()
    sys.exit(code)


def imported(named: str) -> Command:
    """Return a command that imports another command when it runs, and then runs that command.

    So run_command also handles errors and Ctrl-C during the imports.

    Args:
        named: the command, as "module:object".
    """

    def command(arguments: Sequence[str]) -> int:
        module, _, name = named.partition(":")
        code: int = getattr(import_module(module), name)(arguments)
        return code

    return command


def show_traceback(text: str) -> None:
    """With --debug, log the traceback of failed work. Otherwise, write it to a file; log the path.

    Args:
        text: the traceback; "" if there is no traceback. Nothing is logged then.
    """
    if text and _tracebacks.isEnabledFor(logging.DEBUG):
        _tracebacks.debug("the last traceback:\n%s", text)
    elif text and (path := keep_traceback(text)):
        _logger.error("the last traceback is in %s; %s prints it", path, DEBUG)


def version_text() -> str:
    """Return the text of --version: the name and the version of the package."""
    from importlib.metadata import version  # takes 40 ms, so only --version imports it

    return f"{PACKAGE} {version(PACKAGE)}"


def _print_error(error: BaseException, is_debugging: bool) -> None:
    if is_debugging:
        traceback.print_exception(error)
    if isinstance(error, UserError):
        print("error:", as_called(" ".join(str(error).split())), file=sys.stderr)
        return
    failure = Failure.of(error)
    path = None if is_debugging else keep_traceback(failure.traceback)
    kept = f": the traceback is in {path}; {DEBUG} prints it" if path else ""
    if not (path or is_debugging):
        print(failure.traceback, file=sys.stderr)
    print(f"error: {failure.line}{kept}", file=sys.stderr)


def _drop_output() -> None:
    """Drop output that cannot be written, so that Python does not try again when it ends."""
    try:
        print(end="", flush=True)
    except OSError:
        _send_nowhere(sys.stdout.fileno())


def _send_nowhere(number: int) -> None:
    """Make a file descriptor drop all text that is written to it from now on."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), number)


class _Pipe(io.TextIOWrapper):
    """A text stream to a pipe. If the program that reads the pipe has ended, text is dropped.

    This class handles BrokenPipeError in the text stream, not in the raw file below the buffer. A
    signal may raise KeyboardInterrupt in any Python code. If a raw file had Python code, and a
    signal came there just after a write, the buffer would write the same text again.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        _send_nowhere(self.fileno())
        super().flush()


def _let_pipes_close() -> None:
    """Let the command continue if the program that reads its output (such as `head`) ends."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            number = stream.fileno()
        except (AttributeError, OSError, ValueError):  # closed, or replaced by a test
            continue
        if os.isatty(number):
            continue
        stream.flush()
        setattr(
            sys,
            name,
            _Pipe(
                io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            ),
        )
