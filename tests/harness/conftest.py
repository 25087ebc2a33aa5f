"""What tests of the harness share: a command line, and the log given back."""

import logging
import sys

import pytest
from hydra import compose, initialize_config_module

from harness import scale
from harness.config.commandline import from_hydra, main_guard


@pytest.fixture(autouse=True)
def _own_log():
    """Give the log back as it was: a run points it at this test's stderr, Hydra switches it off."""
    for name in ("harness", "ray"):
        logging.getLogger(name)  # so that it is among those that there are
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


@pytest.fixture
def composed():
    """Compose a configuration from overrides as they are typed, checked."""

    def compose_from(*overrides):
        with initialize_config_module("harness.conf", version_base="1.3"):
            return from_hydra(compose("config", overrides=list(overrides)))

    return compose_from


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Type a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    # The report takes seconds, in a process of its own; tests of the script itself have it.
    monkeypatch.setattr(scale, "write_report", lambda run_dir: None)

    def type_in(job, *arguments):
        monkeypatch.setattr(sys, "argv", [job.__file__, *arguments])
        capsys.readouterr()
        try:
            # Searches look at the command line first.
            getattr(job, "guarded_main", lambda: main_guard(job.main))()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return type_in
