"""A new stage is one class and one entry in a command's list, and runs with other stages."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from composing import configured
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.driver.evaluate import Evaluate
from harness.driver.protocol import Shared, Submission, TableUnit
from harness.driver.recall import Recall
from harness.driver.recover import Recover
from harness.driver.start import carry_out
from harness.driver.train import Train
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.executors.serial import SerialExecutor
from harness.places.durable import write_durably
from harness.plan.checkpoints import Checkpoints
from harness.run.directory import open_evaluated, open_trained
from harness.scale import stages
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import FAILURES


def configure(run_dir: Path, *overrides: str) -> Config:
    """Configure a run that takes a second: six small tasks of digits, in blocks of two."""
    given = (
        "data=digits network=mlp network_options.hidden=[8] outputs=12 tasks=6 train.steps=2 "
        "train.block=2 evaluate.batches=1 evaluate.algorithms=[max_logit] "
        f"evaluate.checkpoints=[2,6] executor=serial run_dir={run_dir}"
    )
    return configured(*given.split(), *overrides)


def make_classes() -> tuple[type, type]:
    """Return (unit class, worker class). Ray pickles local classes by value."""

    @dataclass(frozen=True)
    class Unit:
        num_tasks: int
        unlucky: bool

        @property
        def name(self) -> str:
            return f"ones-{self.num_tasks}"

        @property
        def task_ids(self) -> tuple[int, ...]:
            return tuple(range(self.num_tasks))

    class Worker:
        def __init__(self, spec: Any, name: str) -> None:
            self._num_bits = spec.layout.num_bits

        def progress(self) -> float:
            return 0.0

        def run(self, unit: Any, rows: np.ndarray) -> int:
            if unit.unlucky:
                raise RuntimeError("no luck")
            return int(np.unpackbits(rows).sum())

    return Unit, Worker


UNIT, WORKER = make_classes()


class Ones:
    """A stage with its own pool. It writes the number of ones of each checkpoint to a text file."""

    does = "count"
    unlucky = False

    def __init__(self, work: Work) -> None:
        self._folder = work.run.directory / "ones"
        self._sizes = work.config.evaluate.checkpoints
        self._checkpoints = Checkpoints(self._sizes)

    def is_complete(self) -> bool:
        return all((self._folder / f"{k}").exists() for k in self._sizes)

    def asked(self) -> Sequence[TableUnit]:
        return ()

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        return ()

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        self._folder.mkdir(exist_ok=True)
        return {"ones": Pool(WORKER, (shared.spec,), runs_alone_after="train")}

    def due(self, committed: Container[int]) -> Iterator[Submission]:
        for k in self._checkpoints.ready(committed):
            if not (self._folder / f"{k}").exists():
                yield Submission("ones", UNIT(k, self.unlucky), num_masks=k)

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if outcome.error is None:
                path = self._folder / f"{outcome.unit.num_tasks}"
                write_durably(path, str(outcome.result).encode())
        return outcomes

    def show(self, running: Mapping[str, float]) -> None:
        pass


def counted(run_dir: Path) -> dict[int, int]:
    return {int(path.name): int(path.read_text()) for path in (run_dir / "ones").iterdir()}


def ones(run_dir: Path) -> dict[int, int]:
    """Return what the stage must count: checkpoint -> number of ones in its masks."""
    rows = zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[...]
    return {k: int(np.unpackbits(np.asarray(rows[:k])).sum()) for k in (2, 6)}


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_stage_of_one_s_own_runs_beside_the_others(
    executor: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_session")
    config = configure(tmp_path, f"executor={executor}")
    assert carry_out([config], open_trained, [Train, Evaluate, Ones]) == 0
    assert counted(tmp_path) == ones(tmp_path)
    assert len(read_tables(tmp_path / "evaluations", EVALUATIONS)) == 2 + 6

    capsys.readouterr()
    assert carry_out([config], open_trained, [Train, Evaluate, Ones]) == 0
    assert "nothing left to train or evaluate or count" in capsys.readouterr().err


def test_a_stage_runs_alone_on_a_run_that_exists(tmp_path: Path) -> None:
    assert carry_out([configure(tmp_path)], open_trained, [Train]) == 0
    assert len(read_tables(tmp_path / "evaluations", EVALUATIONS)) == 0
    assert carry_out([configure(tmp_path)], open_evaluated, [Ones]) == 0
    assert counted(tmp_path) == ones(tmp_path)


def test_what_fails_in_a_stage_of_one_s_own_is_set_aside_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, "evaluate.checkpoints=[2]")
    with monkeypatch.context() as patched:
        patched.setattr(Ones, "unlucky", True)
        assert carry_out([config], open_trained, [Train, Ones]) == 1
    *_, last, line = capsys.readouterr().err.splitlines()
    assert "failed three times: ones-2 (tasks 0, 1): RuntimeError: no luck" in line
    assert f"({__file__}, line " in line
    kept = Path(last.partition("the last traceback is in ")[2].partition(";")[0])
    assert kept.read_text().endswith("RuntimeError: no luck\n")
    kept.unlink()
    rows = read_tables(tmp_path / "failures", FAILURES).to_pylist()
    assert [(row["pool"], row["unit"], row["task_id"]) for row in rows] == [
        ("ones", "ones-2", 0),
        ("ones", "ones-2", 1),
    ]
    assert carry_out([config], open_trained, [Train, Ones]) == 0
    assert len(read_tables(tmp_path / "failures", FAILURES)) == 0


def test_a_checkpoint_s_masks_are_shared_once_for_all_stages(tmp_path: Path) -> None:
    shared: Counter[int] = Counter()

    class Sharing(SerialExecutor):
        def share(self, value: Any) -> Any:
            if isinstance(value, np.ndarray):
                shared[len(value)] += 1
            return value

    config = configure(tmp_path, "evaluate.reservoir=true", "reservoir.cues=[flipped]")
    assert stages(config) == [Train, Evaluate, Recall, Recover]
    assert carry_out([config], open_trained, [*stages(config), Ones], lambda _: Sharing()) == 0
    assert shared == {2: 1, 6: 1}
