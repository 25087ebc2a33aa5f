"""A learner on a stream: every executor, every stop and every lost worker gives the same bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zarr

from composing import configured
from harness import evaluate, recall, scale
from harness.config.schema import Config
from harness.driver.allocate import Allocate
from harness.driver.start import carry_out
from harness.errors import UserError
from harness.executors.protocol import Outcome
from harness.executors.serial import SerialExecutor
from harness.plan.ownership import Mistakes
from harness.plan.pools import TRAIN, pool_sizes
from harness.plan.units import RunUnit
from harness.progress.of_run import look
from harness.run.directory import open_trained
from harness.scale import run, stages
from harness.status import as_json, lines
from harness.tables.files import read_tables, table_files
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import ALLOCATION, FAILURES, TASKS
from harness.workers.following import FollowWorker, MasksMissing

NOT_COMPARED = ("train_seconds", "worker", "finished_at", "seconds_per_inference")
RUN = (
    *("scenario=nns", "data=digits", "network=mlp", "network_options.hidden=[64]", "outputs=60"),
    *("tasks=4", "train.steps=60", "train.batch_size=64", "train.learning_rate=1e-3"),
    *("allocation.every=20", "evaluate.algorithms=[one_shot]", "evaluate.objectives=[H]"),
    *("evaluate.batches=2", "evaluate.checkpoints=[2,4]", "executor=serial"),
)


def configure(run_dir: Path, *overrides: str) -> Config:
    """Configure a run of a second, in which every decision is right."""
    return configured(*RUN, f"run_dir={run_dir}", *overrides)


def mask_bytes(run_dir: Path, num_masks: int = 4) -> bytes:
    rows = zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[:num_masks]
    return np.asarray(rows).tobytes()


def decisions(run_dir: Path) -> list[dict[str, Any]]:
    return read_tables(run_dir / "allocation", ALLOCATION).to_pylist()


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of all tables, without times and names of workers."""
    found = [
        *decisions(run_dir),
        *read_tables(run_dir / "log", TASKS).to_pylist(),
        *read_tables(run_dir / "evaluations", EVALUATIONS).to_pylist(),
    ]
    kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in found]
    return sorted(kept, key=repr)


def same(one: Path, other: Path) -> bool:
    return (mask_bytes(one), rows(one)) == (mask_bytes(other), rows(other))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("whole")
    assert run(configure(run_dir)) == 0
    return run_dir


def test_every_decision_is_in_the_table(whole: Path) -> None:
    found = decisions(whole)
    assert [row["batch"] for row in found] == [20 * i for i in range(12)]
    assert [row["task_id"] for row in found] == [row["mask"] for row in found]
    assert [row["allocated"] for row in found] == [True, False, False] * 4
    assert [row["num_masks"] for row in found] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]
    first, *others = found
    assert first["score"] is first["threshold"] is None
    assert all((row["score"] >= row["threshold"]) == (not row["allocated"]) for row in others)


def test_with_right_decisions_the_masks_are_those_of_given_tasks(
    whole: Path, tmp_path: Path
) -> None:
    assert run(configure(tmp_path, "scenario=gn", "train.block=1")) == 0
    assert mask_bytes(tmp_path) == mask_bytes(whole)
    seconds = ("train_seconds", "worker", "finished_at")
    given, streamed = (
        [{k: v for k, v in row.items() if k not in seconds} for row in table]
        for table in (read_tables(one / "log", TASKS).to_pylist() for one in (tmp_path, whole))
    )
    assert given == streamed
    ours, theirs = (read_tables(one / "evaluations", EVALUATIONS) for one in (whole, tmp_path))
    for name in ("task_id", "task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu"):
        assert ours[name].to_pylist() == theirs[name].to_pylist()


