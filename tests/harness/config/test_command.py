"""Every command ends with an exit code and at most one line, whatever goes wrong."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from harness import scale
from harness.config.command import imported, run_command
from harness.errors import UserError
from patience import PATIENCE

ROOT = Path(scale.__file__).parent


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """Return a function that runs a command: (command, options) -> (exit code, stdout, stderr)."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(command, *arguments):
        monkeypatch.setattr("sys.argv", ["scale.py", *arguments])
        with pytest.raises(SystemExit) as left:
            run_command(command)
        return left.value.code, *capsys.readouterr()

    return run


def divide(arguments):
    return 1 // len(arguments)


class Panic(BaseException):
    """An error of a library in Rust, which is no Exception."""


def test_a_command_gets_the_arguments_and_gives_the_exit_code(ended):
    calls = []
    assert ended(lambda given: calls.append(given) or 7, "tasks=7", "--debug")[0] == 7
    assert calls == [["tasks=7"]]


def test_a_user_error_of_several_lines_is_one_line(ended, tmp_path):
    def fail(_):
        raise UserError("first\nsecond")

    assert ended(fail) == (2, "", "error: first second\n")
    assert list(tmp_path.iterdir()) == []


def test_any_other_error_is_one_line_that_names_the_code_and_a_file(ended, tmp_path):
    code, out, err = ended(divide)
    [file] = tmp_path.iterdir()
    where = f"{__file__}, line {divide.__code__.co_firstlineno + 1}"
    said = f"error: ZeroDivisionError: integer division or modulo by zero ({where}): "
    assert (code, out) == (2, "")
    assert err == f"{said}the traceback is in {file}; --debug prints it\n"
    assert file.read_text().startswith("Traceback (most recent call last):")


def test_debug_prints_the_traceback_once_and_writes_no_file(ended, tmp_path):
    code, _, err = ended(divide, "--debug")
    assert code == 2
    assert err.count("Traceback (most recent call last):") == 1
    assert err.splitlines()[-1].startswith("error: ZeroDivisionError: ")
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_that_cannot_be_kept_is_printed(ended, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    code, _, err = ended(divide)
    assert code == 2
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("error: ZeroDivisionError: ")


def test_a_panic_is_one_line(ended):
    def fail(_):
        raise Panic("at the\nborder")

    code, _, err = ended(fail)
    assert code == 2
    assert err.startswith("error: Panic: at the border (")
    assert err.count("\n") == 1


def test_an_error_during_an_import_is_one_line(ended):
    code, _, err = ended(imported("harness.nowhere:JOB"))
    assert code == 2
    assert err.startswith("error: ModuleNotFoundError: No module named 'harness.nowhere' (")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
def test_ctrl_c_is_130_even_if_a_library_turns_it_into_another_error(ended, error):
    def stop(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    assert ended(stop) == (130, "", "stopped\n")


def command(*arguments, **streams):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)},
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_ctrl_c_during_the_imports_is_one_line(tmp_path):
    # A module of the imports that waits, so that the signal surely arrives in time.
    (tmp_path / "omegaconf.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(60)")
    path = f"{tmp_path}{os.pathsep}{ROOT.parent}"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scale.py")],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "here\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "stopped\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["scale.py", "--cfg", "job"], 0),
        (["scale.py", "--help"], 0),
        (["status.py", "--help"], 0),
        (["status.py", "run_dir=nowhere"], 2),
    ],
)
def test_a_closed_pipe_changes_nothing(arguments, code, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)  # as if `head` had ended
    name, *rest = arguments
    process = command(ROOT / name, *rest, stdout=writer, cwd=tmp_path)
    os.close(writer)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert err.count("\n") == (code != 0)


def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    with Path("/dev/full").open("w") as full:
        process = command(ROOT / "status.py", "--help", stdout=full, cwd=tmp_path)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert err.startswith("error: OSError: [Errno 28]")
    assert err.count("\n") == 1
