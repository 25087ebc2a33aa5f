"""Runs whose tasks need earlier tasks: stopped, damaged, resumed, and on any executor."""

import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from composing import configured
from harness import evaluate, tune
from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.driver.train import Train
from harness.errors import Failure, UserError
from harness.run.directory import verify_run
from harness.scale import run
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import FAILURES, TASKS
from harness.workers.training import TrainWorker
from supsup_core.baselines.lower_bound import LowerBound
from supsup_core.baselines.psp import PSP
from supsup_core.methods.protocol import Method
from supsup_core.networks.mlp import mlp
from supsup_core.training.protocol import Measured

NETWORK = mlp((1, 8, 8), 20, hidden=[12])  # the network of `configure`

# Columns that may differ between two runs of one configuration.
NOT_COMPARED = ("train_seconds", "worker", "finished_at", "seconds_per_inference")
WAYS = {
    "mean": ("train.transfer=mean",),
    "random": ("train.transfer=random", "train.block=2", "method=edge_popup"),
    "similar": ("train.transfer=similar", "train.block=4"),
    "mean_scores": ("train.transfer=mean_scores", "method=signed"),
    "knn": ("train.transfer=knn", "train.block=2"),
    "lower_bound": ("method=lower_bound",),
    "exssnet": ("method=exssnet", "method_options.density=0.3"),
    "wsn": ("method=wsn", "train.transfer=knn"),
    "psp": ("method=psp",),
    "jackpots": ("method=jackpots", "train.block=2"),
    "trained_trunk": (
        *("method=batche", "method_options.trunk=trained", "train.block=2"),
        "train.first_learning_rate=1e-3",
    ),
    "after_first": ("method=from_first:FromFirst", "train.block=2"),
}
FROM_FIRST = '''
"""A finder whose tasks start from the scores with which the first task ended."""

from supsup_core.methods.threshold import Threshold


class FromFirst(Threshold):
    order = "after_first"

    def shared_shapes(self, network):
        return {f"scores {tensor.name}": tensor.shape for tensor in network.tensors}

    def begin(self, network, task_id, seed, shared=None):
        drawn = super().begin(network, task_id, seed)
        return {n: shared[f"scores {n}"] + s / 4 if shared else s for n, s in drawn.items()}

    def pass_on(self, network, scores, shared):
        return {f"scores {n}": s.detach()[0].float().numpy() for n, s in scores.items()}
'''


@pytest.fixture(autouse=True)
def _own_finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from_first.py").write_text(FROM_FIRST)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "from_first", raising=False)


