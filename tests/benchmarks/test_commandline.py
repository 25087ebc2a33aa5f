"""Every program refuses every bad value in one line, before it does any work."""

import json
import runpy
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(
    path.stem for path in FOLDER.glob("*.py") if "\nif __name__ ==" in path.read_text()
)
BAD_NUMBERS = ("", "x", "nan", "inf", "-1", "1e999", "9" * 400)
# Options without a limit of their own: the program, or the configuration, checks their values.
CHECKED_LATER = {
    *("benchmark", "command", "grid", "options", "others", "figure", "stream"),
    *("recipe", "network", "dtype", "block"),
}


@pytest.fixture(autouse=True)
def _siblings(monkeypatch):
    """Let the programs import their sibling modules, as they do when they are started."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Return a function that starts a program in this process: arguments -> its line of error."""
    monkeypatch.chdir(tmp_path)

    def start(program, *typed):
        monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{program}.py"), *typed])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(sys.argv[0], run_name="__main__")
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ")
        assert ": " in err.removeprefix("error: "), "no advice"
        return err

    return start


@pytest.fixture
def options_of(monkeypatch):
    """Return a function: program -> the options that its parser has."""
    import commandline

    class Seen(Exception):  # noqa: N818, it is no error
        pass

    def seen(parser, *_):
        raise Seen(parser._actions)

    monkeypatch.setattr(commandline.Parser, "parse_known_args", seen)

    def options(program):
        with pytest.raises(Seen) as caught:
            runpy.run_path(str(FOLDER / f"{program}.py"))["main"]()
        return caught.value.args[0]

    return options


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_a_type_with_limits(program, options_of):
    from commandline import figure_file, file, folder

    paths = (figure_file, file, folder)
    for option in options_of(program):
        if option.nargs == 0 or option.choices or option.dest in CHECKED_LATER:
            continue
        assert option.type is not None, option.dest
        for text in ("nowhere/x", "") if option.type in paths else BAD_NUMBERS:
            with pytest.raises(ArgumentTypeError, match=r"must .*, got .*: try "):
                option.type(text)
        if option.type not in paths and option.default is not None:
            for value in option.default if isinstance(option.default, list) else [option.default]:
                assert option.type(str(value)) == value


