"""Many quick signals end a command once: exit code 130, and everything is closed."""

import signal
import subprocess
import sys
import time

import pytest

from harness.config import signals
from harness.config.signals import SECONDS_TO_END, stop_on_signals
from patience import PATIENCE

# Its end takes a moment, as Ray's does.
COMMAND = """
import sys, time
from pathlib import Path
from harness.config.command import run_command
from harness.storage.lock import run_lock

def command(arguments):
    with run_lock(Path(arguments[0])):
        try:
            print("working", flush=True)
            time.sleep(1000)
        finally:
            print("closing", flush=True)
            time.sleep(0.5)
            print("closed", flush=True)

run_command(command)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_a_command_is_not_broken_off(first, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "working\n"
    assert (tmp_path / "lock").read_text() != ""
    process.send_signal(first)
    assert process.stdout.readline() == "closing\n"
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(sent)
        time.sleep(0.05)
    said, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (130, "closed\n")
    assert "Traceback" not in errors
    assert (tmp_path / "lock").read_text() == ""


def test_signals_while_the_interpreter_ends_change_no_exit_code():
    source = """
import time
from harness.config.command import run_command

run_command(lambda arguments: print("working", flush=True) or time.sleep(1000))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "working\n"
    while process.poll() is None:  # so one of the signals comes after the last Python code
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0005)
    said, errors = process.communicate()
    assert (process.returncode, said, errors) == (130, "", "stopped\n")


def test_an_end_that_takes_too_long_can_be_stopped(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    stop_on_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    now[0] += SECONDS_TO_END
    signal.raise_signal(signal.SIGTERM)  # ignored
    now[0] += 0.1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