def configure(run_dir: Path, *overrides: str) -> Config:
    """Configure a run that takes a second: seven small tasks of digits."""
    given = (
        "data=digits network=mlp network_options.hidden=[12] outputs=20 tasks=7 train.steps=8 "
        "train.learning_rate=0.01 train.smoothing=0.9 evaluate.batches=1 evaluate.tasks=2 "
        f"evaluate.checkpoints=[3,7] executor=serial run_dir={run_dir}"
    )
    return configured(*given.split(), *overrides)


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function from options to the folder of an undisturbed run, which is trained once.

    Tests must not change this folder.
    """

    @cache
    def made(*options: str) -> Path:
        run_dir = tmp_path_factory.mktemp("whole")
        assert run(configure(run_dir, *options)) == 0
        return run_dir

    return made


def everything(run_dir: Path) -> tuple[Any, ...]:
    """Return all masks, all shared arrays, and the rows of both tables."""
    root = zarr.open_group(run_dir / "masks.zarr", mode="r")
    shared = root["shared"].arrays() if "shared" in root else ()
    rows = [
        *read_tables(run_dir / "log", TASKS).to_pylist(),
        *read_tables(run_dir / "evaluations", EVALUATIONS).to_pylist(),
    ]
    kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in rows]
    return (
        np.asarray(root["masks"][...]).tobytes(),
        {name: np.asarray(array[...]).tobytes() for name, array in shared},
        sorted(kept, key=repr),
    )


def stop_after_commits(patched: pytest.MonkeyPatch, number: int) -> None:
    commit, left = Train._commit, [number]

    def commit_and_stop(stage: Train, trained: Any) -> None:
        commit(stage, trained)
        left[0] -= bool(trained)
        if not left[0]:
            raise KeyboardInterrupt

    patched.setattr(Train, "_commit", commit_and_stop)


def trained_units(patched: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return a list that gets the tasks and the missing tasks of each unit that is trained."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    train = TrainWorker._run

    def noted(worker: TrainWorker, unit: Any, shared: Any) -> Any:
        found.append((unit.task_ids, unit.missing))
        return train(worker, unit, shared)

    patched.setattr(TrainWorker, "_run", noted)
    return found


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_a_sequence_is_the_same_after_a_stop(
    options: Sequence[str],
    whole_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        stop_after_commits(patched, 2)
        assert run(configure(tmp_path / "stopped", *options)) == 130
    assert run(configure(tmp_path / "stopped", *options)) == 0
    assert everything(tmp_path / "stopped") == everything(whole_of(*options))


@pytest.mark.parametrize(
    ("way", "actors"),
    [
        ("lower_bound", 2),
        pytest.param("after_first", 1, marks=pytest.mark.long),
        ("after_first", 2),
    ],
)
def test_a_sequence_is_the_same_on_any_number_of_actors(
    way: str, actors: int, whole_of: Callable[..., Path], tmp_path: Path, ray_session: ModuleType
) -> None:
    on_ray = ("executor=ray", f"actors.train={actors}", "actors.side_by_side=3")
    assert run(configure(tmp_path / "ray", *WAYS[way], *on_ray)) == 0
    assert everything(tmp_path / "ray") == everything(whole_of(*WAYS[way]))
    workers = read_tables(tmp_path / "ray" / "log", TASKS)["worker"].to_pylist()
    assert len(set(workers)) <= actors  # an actor is kept until no more task can become due


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_damaged_masks_are_trained_again_from_the_same_data(
    options: Sequence[str],
    whole_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(whole_of(*options), tmp_path, dirs_exist_ok=True)
    expected = everything(tmp_path)
    (chunk,) = (tmp_path / "masks.zarr" / "masks" / "c").glob("*/0")
    content, row_bytes = bytearray(chunk.read_bytes()), mask_bytes(tmp_path)
    for task in (0, 4, 5):
        content[task * row_bytes] ^= 1
    chunk.write_bytes(content)
    with monkeypatch.context() as patched:
        units = trained_units(patched)
        assert run(configure(tmp_path, *options)) == 0
    assert everything(tmp_path) == expected
    missing = [task for _, ids in units for task in ids]
    assert sorted(missing) == [0, 4, 5]


def mask_bytes(run_dir: Path) -> int:
    return int(zarr.open_group(run_dir / "masks.zarr", mode="r").attrs["row_bytes"])


def test_a_damaged_row_is_replayed_from_the_last_kept_weights(
    whole_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole_of("method=lower_bound"), tmp_path, dirs_exist_ok=True)
    expected = everything(tmp_path)
    (chunk,) = (tmp_path / "masks.zarr" / "masks" / "c").glob("*/0")
    content = bytearray(chunk.read_bytes())
    content[5 * mask_bytes(tmp_path)] ^= 1
    chunk.write_bytes(content)
    units = trained_units(monkeypatch)
    assert run(configure(tmp_path, "method=lower_bound")) == 0
    # The weights are kept after the tasks 2 and 6, so the tasks 3 and 4 are replayed.
    assert units == [((3,), ()), ((4,), ()), ((5,), (5,))]
    assert everything(tmp_path) == expected


def test_damaged_weights_are_computed_again(
    whole_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole_of("method=lower_bound"), tmp_path, dirs_exist_ok=True)
    expected = everything(tmp_path)
    damaged, lost = (
        tmp_path / "masks.zarr" / "shared" / name / "c" / str(place) / "0" / "0"
        for name, place in (("layer1", 0), ("layer2", 1))
    )
    damaged.write_bytes(damaged.read_bytes()[:-1])
    lost.unlink()
    assert {one.path for one in verify_run(tmp_path)} == {
        str(path.relative_to(tmp_path)) for path in (damaged, lost)
    }
    (tmp_path / "evaluations" / "k000003-given-000000.parquet").unlink()
    units = trained_units(monkeypatch)
    assert run(configure(tmp_path, "method=lower_bound")) == 0
    assert units == [((i,), ()) for i in range(7)]
    assert everything(tmp_path) == expected
    assert verify_run(tmp_path) == []


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (LowerBound(), ["method=lower_bound"]),
        (PSP("binary"), ["method=psp", "method_options.context=binary"]),
        (PSP("rotation"), ["method=psp"]),
    ],
    ids=["lower_bound", "binary", "rotation"],
)
def test_a_checkpoint_is_evaluated_with_its_own_weights(
    method: Method, given: Sequence[str], tmp_path: Path
) -> None:
    options = (
        *given,
        "evaluate.tasks=null",
        "evaluate.batches=null",
        "train.steps=60",
    )
    assert run(configure(tmp_path, *options)) == 0
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert root.attrs["after_task"] == [2, 6]
    assert "the gain of a tensor without planes and floats is 1" in root.attrs["decode"]
    mean, std = (root.attrs["normalisation"][name][0] for name in ("mean", "std"))
    test = load_dataset("digits").test
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    assert len(rows) == 3 + 7
    for row in rows:
        place = root.attrs["after_task"].index(row["num_tasks"] - 1)
        x = (test.flat[:, root["inputs/permutations"][row["task_id"]]] / 255 - mean) / std
        kept = {n: torch.from_numpy(root[f"shared/{n}"][place]) for n in ("layer1", "layer2")}
        of_task = method.weights_of_task(NETWORK, row["task_id"], 0)(kept)
        first, second = (weight.numpy() for weight in of_task.values())
        hidden = np.maximum(x @ first.T, 0)
        right = (hidden @ second.T).argmax(axis=1) == test.labels
        assert row["accuracy_gg"] == row["accuracy_gnu"] == pytest.approx(right.mean(), abs=1e-9)
        assert (row["algorithm"], row["objective"], row["num_gradients"]) == ("given", None, 0)
    first = {r["num_tasks"]: r["accuracy_gg"] for r in rows if r["task_id"] == 0}
    assert first[7] < first[3]  # task 0 is forgotten
    tasks = read_tables(tmp_path / "log", TASKS).to_pylist()
    assert {(row["mask_bytes"], row["density"]) for row in tasks} == {(64, 1.0)}


@pytest.mark.parametrize("method", ["exssnet", "wsn"])
def test_later_checkpoints_do_not_forget_earlier_tasks(method: str, tmp_path: Path) -> None:
    whole = ("evaluate.tasks=null", "evaluate.batches=null", "method_options.density=0.2")
    assert run(configure(tmp_path, f"method={method}", *whole)) == 0
    tasks = read_tables(tmp_path / "log", TASKS).sort_by("task_id").to_pylist()
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    assert len(rows) == 3 + 7
    for row in rows:
        assert row["accuracy_gg"] == tasks[row["task_id"]]["accuracy"]
    free = [row["free_share"] for row in tasks]
    assert 0 < free[-1] < free[0] == pytest.approx(0.8, abs=0.01)
    assert free == sorted(free, reverse=True)
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    sizes = {t["source"]: np.prod(t["shape"]) for t in root.attrs["tensors"]}
    taken = sum(np.bitwise_count(root[f"shared/taken {name}"][-1]).sum() for name in sizes)
    assert free[-1] == pytest.approx(1 - taken / sum(sizes.values()), abs=1e-12)


def test_tasks_with_masks_in_a_trained_base_are_inferred(tmp_path: Path) -> None:
    options = ("evaluate.algorithms=[one_shot,max_logit,given]", "evaluate.tasks=null")
    learns = ("train.steps=150", "network_options.hidden=[64]", "evaluate.num_images=64")
    spare = ("method=jackpots", "method_options.density=0.3", *learns)
    assert run(configure(tmp_path, *spare, *options)) == 0
    first, *others = read_tables(tmp_path / "log", TASKS).sort_by("task_id").to_pylist()
    assert first["accuracy"] > 0.4
    assert first["base_accuracy"] > 0.6
    # The base has learnt the permutation of task 0 only.
    assert max(row["base_accuracy"] for row in others) < 0.4
    assert min(row["accuracy"] for row in others) > 0.3
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert root.attrs["after_task"] == [0]
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    assert {row["algorithm"] for row in rows} == {"one_shot", "max_logit", "given"}
    for algorithm, least in (("one_shot", 0.8), ("max_logit", 0.3)):
        found = [row["task_accuracy"] for row in rows if row["algorithm"] == algorithm]
        assert np.mean(found) > least  # chance is 0.2 for batches of 3 and of 7 tasks together


def test_other_evaluations_need_kept_weights(
    whole_of: Callable[..., Path], typed: Any, tmp_path: Path
) -> None:
    shutil.copytree(whole_of("method=lower_bound"), tmp_path / "run")
    code, _, err = typed(evaluate, "run_dir=run", "evaluate.checkpoints=[5]", "executor=serial")
    assert code == 2
    line = "evaluate.checkpoints must be among the checkpoints with which the run began, "
    assert line in err
    assert "try evaluate.checkpoints=[3]" in err
    code, _, err = typed(
        evaluate, "run_dir=run", "evaluate.tasks=1", "executor=serial", "quiet=true"
    )
    assert code == 0, err
    rows = read_tables(tmp_path / "run" / "evaluations", EVALUATIONS).to_pylist()
    assert {row["num_tasks"] for row in rows} == {3, 7}


@pytest.mark.parametrize("options", [WAYS["mean"], WAYS["lower_bound"]], ids=["mean", "weights"])
def test_a_task_that_fails_stops_the_sequence_until_it_succeeds(
    options: Sequence[str],
    whole_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        train = TrainWorker._run

        def fail(worker: TrainWorker, unit: Any, shared: Any) -> Any:
            if 4 in unit.task_ids:
                raise RuntimeError("no luck")
            return train(worker, unit, shared)

        patched.setattr(TrainWorker, "_run", fail)
        assert run(configure(tmp_path / "run", *options)) == 1
    assert len(read_tables(tmp_path / "run" / "log", TASKS)) == 4
    assert len(read_tables(tmp_path / "run" / "failures", FAILURES)) == 1
    assert run(configure(tmp_path / "run", *options)) == 0
    assert everything(tmp_path / "run") == everything(whole_of(*options))
    assert len(read_tables(tmp_path / "run" / "failures", FAILURES)) == 0


def test_a_state_that_cannot_be_measured_is_tried_again_in_its_place(
    whole_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(whole_of(*WAYS["mean_scores"]))
    measured, tries = TrainWorker._measured, []

    def sometimes(worker: TrainWorker, pairs: Any, shared: Any, failed: Any) -> dict[int, Measured]:
        found = measured(worker, pairs, shared, failed)
        if 2 in found:
            tries.append(2)
            if len(tries) < 3:
                failed[2] = Failure.of(RuntimeError("no luck"))
                del found[2]
        return found

    monkeypatch.setattr(TrainWorker, "_measured", sometimes)
    assert run(configure(tmp_path / "run", *WAYS["mean_scores"])) == 0
    assert len(tries) == 3
    assert everything(tmp_path / "run") == expected


def test_transfer_changes_the_masks_of_all_tasks_but_the_first(tmp_path: Path) -> None:
    rows = []
    for way in ("none", "last"):
        options = (f"train.transfer={way}", "train.block=1", "evaluate.checkpoints=[1]")
        assert run(configure(tmp_path / way, *options)) == 0
        masks = zarr.open_array(tmp_path / way / "masks.zarr" / "masks", mode="r")
        rows.append(np.asarray(masks[:7]))
    assert (rows[0] != rows[1]).any(axis=1).tolist() == [False] + 6 * [True]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("method=lower_bound", "train.block=2"),
            "train.block must be 1 with method=lower_bound and train.transfer=none, because each "
            "task continues with the data of the previous task, got 2: try train.block=1",
        ),
        (
            ("train.transfer=mean_scores", "train.block=2"),
            "train.block must be 1 with method=threshold and train.transfer=mean_scores, because "
            "each task continues with the data of the previous task, got 2: try train.block=1",
        ),
        (
            ("method=lower_bound", "train.transfer=mean"),
            "train.transfer must be none with method=lower_bound, whose first scores cannot start "
            "from earlier masks, got mean: try train.transfer=none",
        ),
        (
            ("method=batche", "train.first_learning_rate=1e-3"),
            "train.first_learning_rate must be null with method=batche, whose tasks do not need "
            "the result of task 0 alone, got 0.001: try train.first_learning_rate=null",
        ),
        (
            ("method=psp", "scenario=nns"),
            "method must be a finder that needs no earlier tasks with scenario=nns, where the "
            "task is not given, got psp, which needs earlier tasks (order: sequence): try "
            "method=threshold",
        ),
        (
            ("method=lower_bound", "evaluate.algorithms=[one_shot]"),
            "evaluate.algorithms must be a list with one or more of given with network=mlp and "
            "method=lower_bound, got [one_shot]: try evaluate.algorithms=[given]",
        ),
        (
            ("method=exssnet", "train.block=2"),
            "train.block must be 1 with method=exssnet and train.transfer=none, because each task "
            "continues with the data of the previous task, got 2: try train.block=1",
        ),
        (
            ("method=wsn", "evaluate.algorithms=[one_shot]"),
            "evaluate.algorithms must be a list with one or more of given with network=mlp and "
            "method=wsn, got [one_shot]: try evaluate.algorithms=[given]",
        ),
        (
            ("method=jackpots", "train.transfer=mean"),
            "train.transfer must be none with method=jackpots, whose first scores cannot start "
            "from earlier masks, got mean: try train.transfer=none",
        ),
        (
            ("method=jackpots", "evaluate.distractors=3"),
            "evaluate.distractors must be 0 with network=mlp and method=jackpots, because tasks "
            "train weights, got 3: try evaluate.distractors=0",
        ),
        (
            ("method=wsn", "evaluate.reservoir=true"),
            "evaluate.reservoir must be false with network=mlp and method=wsn, because tasks train "
            "weights, got true: try evaluate.reservoir=false",
        ),
    ],
)
def test_options_that_do_not_fit_a_sequence_are_refused(
    options: Sequence[str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        run(configure(tmp_path / "run", *options))
    assert str(refused.value) == line
    assert not (tmp_path / "run" / "masks.zarr").exists()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (
            "train.transfer=mean",
            "train.transfer must be none in a search, which trains tasks in any",
        ),
        (
            "method=lower_bound",
            "method must be a finder that needs no earlier tasks in a search",
        ),
    ],
)
def test_a_search_trains_tasks_in_any_order(option: str, line: str, typed: Any) -> None:
    small = ("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=4")
    code, _, err = typed(tune, "run_dir=found", *small, option, "train.learning_rate=0.01,0.02")
    assert code == 2
    assert line in err


@pytest.mark.parametrize("method", ["threshold", "edge_popup"])
def test_given_tasks_need_no_inference(method: str, tmp_path: Path) -> None:
    options = (f"method={method}", "evaluate.algorithms=[given,max_logit]")
    assert run(configure(tmp_path, *options)) == 0
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    given, others = (
        {(r["num_tasks"], r["task_id"]): r for r in rows if r["algorithm"] == name}
        for name in ("given", "max_logit")
    )
    assert given.keys() == others.keys()
    for key, row in given.items():
        assert row["accuracy_gg"] == row["accuracy_gnu"] == others[key]["accuracy_gg"]
        assert (row["task_accuracy"], row["bits_read_fraction"]) == (1, 0)