# Program, arguments, and a part of the line. RUN is an empty folder.
REFUSED = [
    ("between", ["--rounds", "1"], "are required: --before: try --help"),
    ("between", ["--before", "nope", "x.py"], "--before must be an existing folder, got 'nope'"),
    ("between", ["--before", "."], "benchmark must be a program and its arguments, got none"),
    ("between", ["--before", ".", "--rounds", "0", "x"], "--rounds must be a whole number in [1,"),
    (
        "capacities",
        ["--dim", "1"],
        "--dim must be a whole number in [64, 1000000000], got 1: ",
    ),
    ("capacities", ["--dim", "100000000"], "--dim must be so small that the arrays fit into"),
    ("capacities", ["--seeds", "0"], "--seeds must be"),
    ("chaos", ["--seconds", "nan"], "--seconds must be a number in (0, 1000000], got nan: try 0.5"),
    ("chaos", ["--seconds", "0"], "--seconds must be"),
    ("fuzz", ["--cases", "0"], "--cases must be a whole number in [1, 1000000000], got 0"),
    (
        "chaos",
        ["--tasks", "0"],
        "--tasks must be a whole number in [8, 1000000000], got 0: ",
    ),
    ("chaos", ["--steps", "-1"], "--steps must be"),
    ("driver_scale", ["--tasks", "0"], "--tasks must be a whole number in [1, 1000000000], got 0"),
    ("driver_scale", ["--tasks", "9", "9"], "--tasks must be different numbers, got [9, 9]"),
    ("driver_scale", ["--actors", "0"], "--actors must be"),
    ("driver_scale", ["--folder", "nope"], "--folder must be an existing folder, got 'nope'"),
    ("driver_scale", ["--one", "data=nope"], "data must be one of mnist5k, "),
    ("driver_scale", ["--one", "frobnicate=1"], "got frobnicate"),
    ("fused_steps", ["--rounds", "0"], "--rounds must be a whole number in [1, 1000000000], got 0"),
    ("fused_steps", ["--method", "nope"], "--method: invalid choice: 'nope'"),
    ("fused_steps", ["--method", "wsn"], "--method must have a fused step with these options, got"),
    ("fused_steps", ["train.block=0"], "train.block must be"),
    ("fused_steps", ["train.augment=crop"], "--method must have a fused step with these"),
    ("gpu", ["train", "--tasks", "0"], "--tasks must be a whole number in [1, 1000000000], got 0"),
    ("gpu", ["train", "--data", "nope"], "--data must be an existing file, got 'nope'"),
    ("open_pages", [], "are required: pages"),
    ("open_pages", ["nope"], "pages must be an existing file, got 'nope'"),
    ("growth", ["nope", "f.svg"], "rows must be an existing file, got 'nope'"),
    ("growth", ["empty", "f.svg"], "must hold rows of benchmarks/inference.py --growth, got none"),
    ("growth", ["other", "f.svg"], "must hold rows of benchmarks/inference.py --growth, got none"),
    ("growth", ["empty", "f.xyz"], "figure must end in one of"),
    ("inference", ["--run", "nope"], "--run must be an existing folder, got 'nope'"),
    ("inference", ["--run", "."], "config.yaml"),
    ("inference", ["--growth", "f.xyz"], "--growth must end in one of"),
    ("inference", ["--stream", "s"], "--stream must be given with --growth"),
    ("module_step", ["--tasks", "0"], "--tasks must be"),
    ("module_step", ["--batch", "0"], "--batch must be"),
    ("module_step", ["--tasks", "1000000000"], "--tasks and --batch must be so small"),
    ("overhead", ["--tasks", "1", "data=digits"], "--tasks must be more than one block of "),
    ("overhead", ["data=nope"], "data must be one of mnist5k, "),
    ("overhead", ["--rounds", "0"], "--rounds must be"),
    ("peak_memory", ["--every", "0", "true"], "--every must be a number in (0, 3600], got 0"),
    ("peak_memory", ["nosuchcommand"], "No such file or directory: 'nosuchcommand'"),
    ("recipes", ["foo"], "grid must be KEY=VALUE,VALUE,..., got foo: try steps=100,200"),
    ("recipes", ["steps=1", "steps=2"], "grid must have each key once"),
    ("recipes", ["steps=0", "--data", "digits"], "train.steps must be"),
    ("recipes", ["stps=9", "--data", "digits"], "got train.stps: try train.steps=1000"),
    ("recipes", ["--tasks", "2", "steps=9"], "--tasks must be a whole number in [3,"),
    ("reservoir_speed", ["--flipped", "nan"], "--flipped must be a number in [0, 1], got nan"),
    ("reservoir_speed", ["--dim", "0"], "--dim must be"),
    ("reservoir_speed", ["--dim", "900000000"], "--dim and --patterns must be so small"),
    ("reservoir_speed", ["--rules", "nope"], "--rules: invalid choice: 'nope'"),
    (
        "reservoirs",
        ["--dim", "0"],
        "--dim must be a whole number in [32, 1000000000], got 0: ",
    ),
    ("reservoirs", ["--dim", "900000000"], "--dim must be so small"),
    ("reservoirs", ["--flipped", "2"], "--flipped must be"),
    ("reservoirs", ["--seed", "-1"], "--seed must be"),
    ("reservoirs", ["--figure", "f.xyz"], "--figure must end in one of"),
    ("resnet", ["--tasks", "0"], "--tasks must be a whole number in [1, 1000000000], got 0"),
    ("resnet", ["--rounds", "0"], "--rounds must be"),
    ("savings", ["--data", "nope"], "--data: invalid choice: 'nope'"),
    ("savings", ["--data", "digits", "--recipe", "nope"], "train must be one of"),
    ("savings", ["--rounds", "0"], "--rounds must be"),
    ("statistics_of_tasks", ["--run", "nope"], "--run must be an existing folder, got 'nope'"),
    ("statistics_of_tasks", ["--run", "."], "config.yaml"),
    ("statistics_of_tasks", ["--run", ".", "--tasks", "1"], "--tasks must be a whole number in [2"),
    ("streaming", ["--run", ".", "--stream", "s"], "config.yaml"),
    ("streaming", ["--threads", "0", "--stream", "s"], "--threads must be"),
    ("transfer", ["--tasks", "2"], "--tasks must be a whole number in [3, 10000], got 2"),
    ("transfer", ["--target", "0"], "--target must be a number in (0, 1], got 0"),
    ("transfer", ["--ways", "none"], "--ways: invalid choice: 'none'"),
    ("transfer", ["data=nope"], "data must be one of mnist5k, "),
    ("transfer", ["method=lower_bound", "data=digits"], "train.transfer must be none with method"),
    ("trained_networks", ["--epochs", "0", "tasks=1"], "--epochs must be a whole number in [1,"),
    ("trained_networks", ["--rate", "0", "tasks=1"], "--rate must be a number > 0, got 0"),
    ("trained_networks", ["data=nope"], "data must be one of mnist5k, "),
    ("train", ["--data", "nope"], "--data: invalid choice: 'nope'"),
    ("train", ["--data", "digits", "--recipe", "nope"], "train must be one of"),
    ("train", ["--data", "digits", "--network", "nope"], "network must be"),
    ("train", ["--data", "mnist5k", "--network", "small_conv"], "--network must be an MLP"),
    ("train", ["--data", "digits", "--outputs", "5"], "outputs must be at least 10"),
    ("train", ["--data", "digits", "--block", "0"], "train.block must be"),
    ("train", ["--data", "digits", "--dtype", "int8"], "train.dtype must be"),
    ("train", ["--rounds", "0"], "--rounds must be"),
    ("train", ["--frobnicate"], "unrecognized arguments: --frobnicate: try --help"),
]


