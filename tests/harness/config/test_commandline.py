import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import figures, report
from analysis.load import load
from composing import configured
from harness import evaluate, recall, scale, status, tune
from harness.config.command import STOPPED
from harness.config.compose import checked, compose_overrides
from harness.config.identity import run_directory
from harness.config.keys import OPTION_KEYS, is_taken
from harness.config.option import options_of
from harness.config.options import NAMED, options_of_kind
from harness.config.schema import Config
from harness.driver import start
from harness.executors.serial import SerialExecutor
from harness.search.config import TuneJob
from harness.search.sweeps import with_space
from harness.storage.lock import run_lock
from harness.workers.evaluating import EvaluateWorker
from patience import PATIENCE
from supsup_core.methods.threshold import Threshold
from supsup_core.names import METHODS
from supsup_core.tasks.permuted import Permuted

SCALE = Path(scale.__file__)
SMALL = (
    *("data=digits", "tasks=3", "executor=serial", "train.steps=1", "train.batch_size=8"),
    *("evaluate.tasks=1", "evaluate.batches=1", "evaluate.algorithms=[max_logit]"),
)


@pytest.fixture
def cli(typed):
    """Return a function that runs the main job: options -> (exit code, stdout, stderr)."""
    return lambda *arguments: typed(scale, *arguments)


