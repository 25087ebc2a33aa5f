"""The text of an error names the line of the user's code."""

import sysconfig
import tempfile

import pytest

import shape_checks
from harness import errors
from harness.errors import Failure, keep_traceback, origin
from supsup_core import streams
from supsup_core.streams import Role, stream
from supsup_core.tasks.make import make_task
from supsup_core.tasks.protocol import Setting

LIBRARY = f"{sysconfig.get_path('stdlib')}/json/decoder.py"
PACKAGE = "/venv/lib/python3.11/site-packages/torch/nn/functional.py"


def caught(function):
    with pytest.raises(Exception) as found:
        function()
    return Failure.of(found.value)


class Mine:
    """A family as a user writes it."""

    def make(self, task_id, setting):
        raise KeyError(task_id)

    def max_tasks(self, num_classes):
        return None


def test_the_line_is_that_of_the_user_s_code_below_the_project_s():
    failure = caught(lambda: make_task(Mine(), 3, Setting(0, 9, (8, 8), 10)))
    assert failure.line == f"KeyError: 3 ({__file__}, line {Mine.make.__code__.co_firstlineno + 1})"
    assert failure.traceback.endswith("KeyError: 3\n")


def test_the_line_is_that_of_the_user_s_code_above_the_project_s(monkeypatch):
    # The tests wrap the functions of the project to check shapes. The wrapper is no code of a user.
    libraries = (*errors._LIBRARIES, shape_checks.__file__)
    monkeypatch.setattr(errors, "_LIBRARIES", libraries)
    failure = caught(lambda: stream(-1, Role.WEIGHTS, 0))
    assert f" ({__file__}, line " in failure.line


def test_files_that_a_user_added_to_the_project_count_if_no_other_does():
    own = streams.__file__
    text = f'  File "{own}", line 7, in a\n  File "{PACKAGE}", line 9, in b\nValueError: x\n'
    assert origin(text) == f" ({own}, line 7)"
    mine = '  File "/home/u/mine.py", line 5, in c\n'
    assert origin(mine + text) == " (/home/u/mine.py, line 5)"


def test_a_library_s_line_is_the_last_resort():
    assert origin(f'  File "{LIBRARY}", line 3, in a\n') == f" ({LIBRARY}, line 3)"
    assert origin("no traceback") == ""


def test_a_message_of_several_lines_is_one_line():
    def fail():
        raise OSError("one\n  two")

    assert caught(fail).line.startswith("OSError: one two (")


def test_an_error_without_a_message_is_named():
    def fail():
        raise NotImplementedError

    assert caught(fail).line.startswith("NotImplementedError (")


def test_a_traceback_is_kept_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = keep_traceback("text")
    assert path.parent == tmp_path
    assert path.read_text() == "text"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert keep_traceback("text") is None
