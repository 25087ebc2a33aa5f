"""Fixtures for the harness tests: type command lines, compose configurations, restore state.

A start of a run measures matrix products, rehearses all kernels and waits for the disk. All three
take longer than the work of a small run, so the fixture `_quick_starts` replaces them.
"""

import logging
import os
import signal
import sys

import pytest

from composing import configured, remembered
from harness.config import commandline
from harness.config.command import run_command
from harness.driver import together
from harness.reporting import html
from harness.run import products
from harness.run.products import ProductRates

COMPOSE_ONCE = remembered(commandline.compose_overrides)
RATES = ProductRates(float32=2.0, bfloat16=1.0, device="cpu")


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
        if one.level != level:  # setLevel clears the caches of all loggers, which is slow
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


@pytest.fixture(scope="module", autouse=True)
def _quick_starts():
    """Make runs in this process quick, where the test has another subject.

    `train.dtype=auto` is float32, without a measurement. Kernels are not rehearsed, so each one
    compiles when it is first called. A flush to the disk only checks that its file is open. The
    scope is the module, so that the runs of a module's fixtures are quick too.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(products, "measure_rates", lambda *_: RATES)
        patched.setattr(together, "compile_kernels", lambda *_: None)
        patched.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture
def composed():
    """A function that composes and checks the configuration of command-line overrides."""
    return configured


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """A function that runs a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    # The report takes seconds in a separate process. Only the tests of the script write it.
    monkeypatch.setattr(html, "write_reports", lambda run_dirs: None)
    monkeypatch.setattr(commandline, "compose_overrides", COMPOSE_ONCE)

    def type_in(job, *arguments):
        monkeypatch.setattr(sys, "argv", [job.__file__, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(job.JOB)
        return ended.value.code, *capsys.readouterr()

    return type_in
