"""The program `supermask` runs each command by its name."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness import supermask
from harness.config.calls import as_called
from harness.config.command import run_command
from patience import PATIENCE


@pytest.fixture
def called(monkeypatch, capsys, tmp_path):
    """A function that runs `supermask` in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["/venv/bin/supermask", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(supermask.command)
        return ended.value.code, *capsys.readouterr()

    return call


def test_help_lists_each_command_with_what_it_does(called):
    code, out, err = called("--help")
    assert (code, err) == (0, "")
    listed = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert list(listed) == ["scale", "evaluate", "recall", "tune", "status", "report"]
    assert "Evaluate an existing run with other settings." in listed["evaluate"]
    assert all(len(line.split()) > 5 for line in listed.values())


def test_the_version_is_that_of_the_other_commands(called):
    version = called("--version")
    assert version[0] == 0
    assert version == called("status", "--version") == called("scale", "--version")
    assert version == called("report", "--version")


@pytest.mark.parametrize("typed", [["skale", "tasks=8"], [], ["tasks=8"]])
def test_an_unknown_command_is_one_line(called, typed):
    assert called(*typed) == (
        2,
        "",
        "error: command must be one of scale, evaluate, recall, tune, status, report, got "
        f"{typed[0] if typed else 'nothing'}: type supermask --help\n",
    )


def test_commands_get_their_arguments_and_name_themselves_as_typed(called):
    code, out, _ = called("scale", "--help")
    assert code == 0
    assert out.startswith("usage: supermask scale [KEY=VALUE ...]")
    assert "python harness/" not in out
    code, _, err = called("status", "run_dir=nowhere")
    assert code == 2
    assert err.endswith("or start a run with supermask scale\n")
    code, _, err = called("scale", "tasks=0")
    assert (code, err) == (2, "error: tasks must be a whole number >= 1, got 0: try tasks=32\n")
    code, _, err = called("report", "nowhere")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    code, out, _ = called("report", "--help")
    assert out.startswith("usage: supermask report")
    assert "python -m" not in out


def test_texts_name_files_if_a_file_was_called(monkeypatch):
    text = "type python harness/scale.py, harness/status.py or python -m analysis.report RUN"
    monkeypatch.setattr(sys, "argv", ["harness/scale.py", "supermask"])
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["/usr/bin/supermask", "scale"])
    assert as_called(text) == "type supermask scale, supermask status or supermask report RUN"


def test_status_starts_without_the_large_packages(tmp_path):
    code = (
        "import sys; sys.argv = ['supermask', 'status', 'run_dir=nowhere']\n"
        "from harness.supermask import main\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, {'torch', 'ray', 'hydra', 'pandas', "
        "'scipy', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(supermask.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "2 set()\n", done.stderr