class Stopping(SerialExecutor):
    """An executor that is stopped after some training units."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self._left = num_units

    def poll(self) -> list[Outcome]:
        outcomes = super().poll()
        self._left -= sum(one.pool == TRAIN for one in outcomes)
        if self._left < 0:
            raise KeyboardInterrupt
        return outcomes


@pytest.mark.parametrize("num_units", [0, 1, 3])
def test_a_stopped_stream_goes_on_to_the_same_bytes(
    num_units: int, whole: Path, tmp_path: Path
) -> None:
    config = configure(tmp_path)
    made = stages(config)
    assert carry_out([config], open_trained, made, lambda _: Stopping(num_units)) == 130
    assert len(read_tables(tmp_path / "log", TASKS)) == num_units
    assert run(config) == 0
    assert same(tmp_path, whole)


def test_a_mask_whose_commit_was_cut_off_is_trained_again(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for name in ("log/mask-000002.parquet", "log/mask-000003.parquet"):
        (tmp_path / "run" / name).unlink()
    assert run(configure(tmp_path / "run")) == 0
    assert same(tmp_path / "run", whole)


def test_lost_decisions_are_made_again(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/allocation/mask-000001.parquet").write_bytes(b"damaged")
    assert run(configure(tmp_path / "run")) == 0
    assert same(tmp_path / "run", whole)
    assert (tmp_path / "run/allocation/mask-000001.parquet.broken").exists()


class Forgetful(SerialExecutor):
    """An executor whose worker is replaced once, before some unit. It counts shared masks."""

    def __init__(self, before: str) -> None:
        super().__init__()
        self._before: str | None = before
        self.shared: list[int] = []
        self.asked = 0

    def share(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            self.shared.append(len(value))
        return value

    def submit(self, pool: str, unit: RunUnit, *arguments: Any) -> None:
        if pool == TRAIN and unit.name == self._before:
            self._workers.pop(TRAIN, None)
            self._before = None
        super().submit(pool, unit, *arguments)

    def poll(self) -> list[Outcome]:
        outcomes = super().poll()
        self.asked += sum(isinstance(one.result, MasksMissing) for one in outcomes)
        return outcomes


@pytest.mark.parametrize(("before", "sent"), [("never", []), ("mask-000002", [2])])
def test_masks_are_sent_only_to_a_worker_that_lacks_them(
    before: str, sent: list[int], whole: Path, tmp_path: Path
) -> None:
    executor = Forgetful(before)
    config = configure(tmp_path)
    assert carry_out([config], open_trained, [Allocate], lambda _: executor) == 0
    assert (executor.shared, executor.asked) == (sent, len(sent))
    assert mask_bytes(tmp_path) == mask_bytes(whole)
    assert decisions(tmp_path) == decisions(whole)


def test_ray_gives_the_results_of_the_serial_executor(
    whole: Path, tmp_path: Path, ray_session: ModuleType
) -> None:
    assert run(configure(tmp_path, "executor=ray")) == 0
    assert same(tmp_path, whole)
    workers = read_tables(tmp_path / "log", TASKS)["worker"].to_pylist()
    assert workers == ["train-1"] * 4  # one actor keeps the masks from unit to unit


def test_a_unit_that_fails_ends_the_stream_until_the_next_start(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow: Callable[..., Any] = FollowWorker._follow

    def fail(self: FollowWorker, unit: Any) -> Any:
        if unit.mask == 3:
            raise RuntimeError("no luck")
        return follow(self, unit)

    config = configure(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(FollowWorker, "_follow", fail)
        assert run(config) == 1
    (failed,) = read_tables(tmp_path / "failures", FAILURES).to_pylist()
    assert (failed["unit"], failed["task_id"]) == ("mask-000003", 3)
    assert len(read_tables(tmp_path / "log", TASKS)) == 3
    assert run(config) == 0
    assert len(read_tables(tmp_path / "failures", FAILURES)) == 0
    assert same(tmp_path, whole)


def test_false_splits_do_not_count_as_wrong_tasks(tmp_path: Path) -> None:
    """With such a threshold, each decision allocates a mask until the budget is used up."""
    config = configure(tmp_path, "allocation.threshold=1000", "allocation.budget=7")
    assert run(config) == 0
    found = decisions(tmp_path)
    assert [row["mask"] for row in found] == [*range(7), *[None] * 5]
    assert read_tables(tmp_path / "log", TASKS)["steps"].to_pylist() == [20] * 7
    table = {
        (row["num_tasks"], row["task_id"]): row
        for row in read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    }
    # Tasks 0 and 1 have three masks each, task 2 has one, and task 3 was skipped.
    assert {key for key, row in table.items() if not row["accuracy_gg"]} == {(4, 3)}
    assert table[4, 3]["task_accuracy"] == table[4, 3]["accuracy_gnu"] == 0
    assert table[4, 3]["accuracy_gns"] > 0  # the prediction of some mask counts
    assert table[2, 0]["task_accuracy"] > 0.5


def test_a_run_can_be_evaluated_again(whole: Path, tmp_path: Path, typed: Any) -> None:
    shutil.copytree(whole, tmp_path / "run")
    ended = typed(
        evaluate,
        *(f"run_dir={tmp_path / 'run'}", "evaluate.checkpoints=[3]", "executor=serial"),
        *("evaluate.algorithms=[max_logit]", "evaluate.objectives=[]"),
    )
    assert ended[0] == 0, ended[2]
    found = read_tables(tmp_path / "run/evaluations", EVALUATIONS).to_pylist()
    assert [row["task_id"] for row in found if row["num_tasks"] == 3] == [0, 1, 2]
    beyond = typed(
        evaluate, f"run_dir={tmp_path / 'run'}", "evaluate.checkpoints=[5]", "executor=serial"
    )
    assert beyond[0] == 2


def test_status_counts_tasks_masks_and_mistakes(whole: Path, tmp_path: Path) -> None:
    seen = look(whole)
    assert (seen.committed, seen.state, seen.broken) == (4, "complete", [])
    assert seen.mistakes == Mistakes(4, 4, 0, 0, 0)
    told = "4 of 4 tasks seen, 4 masks allocated for 4 tasks: 0 false splits, 0 false merges"
    assert any(told in line for line in lines(seen))
    assert as_json(seen)["allocation"]["num_masks"] == 4

    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/log/mask-000003.parquet").unlink()
    seen = look(tmp_path / "run")
    assert (seen.committed, seen.is_whole) == (3, False)


def test_the_result_says_how_many_masks_were_allocated(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(configure(whole)) == 0
    printed = capsys.readouterr()
    assert "4 masks allocated for 4 tasks: 0 false splits, 0 false merges" in printed.out
    assert "nothing left to follow the stream or evaluate" in printed.err


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("train.block=2", "train.block must be auto or 1 with scenario=nns"),
        ("actors.shards=2", "actors.shards must be 1 with scenario=nns, got 2"),
        ("actors.side_by_side=2", "actors.side_by_side must be auto or 1 with scenario=nns"),
        ("evaluate.reservoir=true", "evaluate.reservoir must be false with scenario=nns"),
        ("allocation.rule=largest", "allocation.rule must be one of margin, paper"),
        ("allocation.every=0", "allocation.every must be a whole number in [1, 10000000], got 0"),
    ],
)
def test_what_a_stream_does_not_allow_is_one_line(
    overrides: str, line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line.replace("[", r"\[")):
        configure(tmp_path, *overrides.split())


def test_g_needs_superfluous_neurons(tmp_path: Path) -> None:
    given = ("outputs=10", "evaluate.objectives=[H]", "allocation.objective=G")
    with pytest.raises(UserError, match=r"allocation.objective must be .* got G: try"):
        run(configure(tmp_path, *given))


def test_shuffled_copies_need_bits(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"allocation.rule must be paper with .* no bits to shuffle"
    ):
        run(configure(tmp_path, "method=heads"))


def test_recall_refuses_the_masks_of_a_stream(whole: Path, typed: Any) -> None:
    code, _, errors = typed(recall, f"run_dir={whole}", "executor=serial")
    assert code == 2
    assert "scenario must be gn for a recall, got nns" in errors


def test_one_actor_follows_the_stream_and_the_others_evaluate(tmp_path: Path) -> None:
    train, evaluation = pool_sizes(configure(tmp_path), cpus=8, gpus=0)
    assert (train.actors, evaluation.actors, evaluation.cpus) == (1, 7, 1.0)
    train, evaluation = pool_sizes(configure(tmp_path), cpus=8, gpus=1.0)
    assert (train.actors, train.cpus, train.gpus) == (1, 1.0, 0.0)
    assert evaluation.gpus == 0.25


def test_the_folder_s_name_has_the_scenario(tmp_path: Path, typed: Any) -> None:
    code, _, errors = typed(scale, *RUN, "quiet=true")
    assert code == 0, errors
    (folder,) = Path("runs").iterdir()
    assert "-nns" in folder.name
    assert len(table_files(folder / "allocation")) == 4
