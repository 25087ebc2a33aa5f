"""Fixtures for the harness tests: type command lines, compose configurations, restore state."""

import logging
import signal
import sys

import pytest

from harness import scale
from harness.config.command import run_command
from harness.config.compose import checked, compose_overrides


@pytest.fixture(autouse=True)
def _own_log():
    """Restore all loggers. A run sends their messages to the test's stderr; Hydra disables some."""
    for name in ("harness", "ray"):
        logging.getLogger(name)  # creates the logger, so that the loop below saves it too
    root = logging.getLogger()
    all_loggers = [
        one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)
    ]
    before = [
        (one, one.level, one.handlers[:], one.disabled, one.propagate)
        for one in (root, *all_loggers)
    ]
    yield
    for one, level, handlers, disabled, propagate in before:
        one.setLevel(level)
        one.handlers[:] = handlers
        one.disabled, one.propagate = disabled, propagate


@pytest.fixture(autouse=True)
def _own_signals():
    """Restore the handlers of signals, which commands set until their process ends."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.fixture
def composed():
    """A function that composes and checks the configuration of command-line overrides."""

    def compose_from(*overrides):
        return checked(compose_overrides(overrides))

    return compose_from


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """A function that runs a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    # The report takes seconds in a separate process. Only the tests of the script write it.
    monkeypatch.setattr(scale, "write_reports", lambda run_dirs: None)

    def type_in(job, *arguments):
        monkeypatch.setattr(sys, "argv", [job.__file__, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(job.JOB)
        return ended.value.code, *capsys.readouterr()

    return type_in
