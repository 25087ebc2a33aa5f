import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from harness import scale
from harness.storage.lock import run_lock

SCALE = Path(scale.__file__)
SMALL = (
    *("data=digits", "tasks=3", "executor=serial", "train.steps=1", "train.batch_size=8"),
    *("evaluate.tasks=1", "evaluate.batches=1", "evaluate.algorithms=[max_logit]"),
)


@pytest.fixture
def cli(typed):
    """A command line of the main job."""
    return lambda *arguments: typed(scale, *arguments)


@pytest.fixture
def refused(cli):
    """Type a command line that is refused: its one line, without "error: "."""

    def type_in(*arguments):
        code, out, err = cli(*SMALL, *arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        return err.removeprefix("error: ").rstrip("\n")

    return type_in


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def left(folder):
    """Files below a folder, but for locks, which any start leaves."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    )


# What is typed, and what the line must say: expected, got, to do.
REFUSED = {
    "tasks=0": ["tasks must be a whole number >= 1", "got 0", "try tasks=1"],
    "tasks=-3": ["tasks must be a whole number >= 1", "got -3", "try tasks=1"],
    "tasks=abc": ["tasks must be a whole number", "got 'abc'", "--cfg job"],
    "tasks=2.5": ["tasks must be a whole number", "got 2.5"],
    "tasks=null": ["tasks must be a whole number", "got null"],
    "tasks=": ["tasks must be a whole number", "got ''"],
    "tasks": ["options must be key=value", "got 'tasks'", "--cfg job"],
    "=3": ["options must be key=value", "got", "=3"],
    "tasks=[1": ["options must be key=value", "got 'tasks=[1'"],
    "--frobnicate": ["options must be key=value", "got --frobnicate"],
    "tsks=3": ["unknown key tsks", "did you mean tasks?"],
    "+tsks=3": ["unknown key tsks", "did you mean tasks?"],
    "+train.stps=3": ["unknown key train.stps", "did you mean train.steps?"],
    "evaluate.chekpoints=[3]": ["unknown key evaluate.chekpoints", "mean evaluate.checkpoints?"],
    "trian.steps=3": ["unknown key trian", "did you mean train?"],
    "zzz=3": ["unknown key zzz", "--cfg job"],
    "train=foo": ["train must be one of", "paper", "got 'foo'"],
    "train=3": ["train the name of a recipe", "train=3"],
    "~train": ["train.name", "missing"],
    "tasks=${oc.env:NO_SUCH_VARIABLE}": ["tasks: ", "NO_SUCH_VARIABLE"],
    "evaluate=3": ["evaluate must be set key by key", "got 3"],
    "hidden=[20]": ["unknown key hidden", "--cfg job"],
    "method_options=3": ["method_options must be names with values such as {density: 0.3}", "3"],
    "method_options=null": ["method_options must be names with values", "got null"],
    "method_optoins.density=0.3": ["unknown key method_optoins", "did you mean method_options?"],
    "method_options={a.b:3}": ["method_options must have names such as density", "got 'a.b'"],
    "quiet=perhaps": ["quiet must be true or false", "got 'perhaps'"],
    "data=mnist6k": ["data must be one of", "digits", "got 'mnist6k'", "mean data=mnist5k?"],
    "network=lenet": ["network must be one of", "mlp", "got 'lenet'", "network=lenet_300_100"],
    "method=foo": ["method must be one of threshold", "got 'foo'", "method=threshold"],
    "family=permuted2": ["family must be one of", "split", "mean family=permuted?"],
    "executor=dask": ["executor must be one of ray, serial", "got 'dask'"],
    "evaluate.algorithms=[foo]": ["evaluate.algorithms must be one of", "got 'foo'"],
    "evaluate.objectives=[K]": ["evaluate.objectives must be one of H, G", "got 'K'"],
    "evaluate.checkpoints=[2,4]": ["lie in [1, tasks] = [1, 3]", "got [4]", "raise tasks"],
    "evaluate.checkpoints=[0]": ["lie in [1, tasks] = [1, 3]", "got [0]"],
    "evaluate.checkpoints=foo": ["must be auto or a list of whole numbers", "got 'foo'"],
    "evaluate.checkpoints=[true]": ["must be auto or a list of whole numbers", "got [True]"],
    "evaluate.batches=-1": ["batches must be null or a whole number >= 1", "got -1", "try"],
    "evaluate.algorithms=one_shot": ["must be auto or a list of names such as", "got 'one_shot'"],
    "evaluate.num_images=0": ["num_images must be auto or a whole number >= 1", "got 0", "=auto"],
    "evaluate.num_images=foo": ["num_images must be auto or a whole number >= 1", "got foo"],
    "evaluate.num_images=129": ["num_images must be at most evaluate.batch_size = 128", "got 129"],
    "evaluate.distractors=-1": ["distractors must be a whole number >= 0", "got -1", "try"],
    "evaluate.log_base=1": ["evaluate.log_base must be a whole number >= 2", "got 1", "try"],
    "evaluate.steps=0": ["evaluate.steps must be a whole number >= 1", "got 0", "try"],
    "evaluate.rate=0": ["evaluate.rate must be > 0", "got 0"],
    "evaluate.rate=inf": ["evaluate.rate must be > 0", "got inf"],
    "evaluate.rate=nan": ["evaluate.rate must be > 0", "got nan"],
    "train.steps=0": ["train.steps must be a whole number >= 1", "got 0", "try train.steps=1"],
    "train.block=0": ["train.block must be auto or a whole number >= 1", "got 0", "try"],
    "train.block=foo": ["train.block must be auto or a whole number >= 1", "got foo", "=auto"],
    "train.learning_rate=inf": ["train.learning_rate must be > 0", "got inf"],
    "train.smoothing=1": ["train.smoothing must be in [0, 1)", "got 1"],
    "train.temperature=0": ["train.temperature must be > 0", "got 0"],
    "train.temperature=-0.5": ["train.temperature must be > 0", "got -0.5"],
    "train.temperature=inf": ["train.temperature must be > 0", "got inf"],
    "train.temperature=nan": ["train.temperature must be > 0", "got nan"],
    "train.optimizer=adma": [
        *("train.optimizer must be one of rmsprop, adam, sgd", "got 'adma'"),
        "mean train.optimizer=adam?",
    ],
    "train.momentum=0.9": [
        *("train.momentum goes with adam and sgd", "got 0.9 with rmsprop"),
        "leave it out, or try train.optimizer=adam",
    ],
    "train.optimizer=adam train.momentum=1": ["train.momentum must be in [0, 1)", "got 1"],
    "train.optimizer=sgd train.momentum=-0.1": ["train.momentum must be in [0, 1)", "got -0.1"],
    "train.momentum=nan": ["train.momentum must be in [0, 1)", "got nan"],
    "train.momentum=much": ["train.momentum", "got 'much'"],
    "train.weight_decay=-1": ["train.weight_decay must be >= 0", "got -1", "=1e-4"],
    "train.weight_decay=nan": ["train.weight_decay must be >= 0", "got nan"],
    "train.dtype=int8": ["train.dtype must be one of float32, bfloat16", "got 'int8'"],
    "actors.gpus=0": ["actors.gpus must be in (0, 1]", "got 0"],
    "actors.evaluate=0": ["actors.evaluate must be auto or a whole number >= 1", "got 0"],
    "seed=-1": ["seed must be a whole number >= 0", "got -1", "try seed=0"],
    "run_dir=ftp://bucket/run": ["run_dir must be a folder, s3://BUCKET/FOLDER or", "got ftp://b"],
    "run_dir=s3://bucket": ["run_dir must be a folder, s3://BUCKET/FOLDER or", "got s3://bucket"],
    "family=split tasks=6": ["tasks must be at most 5", "family=split", "got 6"],
    "evaluate.algorithms=[]": ["algorithms must have a name at least", "got []", "[one_shot]"],
    "evaluate.algorithms=[binary] evaluate.objectives=[]": ["evaluate.objectives must", "got []"],
    "evaluate.algorithms=[frank_wolfe] evaluate.objectives=[]": ["evaluate.objectives must have"],
    "evaluate.algorithms=[max_logit,binary,max_logit]": [
        *("evaluate.algorithms must have each name once", "got [max_logit,binary,max_logit]"),
        "try evaluate.algorithms=[max_logit,binary]",
    ],
    "evaluate.objectives=[H,H]": ["each name once", "got [H,H]", "try evaluate.objectives=[H]"],
    "-m seed=1,2": ["options must give one run", "got --multirun", "type one command a value"],
    "--multirun tasks=3": ["options must give one run", "type one command a value"],
    "seed=1,2": ["options must have one value", "got seed=1,2", "one command a value", "key=[a,b]"],
    "seed=range(1,3)": ["options must have one value", "got seed=range(1,3)", "one command"],
    "outputs=9": ["outputs must be at least 10", "classes of digits", "got 9"],
    "outputs=10 evaluate.objectives=[H,G_first_layer]": ["objective G_first_layer needs", "[H]"],
    "outputs=10": ["objective G needs superfluous neurons", "outputs=10", "objectives=[H]"],
}


@pytest.mark.parametrize("line_typed", REFUSED)
def test_what_no_run_can_have_is_refused_in_one_line(line_typed, refused, tmp_path):
    line = refused(*line_typed.split())
    for part in REFUSED[line_typed]:
        assert part in line
    assert left(tmp_path) == []


def test_missing_data_names_the_embedded_sets(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = refused("data=mnist", "download=false")
    assert "data=mnist needs train-images-idx3-ubyte" in line
    assert str(tmp_path / "cache") in line
    assert "set download=true" in line
    assert "data=mnist5k or data=digits" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("run_dir", "reason"),
    [
        ("file/run", "lies below a file"),
        ("file", "is a file, not a folder"),
        ("n" * 300, "has too long a name"),
        ("/proc/nope", "cannot be made there"),
        ("/sys/nope", "may not be written by this user"),
    ],
)
def test_a_run_dir_that_cannot_be_is_refused(run_dir, reason, refused, tmp_path):
    if run_dir.startswith("/") and not Path(run_dir).parent.is_dir():
        pytest.skip(f"{run_dir} is refused on Linux only")
    (tmp_path / "file").write_text("precious")
    line = refused(f"run_dir={run_dir}")
    assert line.startswith(f"run directory {tmp_path / run_dir} ")
    if run_dir != "/sys/nope":  # read-only in a container, forbidden outside
        assert reason in line
    assert line.endswith("choose another run_dir")
    assert left(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_a_full_disk_is_refused_before_anything_is_written(refused, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5, 5_000_000))
    line = refused("run_dir=run")
    assert f"run directory {tmp_path / 'run'} needs" in line
    assert "got 5 MB of free disk" in line
    assert "free some, or choose another run_dir" in line
    assert left(tmp_path) == []


def test_a_run_that_another_process_works_on_is_refused(refused, tmp_path):
    with run_lock(tmp_path / "run"):
        line = refused("run_dir=run")
    assert f"run directory {tmp_path / 'run'} is in use by process {os.getpid()}" in line
    assert f"on host {socket.gethostname()}" in line
    assert "choose another run_dir" in line
    assert left(tmp_path) == []


@pytest.fixture
def finished(cli, tmp_path):
    """A whole small run in run_dir=run."""
    code, _, err = cli(*SMALL, "run_dir=run")
    assert code == 0, err
    return tmp_path / "run"


def content(folder):
    return {name: (folder / name).read_bytes() for name in left(folder)}


def test_another_configuration_is_refused_with_old_and_new_values(finished, refused):
    before = content(finished)
    line = refused("run_dir=run", "train.steps=2", "seed=7")
    assert "train.steps is 1 there, 2 here" in line
    assert "seed is 0 there, 7 here" in line
    assert "choose another run_dir" in line
    assert content(finished) == before


def test_masks_without_a_config_are_refused(finished, refused):
    (finished / "config.yaml").unlink()
    before = content(finished)
    line = refused("run_dir=run")
    assert line.startswith(f"run directory {finished} holds masks")
    assert "no config.yaml" in line
    assert "put it back, or choose another run_dir" in line
    assert content(finished) == before


def test_a_start_that_ended_before_its_config_leaves_the_folder_free(finished, cli):
    (finished / "config.yaml").unlink()
    for written in ("log", "evaluations", "masks.zarr/masks/c"):
        shutil.rmtree(finished / written)
    code, out, err = cli(*SMALL, "run_dir=run", "tasks=2", "seed=7")
    assert code == 0, err
    assert "2 masks" in out


def test_checkpoints_may_be_typed_in_any_order(cli):
    for _ in range(2):
        code, _, err = cli(*SMALL, "run_dir=run", "evaluate.checkpoints=[3,2,3]")
        assert code == 0, err


def test_what_changes_no_result_may_be_typed_anew(finished, cli):
    code, out, err = cli(*SMALL, "run_dir=run", "quiet=true", "actors.train=2")
    assert code == 0, err
    assert "complete already" in err
    assert "3 masks" in out
    assert len(json.loads((finished / "provenance.json").read_text())["starts"]) == 2


@pytest.mark.parametrize(
    "broken",
    [
        b"tasks: [3",
        b"tasks: many\n",
        b"tasks: 3\nflavour: sweet\n",
        b"just words",
        b"- 1\n- 2\n",
        b"",
        b"\xff\xfe\x00\x80",
        b"tasks: 3\ntrain: {name: paper, steps: 1, batch_size: 8, learning_rate: 1e-4,"
        b" smoothing: 0.99, decay: none, dtype: float32, block: nonsense}\n",
    ],
)
def test_a_broken_config_is_refused_by_name(broken, refused, tmp_path):
    path = tmp_path / "run" / "config.yaml"
    path.parent.mkdir()
    path.write_bytes(broken)
    line = refused("run_dir=run")
    assert line.startswith(f"{path} is not a run's configuration: ")
    assert line.endswith("put it back, or choose another run_dir")
    assert left(tmp_path) == ["run/config.yaml"]
    assert path.read_bytes() == broken


@pytest.mark.slow
def test_more_actors_than_processors_are_refused(refused, ray_session):
    line = refused("run_dir=run", "executor=ray", "actors.train=99")
    assert "actors.train must be at most 2" in line
    assert "Ray has 2 CPUs" in line
    assert "got 99: lower it, or leave it at auto" in line


def test_cfg_job_prints_the_configuration_and_runs_nothing(cli, tmp_path):
    code, out, err = cli("--cfg", "job", "tasks=7")
    assert (code, err) == (0, "")
    assert "tasks: 7\n" in out
    assert "  steps: 1000\n" in out
    assert names(tmp_path) == []


def test_help_shows_the_recipes_and_runs_nothing(cli, tmp_path):
    code, out, err = cli("--help")
    assert (code, err) == (0, "")
    assert re.search(r"^train: (\w+, )*paper\b", out, re.MULTILINE)
    assert names(tmp_path) == []


def test_a_run_leaves_nothing_but_its_directory(cli, tmp_path):
    code, _, err = cli(*SMALL)
    assert code == 0, err
    assert names(tmp_path) == ["runs"]
    assert names(tmp_path / "runs") == ["digits-permuted-3"]


def test_run_dir_is_taken_from_where_the_command_is_typed(cli, tmp_path):
    code, out, err = cli(*SMALL, "run_dir=there/run")
    assert code == 0, err
    assert names(tmp_path) == ["there"]
    assert str(tmp_path / "there" / "run") in out


def in_a_shell(folder, *arguments):
    command = [sys.executable, str(SCALE), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_script_runs_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "3 masks" in done.stdout
    assert names(tmp_path) == ["runs"]
    [report] = tmp_path.glob("runs/*/report.html")  # by the process that the script starts
    assert "Configuration and provenance" in report.read_text()


def test_the_script_is_refused_in_one_line_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, "tasks=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: tasks must be a whole number >= 1, got 0: try tasks=1\n"
    assert names(tmp_path) == []


def test_the_script_prints_its_configuration_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tasks: 32\n")
    assert names(tmp_path) == []
