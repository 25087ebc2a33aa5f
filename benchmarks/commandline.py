"""The command lines of the benchmarks: options with limits, and mistakes as one line."""

import subprocess
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from analysis.commandline import Parser, figure_file, print_error, run_command
from harness.config.option import REQUIRED, Option
from harness.errors import UserError
from supsup_core.knobs import Knob

__all__ = ["Parser", "figure_file", "file", "folder", "need_memory", "real", "run_program", "whole"]

MOST = 10**9  # larger counts and seeds do not fit into the numbers of every library


def whole(at_least: int = 1, at_most: int = MOST) -> Callable[[str], int]:
    """Make the function that parses an option as a whole number within limits."""
    return _parser(int, Knob("", at_least=at_least, at_most=at_most))


def real(**limits: float) -> Callable[[str], float]:
    """Make the function that parses an option as a number within limits, such as above=0."""
    return _parser(float, Knob("", **limits))


def _parser(kind: type, knob: Knob) -> Callable[[str], Any]:
    option = Option("", kind, REQUIRED, knob)

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not knob.allows(value):
            raise ArgumentTypeError(
                f"must be {option.expected}, got {text or repr(text)}: try {option.example()}"
            )
        return value

    return parse


def folder(text: str) -> Path:
    """Parse an option that names an existing folder."""
    if not text or not (path := Path(text)).is_dir():
        raise ArgumentTypeError(f"must be an existing folder, got {text!r}: try {Path.cwd()}")
    return path


def file(text: str) -> Path:
    """Parse an option that names an existing file."""
    if not text or not (path := Path(text)).is_file():
        raise ArgumentTypeError(f"must be an existing file, got {text!r}: try another path")
    return path


def need_memory(num_bytes: float, options: str) -> None:
    """Refuse options whose arrays do not fit into this machine's memory.

    Args:
        num_bytes: size of the arrays.
        options: names of the options that determine this size.

    Raises:
        UserError: the arrays do not fit.
    """
    from harness.places.machine import memory_bytes

    there = memory_bytes()
    if num_bytes > there:
        raise UserError(
            f"{options} must be so small that the arrays fit into the {there / 1e9:.0f} GB of "
            f"memory, got {num_bytes / 1e9:.0f} GB: try smaller numbers"
        )


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark, and end the process with its exit code.

    A mistake of the user is printed as one line, and the exit code is then 2. If the benchmark has
    started a command that fails, the exit code is the exit code of this command.
    """

    def guarded() -> int | None:
        try:
            return main()
        except subprocess.CalledProcessError as error:
            # A command whose output was not captured has printed its error itself.
            if error.stderr:
                print_error(error.stderr.strip().splitlines()[-1].removeprefix("error: "))
            return error.returncode

    run_command(guarded, mistakes=(UserError, OSError))
