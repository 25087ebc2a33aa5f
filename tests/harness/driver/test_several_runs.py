"""Runs side by side in one command have the same bytes as runs alone, also after a fault."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import zarr

from analysis import several_report
from analysis.methods import by_method
from analysis.several import load_several, over_seeds, runs_in
from composing import configured
from harness import evaluate, recall, scale, status
from harness.driver.masks import CommittedMasks
from harness.driver.train import Train
from harness.errors import UserError
from harness.plan.units import RunUnit
from harness.reporting.over_runs import Spread
from harness.run import memory
from harness.run.spec import RunSpec
from harness.storage.chunks import CorruptMask
from harness.storage.lock import run_lock
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RESERVOIR
from harness.tables.schemas import FAILURES, TASKS
from harness.workers.several import RunsWorker
from patience import PATIENCE
from supsup_core.data import ImageSet
from supsup_core.tasks.protocol import Task

RUN = (
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=6"),
    *("train.steps=10", "train.block=2", "train.learning_rate=0.01", "train.dtype=float32"),
    *("evaluate.batches=1", "evaluate.checkpoints=[2,6]", "evaluate.algorithms=[one_shot]"),
    *("executor=serial", "quiet=true"),
)
SEEDS = (0, 1, 2)
NOT_COMPARED = ("train_seconds", "worker", "finished_at", "seconds_per_inference")


def masks(run_dir: Path) -> bytes:
    return np.asarray(zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[...]).tobytes()


def rows(run_dir: Path) -> list[str]:
    """Return the rows of the tables without times, in an order that does not depend on commits."""
    both = [
        *read_tables(run_dir / "log", TASKS).to_pylist(),
        *read_tables(run_dir / "evaluations", EVALUATIONS).to_pylist(),
    ]
    return sorted(repr({k: v for k, v in row.items() if k not in NOT_COMPARED}) for row in both)


def results(run_dir: Path) -> tuple[bytes, list[str], str]:
    config = (run_dir / "config.yaml").read_text()
    free = ("run_dir:", "executor:")
    kept = [line for line in config.splitlines() if not line.startswith(free)]
    return masks(run_dir), rows(run_dir), "\n".join(kept)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[bytes, list[str], str]]:
    """The results of each seed in a command of its own."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        given = [*RUN, f"seed={seed}", f"run_dir={folder / str(seed)}"]
        assert scale.run(configured(*given)) == 0
    return {seed: results(folder / str(seed)) for seed in SEEDS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of complete runs of seeds 0 and 1. Tests must not change this folder."""
    many = tmp_path_factory.mktemp("whole") / "many"
    configs = [configured(*RUN, f"seed={i}", f"run_dir={many / f'seed-{i}'}") for i in (0, 1)]
    assert scale.run(*configs) == 0
    return many


@pytest.fixture
def many(whole: Path, tmp_path: Path) -> Path:
    """A copy of these runs, in the folder in which commands are typed."""
    return shutil.copytree(whole, tmp_path / "many")


def assert_table(out: str, run_dirs: list[Path]) -> None:
    """Check the printed means of one_shot H among 6 masks against the files of three runs."""
    tables = [read_tables(one / "evaluations", EVALUATIONS).to_pandas() for one in run_dirs]
    own = [one.query("num_tasks == 6 and objective == 'H'") for one in tables]
    lines = out[out.index("3 runs") :].splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("6  one_shot H "))
    printed = [line.split("of")[-1].split() for line in lines[begin : begin + 3]]
    printed[0] = printed[0][-6:]
    for cells, column in zip(
        printed, ("task_accuracy", "accuracy_gg", "accuracy_gnu"), strict=True
    ):
        values = [rows[column].mean() for rows in own]
        std = np.std(values, ddof=1)
        half = 4.302653 * std / 3**0.5  # the 97.5 % quantile of Student's t with 2 degrees
        mean = np.mean(values)
        expected = [f"{one:.4f}" for one in (mean, std, mean - half, mean + half)]
        assert [cell for cell in cells[1:] if cell != "to"] == expected


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_seeds_side_by_side_have_the_bytes_of_seeds_alone(
    executor: str,
    typed: Any,
    tmp_path: Path,
    alone: dict[int, Any],
    request: pytest.FixtureRequest,
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_session")
    code, out, err = typed(scale, *RUN, f"executor={executor}", "seeds=[0,1,2]", "run_dir=many")
    assert code == 0, err
    for seed in SEEDS:
        assert results(tmp_path / "many" / f"seed-{seed}") == alone[seed]
    assert len({one[0] for one in alone.values()}) == len(SEEDS)
    assert all(f"seed-{seed} training: 6/6 tasks" in err for seed in SEEDS)
    assert_table(out, [tmp_path / "many" / f"seed-{seed}" for seed in SEEDS])
    for name in ("log", "masks.zarr", "provenance.json", "lock"):
        assert (tmp_path / "many" / "seed-1" / name).exists()


def test_units_of_the_runs_are_interleaved(whole: Path) -> None:
    times = [
        sorted(read_tables(whole / f"seed-{i}" / "log", TASKS)["finished_at"].to_pylist())
        for i in (0, 1)
    ]
    assert times[1][0] < times[0][-1]
    assert times[0][0] < times[1][-1]


def test_a_run_of_the_folder_is_an_ordinary_run(
    many: Path, typed: Any, alone: dict[int, Any]
) -> None:
    code, _, err = typed(scale, *RUN, "seed=1", "run_dir=many/seed-1")
    assert (code, "complete already" in err) == (0, True)
    code, _, err = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    assert code == 0, err
    for seed in SEEDS:
        assert results(many / f"seed-{seed}") == alone[seed]
    code, _, err = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    assert (code, "complete already: nothing left to train or evaluate" in err) == (0, True)


def test_a_stop_stops_all_runs_and_the_same_command_resumes_all(
    typed: Any, tmp_path: Path, alone: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, commits = Train._commit, []

    def commit_and_stop(stage: Train, trained: Any) -> None:
        commit(stage, trained)
        commits.append(stage)
        if len(commits) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Train, "_commit", commit_and_stop)
        code, out, _ = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    assert code == 130
    assert "4 of 6 tasks are committed in" in out
    assert out.count("2 of 6 tasks are committed in") == 2
    assert "type the same command again to go on" in out
    code, _, err = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    assert code == 0, err
    for seed in SEEDS:
        assert results(tmp_path / "many" / f"seed-{seed}") == alone[seed]


# Run the command, and kill the process with SIGKILL after a number of commits.
KILLED = """
import os, signal, sys
from harness import scale
from harness.config.command import run_command
from harness.driver.train import Train

commit, commits = Train._commit, []

def commit_and_die(stage, trained):
    commit(stage, trained)
    commits.append(stage)
    if len(commits) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Train._commit = commit_and_die
run_command(scale.JOB)
"""


@pytest.mark.slow
def test_a_killed_command_resumes_all_runs(
    typed: Any, tmp_path: Path, alone: dict[int, Any]
) -> None:
    given = [*RUN, "seeds=[0,1,2]", "run_dir=many"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *given], cwd=tmp_path, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folders = [tmp_path / "many" / f"seed-{seed}" for seed in SEEDS]
    before = [{one.name: one.read_bytes() for one in run.glob("log/*")} for run in folders]
    assert sum(map(len, before)) == 5
    code, _, err = typed(scale, *given)
    assert code == 0, err
    for seed, run, log in zip(SEEDS, folders, before, strict=True):
        assert {name: (run / "log" / name).read_bytes() for name in log} == log
        assert results(run) == alone[seed]


def test_a_unit_that_fails_in_one_run_is_set_aside_there_only(
    typed: Any, tmp_path: Path, alone: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RunSpec.task

    def fail(spec: RunSpec, task_id: int) -> Task:
        if spec.config.seed == 1 and task_id == 3:
            raise OSError("no data")
        return make(spec, task_id)

    def failing(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(RunSpec, "task", fail)

    # The first start of a run makes every task, so the task fails only when training begins.
    begin = Train.begin
    with monkeypatch.context() as patched:
        patched.setattr(Train, "begin", lambda *given: (failing(), begin(*given))[1])
        code, out, err = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    monkeypatch.setattr(RunSpec, "task", make)
    assert code == 1
    assert "seed-1: failed three times: unit-000002 (tasks 3): OSError: no data" in err
    assert "seed-1: checkpoints [6] are incomplete" in err
    assert "set aside after 3 tries: task 3" in out
    for seed in (0, 2):
        assert results(tmp_path / "many" / f"seed-{seed}") == alone[seed]
    assert len(read_tables(tmp_path / "many" / "seed-1" / "failures", FAILURES)) == 1
    assert typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")[0] == 0
    assert results(tmp_path / "many" / "seed-1") == alone[1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CorruptMask("mask 0 is damaged"), "mask 0 is damaged: type the same command again to"),
        (UserError("run directory x has no room left on its disk"), "no room left on its disk"),
    ],
)
def test_an_error_of_one_run_stops_no_other_run(
    error: Exception,
    said: str,
    typed: Any,
    tmp_path: Path,
    alone: dict[int, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = CommittedMasks.read

    def broken(masks: CommittedMasks, task_ids: Any) -> Any:
        if masks._run.spec.config.seed == 1:
            raise error
        return read(masks, task_ids)

    with monkeypatch.context() as patched:
        patched.setattr(CommittedMasks, "read", broken)
        code, out, err = typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")
    assert code == 2
    assert "seed-1: stopped; the other runs go on: " in err
    assert err.splitlines()[-1].startswith("error: ")
    assert said in err.splitlines()[-1]
    assert "2 runs" in out
    for seed in (0, 2):
        assert results(tmp_path / "many" / f"seed-{seed}") == alone[seed]
    assert typed(scale, *RUN, "seeds=[0,1,2]", "run_dir=many")[0] == 0
    assert results(tmp_path / "many" / "seed-1") == alone[1]


def test_a_run_that_is_in_use_refuses_the_command(typed: Any, tmp_path: Path) -> None:
    with run_lock(tmp_path / "many" / "seed-1"):
        code, out, err = typed(scale, *RUN, "seeds=[0,1]", "run_dir=many")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{tmp_path / 'many' / 'seed-1'} is in use by process" in err
        assert not (tmp_path / "many" / "seed-0").exists()


def test_one_run_and_several_runs_have_different_folders(typed: Any) -> None:
    assert typed(scale, *RUN, "run_dir=one", "tasks=2", "evaluate.checkpoints=[2]")[0] == 0
    code, _, err = typed(scale, *RUN, "run_dir=one", "seeds=[0,1]")
    assert (code, err.count("\n")) == (2, 1)
    assert "which is the folder of one run: choose another run_dir" in err
    few = ("tasks=2", "evaluate.checkpoints=[2]")
    assert typed(scale, *RUN, *few, "run_dir=many", "seeds=[3]")[0] == 0
    code, _, err = typed(scale, *RUN, "run_dir=many")
    assert (code, err.count("\n")) == (2, 1)
    assert "which has the runs seed-3" in err
    assert "many/seed-3" in err


def test_all_runs_of_a_folder_are_evaluated_again(many: Path, typed: Any) -> None:
    more = ("run_dir=many", "evaluate.algorithms=[binary]", "evaluate.batches=1")
    code, out, err = typed(evaluate, *more, "executor=serial", "evaluate.checkpoints=[6]")
    assert code == 0, err
    assert "binary H" in out
    for seed in (0, 1):
        found = read_tables(many / f"seed-{seed}" / "evaluations", EVALUATIONS)
        assert len(found.filter(pc.field("algorithm") == "binary")) == 2 * 6


def test_runs_of_different_data_are_not_evaluated_together(many: Path, typed: Any) -> None:
    config = many / "seed-1" / "config.yaml"
    config.write_text(config.read_text().replace("data: digits", "data: mnist5k"))
    code, _, err = typed(evaluate, "run_dir=many")
    assert (code, err.count("\n")) == (2, 1)
    assert "runs of one folder must have the same data, got digits in" in err


def test_the_masks_of_all_runs_of_a_folder_are_recalled(typed: Any, tmp_path: Path) -> None:
    units = ("network=units", "train=unit", "train.steps=5", "evaluate.num_images=16")
    assert typed(scale, *RUN, *units, "seeds=[0,1]", "run_dir=many")[0] == 0
    given = ("run_dir=many", "reservoir.cues=[flipped]", "evaluate.checkpoints=[2]")
    code, out, err = typed(recall, *given, "executor=serial")
    assert code == 0, err
    assert out.count("Among 2 masks in a reservoir") == 2
    for seed in (0, 1):
        assert len(read_tables(tmp_path / "many" / f"seed-{seed}" / "reservoir", RESERVOIR)) == 1


def test_status_tells_of_all_runs(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert status.main([f"run_dir={whole}", "verify=true"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:4] for line in out.splitlines()[3:5]] == [
        [f"seed-{seed}", "complete", "6/6", "tasks"] for seed in (0, 1)
    ]
    assert out.endswith("every mask is intact\n")
    assert status.main([f"run_dir={whole}", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["committed"] for one in found["runs"]] == [6, 6]
    assert [Path(one["run_dir"]).name for one in found["runs"]] == ["seed-0", "seed-1"]


def test_runs_of_several_output_sizes_have_their_own_networks(typed: Any, tmp_path: Path) -> None:
    code, out, err = typed(scale, *RUN[:3], *RUN[4:], "output_sizes=[12,20]", "run_dir=many")
    assert code == 0, err
    for outputs in (12, 20):
        weights = zarr.open_group(tmp_path / "many" / f"outputs-{outputs}" / "masks.zarr")[
            "weights"
        ]
        assert dict(weights.arrays())["layer2"].shape[0] == outputs
    assert "outputs" in out


def test_runs_of_several_methods_are_compared_by_accuracy_and_bytes(
    typed: Any, tmp_path: Path
) -> None:
    methods = "methods=[threshold,multicoated,{name: n_of_m, n: 1, m: 4}]"
    code, out, err = typed(scale, *RUN, methods, "run_dir=many")
    assert code == 0, err
    folder, names = tmp_path / "many", ("threshold", "multicoated", "n_of_m_n1_m4")
    sizes = {}
    for name in names:
        run = folder / f"method-{name}"
        [sizes[name]] = set(read_tables(run / "log", TASKS)["mask_bytes"].to_pylist())
        assert name in out
    runs = runs_in(folder)
    points = by_method(runs, over_seeds(load_several(folder, "evaluations").to_pandas()))
    found = dict(zip(points["method"], points["bytes_per_task"], strict=True))
    assert found == sizes
    assert sizes["threshold"] == sizes["n_of_m_n1_m4"] < sizes["multicoated"]
    assert '<section id="accuracy-and-bytes">' in several_report.render(folder)
    code, _, err = typed(scale, *RUN, methods, "run_dir=many")
    assert (code, "complete already" in err) == (0, True)


def test_runs_that_do_not_fit_into_memory_together_are_refused(
    typed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_kept_bytes", lambda spec: memory.memory_bytes() // 3)
    small = (*RUN, "train.steps=2")
    code, out, err = typed(scale, *small, "seeds=[0,1,2,3]")
    assert (code, out) == (2, "")
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "runs of one command must be at most 3, because" in line
    assert ", got 4: divide the runs between several commands" in line
    assert typed(scale, *small, "seeds=[0,1,2]", "run_dir=fitting")[0] == 0


class Inner:
    """A worker that returns its arguments."""

    def __init__(self, spec: str, images: ImageSet, name: str) -> None:
        self.spec, self.images, self.name = spec, images, name

    def progress(self) -> float:
        return float(self.spec)

    def run(self, unit: Any, extra: int) -> tuple[Any, ...]:
        return self.spec, unit, extra, self.name


def test_the_workers_of_an_actor_share_one_writable_copy_of_the_images() -> None:
    pixels, labels = np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4, np.uint8)
    pixels.flags.writeable = labels.flags.writeable = False
    images = ImageSet(pixels, labels, (0.0,), (1.0,))
    places = {"seed-0": [0, 1], "seed-1": [2, 1]}
    worker = RunsWorker(Inner, places, "0.25", images, "0.75", name="train-1")
    first, second = worker._workers.values()
    assert first.images is second.images
    assert first.images.images.flags.writeable
    assert worker.run(RunUnit("seed-1", "unit"), 5) == ("0.75", "unit", 5, "train-1")
    assert worker.progress() == 0.75
    assert worker.run(RunUnit("seed-0", "unit"), 5)[0] == "0.25"
    assert worker.progress() == 0.25


def test_the_spread_over_seeds_by_hand() -> None:
    found = Spread.of([0.9, 0.92, 0.97])
    assert found.mean == pytest.approx(0.93)
    assert found.std == pytest.approx((((-0.03) ** 2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    half = 4.302653 * found.std / 3**0.5  # the 97.5 % quantile of Student's t with 2 degrees
    assert (found.low, found.high) == pytest.approx((0.93 - half, 0.93 + half), abs=1e-6)
    assert Spread.of([0.5]) == Spread(1, 0.5, None, None, None)