@pytest.fixture
def refused(cli):
    """Return a function that runs a failing command: options -> error line without "error: "."""

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
    """List the files below a folder, except the empty lock of a run that has begun."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not (path.name == "lock" and (path.parent / "config.yaml").exists())
    )


# Typed options -> parts of the error line: the allowed values, the value, the next step.
REFUSED = {
    "tasks=0": ["tasks must be a whole number >= 1", "got 0", "try tasks=32"],
    "tasks=-3": ["tasks must be a whole number >= 1", "got -3"],
    "tasks=abc": ["tasks must be a whole number", "got abc"],
    "tasks=2.5": ["tasks must be a whole number", "got 2.5"],
    "tasks=null": ["tasks must be a whole number", "got null"],
    "tasks=": ["tasks must be a whole number", "got ''"],
    "tasks": ["options must be KEY=VALUE", "got tasks"],
    "=3": ["options must be KEY=VALUE", "got", "=3"],
    "tasks=[1": ["options must be KEY=VALUE", "got tasks=[1"],
    "--frobnicate": ["options must be KEY=VALUE", "unrecognized arguments: --frobnicate"],
    "tsks=3": ["key must be one that --help lists, got tsks", "try tasks=32"],
    "+tsks=3": ["key must be one that --help lists, got tsks"],
    "+train.stps=3": ["key must be one that --help lists, got train.stps", "try train.steps=1000"],
    "evaluate.chekpoints=[3]": ["got evaluate.chekpoints", "try evaluate.checkpoints=auto"],
    "trian.steps=3": ["got trian", "did you mean train?"],
    "zzz=3": ["key must be one that --help lists, got zzz"],
    "train=foo": ["train must be one of adam, fast, paper, residual, soft, unit", "got foo"],
    "train=papre": [
        "train must be one of adam, fast, paper, residual",
        "got papre: try train=paper",
    ],
    "train=3": ["train must be the name of a recipe", "train=3"],
    "~train": [
        "options must be KEY=VALUE, because a run needs every key, got ~train: leave it out"
    ],
    "~tasks": [
        "options must be KEY=VALUE, because a run needs every key, got ~tasks: leave it out"
    ],
    "~evaluate.tasks=50": ["options must be KEY=VALUE", "got ~evaluate.tasks=50"],
    "hydra.run.dir=x": ["key must be one that --help lists, got hydra.run.dir: the keys of Hydra"],
    "+hydra.verbose=true": ["got hydra.verbose: the keys of Hydra itself have no effect here"],
    "hydra/launcher=x": ["key must be one that --help lists, got hydra/launcher"],
    "--config-name nope": ["unrecognized arguments: --config-name"],
    "--config-path /nope": ["unrecognized arguments: --config-path"],
    "--experimental-rerun /nope": ["unrecognized arguments: --experimental-rerun"],
    "--config-dir /nope": ["--config-dir must be a folder, got /nope: correct the path"],
    "tasks=${oc.env:NO_SUCH_VARIABLE}": ["tasks must be valid", "NO_SUCH_VARIABLE"],
    "evaluate=3": ["evaluate must be set key by key", "got 3"],
    "hidden=[20]": ["key must be one that --help lists, got hidden"],
    "method_options=3": ["method_options must be names with values such as {density: 0.3}", "3"],
    "method_options=null": ["method_options must be names with values", "got null"],
    "method_optoins.density=0.3": ["got method_optoins", "did you mean method_options?"],
    "method_options={a.b:3}": [
        "method_options must have options with names such as density",
        "got 'a.b'",
    ],
    "quiet=perhaps": ["quiet must be true or false", "got perhaps"],
    "data=mnist6k": ["data must be one of", "digits", "got mnist6k", "try data=mnist5k"],
    "network=lenet": ["network must be one of", "mlp", "got lenet"],
    "method=foo": ["method must be one of threshold", "got foo", "method=threshold"],
    "family=permuted2": ["family must be one of", "split", "try family=permuted"],
    "executor=dask": ["executor must be one of ray, serial", "got dask"],
    "evaluate.algorithms=[foo]": ["evaluate.algorithms must be auto or a list", "got [foo]"],
    "evaluate.objectives=[K]": ["evaluate.objectives must be a list with any of H, G", "got [K]"],
    "evaluate.checkpoints=[2,4]": ["at most tasks=3", "got [4]", "try evaluate.checkpoints=[2]"],
    "evaluate.checkpoints=[4]": ["at most tasks=3", "got [4]", "try evaluate.checkpoints=[3]"],
    "evaluate.checkpoints=[0]": ["auto or a list of whole numbers >= 1", "got [0]"],
    "evaluate.checkpoints=foo": ["must be auto or a list of whole numbers", "got foo"],
    "evaluate.checkpoints=[true]": ["must be auto or a list of whole numbers", "got [true]"],
    "evaluate.batches=-1": ["batches must be null or a whole number >= 1", "got -1"],
    "evaluate.algorithms=one_shot": ["must be auto or a list with one or more of", "got one_shot"],
    "evaluate.num_images=0": ["num_images must be auto or a whole number >= 1", "got 0", "=auto"],
    "evaluate.num_images=foo": ["num_images must be auto or a whole number >= 1", "got foo"],
    "evaluate.num_images=129": ["num_images must be at most evaluate.batch_size=128", "got 129"],
    "evaluate.distractors=-1": ["distractors must be a whole number >= 0", "got -1"],
    "evaluate.log_base=1": ["evaluate.log_base must be a whole number >= 2", "got 1"],
    "evaluate.steps=0": ["evaluate.steps must be a whole number in [1, 10000]", "got 0"],
    "evaluate.rate=0": ["evaluate.rate must be a number > 0", "got 0"],
    "evaluate.rate=inf": ["evaluate.rate must be a number > 0", "got inf"],
    "evaluate.rate=nan": ["evaluate.rate must be a number > 0", "got nan"],
    "train.steps=0": [
        "train.steps must be a whole number in [1, 10000000]",
        "got 0",
        "try train.steps=1000",
    ],
    "train.block=0": ["train.block must be auto or a whole number >= 1", "got 0"],
    "train.block=foo": ["train.block must be auto or a whole number >= 1", "got foo", "=auto"],
    "train.learning_rate=inf": ["train.learning_rate must be a number > 0", "got inf"],
    "train.smoothing=1": ["train.smoothing must be a number in [0, 1)", "got 1"],
    "train.temperature=0": ["train.temperature must be a number > 0", "got 0"],
    "train.temperature=nan": ["train.temperature must be a number > 0", "got nan"],
    "train.optimizer=adma": ["must be one of rmsprop, adam, sgd", "try train.optimizer=adam"],
    "train.momentum=0.9": ["train.momentum must be 0 with", "got 0.9", "train.optimizer=adam"],
    "train.optimizer=adam train.momentum=1": ["train.momentum must be a number in [0, 1)", "got 1"],
    "train.optimizer=sgd train.momentum=-0.1": ["number in [0, 1)", "got -0.1"],
    "train.momentum=nan": ["train.momentum must be a number in [0, 1)", "got nan"],
    "train.momentum=much": ["train.momentum", "got much"],
    "train.weight_decay=-1": ["train.weight_decay must be a number >= 0", "got -1"],
    "train.weight_decay=nan": ["train.weight_decay must be a number >= 0", "got nan"],
    "train.dtype=int8": ["train.dtype must be auto or one of float32, bfloat16", "got int8"],
    "tasks=1000000001": ["tasks must be a whole number >= 1 and <= 1000000000, got 1000000001"],
    "outputs=1" + 22 * "0": ["outputs must be a whole number >= 1 and <= 1000000000"],
    "train.steps=10000001": ["train.steps must be a whole number in [1, 10000000], got 10000001"],
    "evaluate.steps=10001": ["evaluate.steps must be a whole number in [1, 10000], got 10001"],
    "reservoir.most_steps=10001": ["reservoir.most_steps must be a whole number in [1, 10000]"],
    "actors.train=1000000000": ["actors.train must be auto or a whole number in [1, 4096]"],
    "actors.evaluate=1000000000": ["actors.evaluate must be auto or a whole number in [1, 4096]"],
    "actors.shards=1000000000": ["actors.shards must be a whole number in [1, 4096], got 10000000"],
    "train.learning_rate=1e300": ["number > 0 that float32 can hold (1.18e-38 to 3.4e+38), got 1e"],
    "train.temperature=1e-320": ["train.temperature must be a number > 0 that float32 can hold"],
    "evaluate.rate=1e308": ["evaluate.rate must be a number > 0 that float32 can hold"],
    "seed=18446744073709551616": ["number in [0, 18446744073709551615]", "got 1844674407370955161"],
    "train.batch_size=100000": [
        "batch_size must be at most 1438, the number of training images of"
    ],
    "evaluate.batch_size=500 evaluate.num_images=400": [
        "at most 359, the number of test images of"
    ],
    "actors.gpus=0": ["actors.gpus must be a number in (0, 1]", "got 0"],
    "actors.evaluate=0": ["actors.evaluate must be auto or a whole number in [1, 4096]", "got 0"],
    "seed=-1": ["seed must be a whole number in [0, 18446744073709551615]", "got -1", "try seed=0"],
    "reservoir.share=1.5": ["reservoir.share must be a number in [0, 1]", "got 1.5"],
    "reservoir.rules=[]": ["reservoir.rules must be a list with one or more of", "got []"],
    "run_dir=ftp://bucket/run": ["run_dir must be a folder, s3://BUCKET/FOLDER or", "got ftp://b"],
    "run_dir=s3://buc%ket/x": ["BUCKET of letters, digits", "got s3://buc%ket/x: correct"],
    "run_dir=s3://bucket": ["run_dir must be a folder, s3://BUCKET/FOLDER or", "got s3://bucket"],
    "family=split tasks=6": ["tasks must be at most 5", "family=split", "got 6"],
    "evaluate.algorithms=[]": ["algorithms must be auto or a list with one or more of", "got []"],
    "evaluate.algorithms=[binary] evaluate.objectives=[]": ["evaluate.objectives must", "got []"],
    "evaluate.algorithms=[frank_wolfe] evaluate.objectives=[]": ["evaluate.objectives must be"],
    "evaluate.algorithms=[max_logit,binary,max_logit]": [
        *("each once", "got [max_logit,binary,max_logit]"),
        "try evaluate.algorithms=[max_logit,binary]",
    ],
    "evaluate.objectives=[H,H]": ["each once", "got [H,H]", "try evaluate.objectives=[H]"],
    "actors.shards=2": ["algorithms must be a list with one or more of one_shot", "shards > 1"],
    "actors.shards=2 evaluate.algorithms=[one_shot] evaluate.distractors=3": ["must be 0 if"],
    "actors.shards=2 evaluate.algorithms=[one_shot] evaluate.reservoir=true": ["be false if"],
    "network=small_conv actors.shards=2 evaluate.algorithms=[one_shot]": ["shards must be 1 with"],
    "network=small_conv evaluate.algorithms=[one_shot_ranked]": ["be a list with one or more of"],
    "network=small_conv train.dtype=bfloat16": ["train.dtype must be auto or float32 with"],
    "network=small_conv train.batch_size=1": ["train.batch_size must be >= 2 with"],
    "method=signed evaluate.distractors=9": ["distractors must be 0 with", "got 9"],
    "method=signed evaluate.reservoir=true": ["reservoir must be false with", "got true"],
    "method=edge_popup method_options.density=2": ["density must be a number in (0, 1], got 2"],
    "method=edge_popup method_options.density=x": ["density must be a number in (0, 1], got x"],
    "method=edge_popup method_options.densty=0.3": ["must be among density, kappa", "got densty"],
    "method=edge_popup method_options.kappa=-1": ["kappa must be a number >= 0, got -1"],
    "method=threshold method_options.density=0.3": ["must be empty for method=threshold"],
    "network=mlp": ["network_options.hidden must be given", "try network_options.hidden=[300]"],
    "network=mlp network_options.hidden=[0]": ["a list of whole numbers >= 1, got [0]"],
    "network=units network_options.hidden=[]": ["must be a non-empty list of whole numbers"],
    "network=small_conv network_options.channels=[]": ["must be a non-empty list of whole"],
    "-m seed=1,2": ["options must be KEY=VALUE", "unrecognized arguments: -m"],
    "seed=1,2": ["seed must have one value", "got 1,2"],
    "seed=range(1,3)": ["seed must have one value", "got range(1,3)"],
    "outputs=9": ["outputs must be at least 10", "classes of digits", "got 9"],
    "outputs=10 evaluate.objectives=[H,G_first_layer]": ["without G_first_layer", "=[H]"],
    "outputs=10": ["objectives must be a list without G", "outputs=10", "try"],
}
EVERY_KEY = "--help lists every key"


def stop(*_):
    raise KeyboardInterrupt


@pytest.fixture
def accepted(cli, monkeypatch):
    """Return a function that checks that a command begins its work: options -> None.

    Nothing is trained: all checks of a command come before its work.
    """

    def type_in(*arguments):
        monkeypatch.setattr(start, "carry_out_together", stop)
        monkeypatch.setattr(start, "make_executor", lambda _: SerialExecutor())  # starts no Ray
        code, out, err = cli(*arguments)
        assert (code, "stopped: 0 of 3 tasks are committed" in out) == (STOPPED, True), err

    return type_in


# Experiments on images of MNIST or Fashion-MNIST. The digits have as many classes.
EXPERIMENTS = sorted(
    path.stem
    for path in (SCALE.parent / "conf/experiment").glob("*.yaml")
    if "mnist" in path.read_text()
)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_begins_its_work(experiment, cli, monkeypatch):
    monkeypatch.setattr(start, "carry_out_together", stop)
    small = ("data=digits", "executor=serial", "tasks=5", "evaluate.checkpoints=[5]")
    if experiment == "fig7":  # a task of two digits has 48 test images
        small = (*small, "evaluate.batch_size=16")
    code, _, err = cli(f"experiment={experiment}", *small)
    assert code == STOPPED, err


@pytest.mark.parametrize("line_typed", REFUSED)
def test_what_no_run_can_have_is_refused_in_one_line(line_typed, cli, refused, accepted, tmp_path):
    """The line is complete, and its hint works when it is typed."""
    given = line_typed.split()
    line = refused(*given)
    for part in REFUSED[line_typed]:
        assert part in line
    assert ", got " in line
    assert names(tmp_path) == []
    if line.endswith((EVERY_KEY, "correct the path")):
        assert cli("--help")[0] == 0
        return
    accepted(*SMALL, "train.steps=1", *corrected(given, line), "tasks=3", "train.batch_size=8")


def corrected(given, line):
    """Return the typed options after the correction that the line of error advises."""
    key = line.partition(" must be ")[0]
    if line.endswith((" it out", "this option out", "give a local folder")):
        hint = []
    else:
        hint = line.partition(": try ")[2].split()
        assert hint, line
    got = line.partition(", got ")[2].partition(":")[0]
    wrong = {key, key_of(got), key.partition(" must have ")[0], *(key_of(one) for one in hint)}
    # The error for an unknown option names the option without its group.
    wrong |= {f"{group}.{got}" for group in OPTION_KEYS.values()}
    return [*(one for one in given if key_of(one) not in wrong), *hint]


def test_a_corrected_run_is_completed(cli, refused):
    given = ["evaluate.algorithms=[max_logit,binary,max_logit]", "evaluate.objectives=[H]"]
    code, out, err = cli(*SMALL, *corrected(given, refused(*given)))
    assert (code, "3 masks" in out) == (0, True), err


def test_an_unknown_experiment_names_the_known_ones(refused):
    line = refused("experiment=fig44")
    known = (
        "fig2_left, fig2_right, fig3_fc, fig3_lenet, fig4, fig5_left, fig5_right, fig6, fig7, "
        "finders, finders_split, nns, reservoir"
    )
    assert line == f"experiment must be one of {known}, got fig44: try experiment=fig4"


def key_of(override):
    return override.lstrip("+~").partition("=")[0]


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
        ("file/run", "has a file in place of a parent folder"),
        ("file", "is a file, not a folder"),
        ("n" * 300, "has a name that is too long"),
        ("/proc/nope", "cannot be created"),
        ("/sys/nope", "may not be written by this user"),
    ],
)
def test_a_run_dir_that_cannot_be_is_refused(run_dir, reason, refused, tmp_path):
    if run_dir.startswith("/") and not Path(run_dir).parent.is_dir():
        pytest.skip(f"{run_dir} is refused on Linux only")
    (tmp_path / "file").write_text("precious")
    line = refused(f"run_dir={run_dir}")
    assert line.startswith(f"run directory {tmp_path / run_dir} ")
    if run_dir != "/sys/nope":  # "read-only" in a container, otherwise "forbidden"
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
    assert "free some space, or choose another run_dir" in line
    assert left(tmp_path) == []


def test_a_run_that_another_process_works_on_is_refused(refused, tmp_path):
    with run_lock(tmp_path / "run"):
        line = refused("run_dir=run")
    assert f"run directory {tmp_path / 'run'} is in use by process {os.getpid()}" in line
    assert f"on host {socket.gethostname()}" in line
    assert "choose another run_dir" in line
    assert left(tmp_path) == ["run/lock"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a small complete run. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert scale.run(configured(*SMALL, f"run_dir={run_dir}")) == 0
    return run_dir


@pytest.fixture
def finished(whole, tmp_path):
    """Return the folder of a small complete run (run_dir=run): a copy that the test may change."""
    return shutil.copytree(whole, tmp_path / "run")


def content(folder):
    return {name: (folder / name).read_bytes() for name in left(folder)}


def test_another_configuration_is_refused_with_old_and_new_values(finished, refused):
    before = content(finished)
    line = refused("run_dir=run", "train.steps=2", "seed=7")
    assert "train.steps is 1 in the folder, 2 in this command" in line
    assert "seed is 0 in the folder, 7 in this command" in line
    assert "choose another run_dir" in line
    assert content(finished) == before


def test_masks_without_a_config_are_refused(finished, refused):
    (finished / "config.yaml").unlink()
    before = content(finished)
    line = refused("run_dir=run")
    assert line.startswith(f"run directory {finished} holds masks")
    assert "no config.yaml" in line
    assert "put config.yaml back, or choose another run_dir" in line
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
    assert line.startswith(f"{path} must be the configuration of a run, got an error: ")
    assert line.endswith("restore the file, or choose another run_dir")
    assert left(tmp_path) == ["run/config.yaml"]
    assert path.read_bytes() == broken


@pytest.mark.slow
def test_more_actors_than_processors_are_refused(refused, ray_session):
    line = refused("run_dir=run", "executor=ray", "actors.train=99")
    assert "actors.train must be at most 2" in line
    assert "Ray has 2 CPUs" in line
    assert "got 99: try actors.train=auto" in line


def test_cfg_job_prints_the_configuration_and_runs_nothing(cli, tmp_path):
    code, out, err = cli("--cfg", "job", "tasks=7")
    assert (code, err) == (0, "")
    assert "tasks: 7\n" in out
    assert "  steps: 1000\n" in out
    assert names(tmp_path) == []


def test_help_shows_the_recipes_and_runs_nothing(cli, tmp_path):
    code, out, err = cli("--help")
    assert (code, err) == (0, "")
    assert "  train=paper\n      one of adam, fast, paper, residual, soft, unit\n" in out
    assert names(tmp_path) == []


@pytest.mark.parametrize("job", [scale, evaluate, recall, tune])
def test_help_describes_every_key_that_the_command_reads(job, typed):
    code, out, err = typed(job, "--help")
    assert (code, err) == (0, "")
    takes = job.JOB.takes
    for key, option in options_of(job.JOB.schema).items():
        shown = f"\n  {key}=" in out or f"\n  {key}.NAME=VALUE" in out
        assert shown == (takes is None or is_taken(key, takes)), key
        assert len(option.knob.help) > 10, key


def test_help_shows_the_values_of_the_typed_recipe(cli):
    assert "\n  train.steps=128\n" in cli("--help", "train=fast")[1]


@pytest.mark.parametrize("kind", NAMED)
def test_every_option_of_a_named_thing_has_help(kind, cli):
    known, _ = NAMED[kind]
    for name in known:
        needed = ["network_options.hidden=[8]"] if name in ("mlp", "units") else []
        code, out, _ = cli("--help", f"{kind}={name}", *needed)
        assert code == 0
        config = Config(**{kind: name})
        for option in options_of_kind(kind, config).values():
            assert f"\n  {option.key}=" in out
            assert len(option.knob.help) > 10, option.key


def test_the_version_is_this_package_s(cli):
    code, out, err = cli("--version")
    assert (code, err) == (0, "")
    assert out == f"supermask-scaling {version('supermask-scaling')}\n"


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
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def test_the_script_runs_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "3 masks" in done.stdout
    assert names(tmp_path) == ["runs"]
    [report] = tmp_path.glob("runs/*/report.html")  # a process that the script starts writes it
    assert "Configuration and provenance" in report.read_text()


def test_the_script_is_refused_in_one_line_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, "tasks=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: tasks must be a whole number >= 1, got 0: try tasks=32\n"
    assert names(tmp_path) == []


def test_the_script_prints_its_configuration_from_any_folder(tmp_path):
    done = in_a_shell(tmp_path, "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tasks: 32\n")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "folder"),
    [("'my runs/ä'", "my runs/ä"), ("1.10", "1.10"), ("~/it's [1], done", "home/it's [1], done")],
)
def test_the_same_text_names_the_same_run_in_every_command(
    text, folder, typed, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = tmp_path / folder
    small = ("network=mlp", "network_options.hidden=[8]", f"run_dir={text}")
    assert typed(scale, *SMALL, *small)[0] == 0
    assert json.loads(status_of(f"run_dir={text}", capsys))["run_dir"] == str(run)
    quick = ("evaluate.tasks=1", "evaluate.batches=1", "evaluate.algorithms=[max_logit]")
    code, _, err = typed(evaluate, f"run_dir={text}", *quick, "executor=serial")
    assert (code, "complete already" in err) == (0, True), err
    code, _, err = typed(recall, f"run_dir={text}", "reservoir.rules=[hebb]", "executor=serial")
    assert code == 0, err
    assert len(load(text, "tasks")) == len(load(run, "tasks")) == 3
    monkeypatch.setattr("sys.argv", ["report", f"run_dir={text}"])
    monkeypatch.setattr(report, "render", lambda run_dir: f"report of {run_dir}")
    report.main()
    assert (run / "report.html").read_text() == f"report of {run}"
    monkeypatch.setattr("sys.argv", ["figures", text, "figure.svg"])
    figures.main()
    assert Path("figure.svg").exists()
    job = checked(compose_overrides(with_space([f"run_dir={text}"]), "tune", TuneJob))
    assert run_directory(job) == run


def status_of(typed, capsys):
    """Return what status.py prints as JSON."""
    capsys.readouterr()
    assert status.main([typed, "json=true"]) == 0
    return capsys.readouterr().out


def test_a_family_that_fails_at_its_last_task_leaves_no_folder(refused, tmp_path, monkeypatch):
    make = Permuted.make

    def fail(self, task_id, setting):
        if task_id == 1:  # neither the first nor the last task, which are made before the lock
            raise ValueError("no pixels left")
        return make(self, task_id, setting)

    monkeypatch.setattr(Permuted, "make", fail)
    line = refused("run_dir=runs/new")
    assert f"got: no pixels left ({__file__}, line " in line
    assert list(tmp_path.iterdir()) == []


def test_masks_that_keep_everything_are_named(cli):
    code, _, err = cli(*SMALL, "method=edge_popup", "method_options.density=1.0", "tasks=1")
    assert code == 0
    assert "masks without any information: layer1 of task 0 keeps everything, layer2" in err


def test_evaluations_that_nobody_asks_for_any_more_leave_the_failures(cli, typed, monkeypatch):
    assert cli(*SMALL, "run_dir=run")[0] == 0
    asked = ("run_dir=run", *SMALL[-3:], "evaluate.algorithms=[one_shot]", "executor=serial")

    def fail(worker, unit, rows, own):
        raise MemoryError("3 GB")

    with monkeypatch.context() as patched:
        patched.setattr(EvaluateWorker, "run", fail)
        code, _, err = typed(evaluate, *asked[:3], *asked[4:], "evaluate.distractors=3")
    assert code == 1
    assert "MemoryError: 3 GB (" in err
    assert {row["unit"] for row in load("run", "failures").to_pylist()} > set()
    assert cli(*SMALL, "run_dir=run")[0] == 0
    assert len(load("run", "failures")) == 0


class NoRank(Threshold):
    """A finder as a user writes it, with a fault."""

    def mask(self, tensor, scores):
        raise LookupError("no rank")


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_fault_in_a_finder_is_shown_with_its_line_and_one_traceback(debug, cli, monkeypatch):
    monkeypatch.setattr(NoRank, "__module__", "no_rank")
    monkeypatch.setitem(sys.modules, "no_rank", SimpleNamespace(NoRank=NoRank))
    monkeypatch.setitem(METHODS, "threshold", "no_rank:NoRank")
    code, _, err = cli(*SMALL, "evaluate.checkpoints=[3]", *debug)
    assert code == 1
    where = f"({__file__}, line {NoRank.mask.__code__.co_firstlineno + 1})"
    last = err.splitlines()[-1]
    assert "failed three times: unit-" in last
    assert last.endswith(f"LookupError: no rank {where}")
    assert err.count("Traceback (most recent call last):") == len(debug)
    if not debug:
        kept = Path(err.partition("the last traceback is in ")[2].partition(";")[0])
        assert kept.read_text().endswith("LookupError: no rank\n")
        kept.unlink()