@pytest.mark.parametrize(
    ("program", "typed", "said"), REFUSED, ids=[" ".join([p, *t])[:60] for p, t, _ in REFUSED]
)
def test_a_bad_value_is_one_line_and_code_2(program, typed, said, refused, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text('{"algorithm": "one_shot"}\n')
    assert said in refused(program, *typed)


def test_every_program_is_tried():
    assert {program for program, _, _ in REFUSED} == {*PROGRAMS}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "got tasks_per_hour: try one of another benchmark"),
        ([{"form": "ours", "seconds": 1, "bytes": 0}], "got tasks_per_hour: try one of seconds\n"),
    ],
)
def test_a_figure_that_is_not_printed_is_refused(rows, said, refused, tmp_path):
    lines = "".join(f"print({json.dumps(row)!r})\n" for row in rows)
    (tmp_path / "bench.py").write_text(lines)
    typed = ["--before", str(tmp_path), "--rounds", "1", str(tmp_path / "bench.py")]
    assert said in refused("between", *typed)


def test_a_command_that_fails_is_said_once(capsys):
    from commandline import run_program

    command = ["sh", "-c", "echo starting >&2; echo error: data must be here >&2; exit 2"]
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: subprocess.run(command, check=True, capture_output=True, text=True))
    assert (ended.value.code, capsys.readouterr().err) == (2, "error: data must be here\n")


def test_a_number_of_tasks_need_not_be_a_multiple_of_the_block(monkeypatch):
    import recipes

    class Worker:
        def __init__(self, *_, **__):
            pass

        def run(self, unit):
            ones = np.ones(len(unit.missing))
            table = pa.table({"accuracy": ones, "density": ones / 2})
            return SimpleNamespace(rows=np.zeros((len(ones), 3), np.uint8), tasks=table)

    def slopes(spec, test, rows, objective):
        asked = np.repeat(np.arange(len(rows)), recipes.QUERIES_A_TASK)
        return np.random.default_rng(0).random((len(asked), len(rows)), np.float32)

    monkeypatch.setattr(recipes, "TrainWorker", Worker)
    monkeypatch.setattr(recipes, "_slopes", slopes)
    found = recipes.try_recipe({"steps": "2"}, "digits", recipes.BLOCK + 1)
    assert len(found.accuracies) == recipes.BLOCK + 1
    assert all(0 <= share <= 1 for shares in found.task_accuracy.values() for share in shares)
