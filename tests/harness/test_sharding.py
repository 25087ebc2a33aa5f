"""Evaluation by several actors that each hold a part of the masks."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from harness import evaluate, scale
from harness.commandline import main_guard
from harness.executors import Outcome
from harness.plan import EvaluationUnit
from harness.results import EVALUATIONS, read_table_file
from harness.sharding import (
    CountUnit,
    LeadersUnit,
    PartAnswers,
    ScoreUnit,
    ShardedEvaluation,
    agreed,
    shard_pool,
)
from supsup_core.shards import Leaders

RUN = (
    *("data=digits", "network=mlp", "hidden=[16]", "outputs=20", "tasks=7", "train.block=2"),
    *("train.steps=20", "train.batch_size=32", "evaluate.batches=2", "evaluate.batch_size=16"),
    *("evaluate.algorithms=[one_shot,one_shot_ranked]", "evaluate.checkpoints=[1,3,7]"),
)


def typed(monkeypatch, job, *arguments):
    monkeypatch.setattr(sys, "argv", [job.__file__, *arguments])
    try:
        main_guard(job.main)
    except SystemExit as ended:
        return ended.code
    return 0


def rows_of(run):
    """All evaluations, but for what they took and how far the scan had to read."""
    tables = [read_table_file(path, EVALUATIONS) for path in sorted(run.glob("evaluations/*"))]
    return pa.concat_tables(tables).drop_columns(["seconds_per_inference", "bits_read_fraction"])


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_shards_leave_the_rows_that_one_actor_leaves(tmp_path, monkeypatch, request, executor):
    if executor == "ray":
        request.getfixturevalue("ray_session")
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, scale, *RUN, "executor=serial", "run_dir=one") == 0
    sharded = (*RUN, f"executor={executor}", "run_dir=three", "actors.shards=3")
    assert typed(monkeypatch, scale, *sharded) == 0
    one, three = rows_of(tmp_path / "one"), rows_of(tmp_path / "three")
    assert one.num_rows == 2 * 2 * (1 + 3 + 7)
    assert three.equals(one)
    # The masks of a run say nothing about how it was evaluated.
    again = (f"executor={executor}", "evaluate.num_images=4", *RUN[-2:-1], "run_dir=three")
    assert typed(monkeypatch, evaluate, *again, "actors.shards=2") == 0
    assert rows_of(tmp_path / "three").num_rows == one.num_rows + 2 * 2 * 7


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("evaluate.algorithms=[one_shot,binary]", "got binary"),
        ("evaluate.distractors=3", "evaluate.distractors must be 0"),
        ("actors.shards=0", "actors.shards must be"),
    ],
)
def test_what_parts_cannot_do_is_refused(tmp_path, monkeypatch, capsys, option, told):
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, scale, *RUN, "actors.shards=2", option) == 2
    assert told in capsys.readouterr().err


class Recorder:
    """An executor that does nothing but note what it is handed."""

    def __init__(self):
        self.submitted = []

    def share(self, value):
        return value

    def submit(self, pool, unit, *arguments):
        self.submitted.append((pool, unit, arguments))


def answers(tasks, products, num_masks=5, exact=None):
    found = Leaders(np.array(tasks), np.array(products), 0.5)
    exactly = None if exact is None else Leaders(np.array(exact), np.array(products), 1.0)
    return PartAnswers(found, exactly, 0.1 * num_masks, num_masks)


def test_parts_agree_on_the_smallest_product():
    together = agreed(
        [answers([0, 4], [-1.0, 3.0], 5, exact=[0, 3]), answers([5, 6], [-1.0, 2.0], 3, [5, 6])]
    )
    assert together.tasks == [0, 6]
    assert together.agreement == 1.0
    assert together.seconds == pytest.approx(0.5)  # parts answer at once
    assert together.bits_read_fraction == pytest.approx(0.5)


UNITS = [EvaluationUnit(4, "one_shot", objective, (0, 1)) for objective in "HG"]


@pytest.fixture
def begun():
    """Two units of a checkpoint of four masks, whose two parts are being counted."""
    recorder = Recorder()
    sharded = ShardedEvaluation(recorder, 2, lambda ids: np.array(ids)[:, None])
    sharded.submit(4, UNITS)
    return sharded, recorder


def test_steps_follow_each_other(begun):
    sharded, recorder = begun
    counting = recorder.submitted[:]
    assert [(pool, arguments[0].tolist()) for pool, _, arguments in counting] == [
        (shard_pool(0), [[0], [1]]),
        (shard_pool(1), [[2], [3]]),
    ]
    for pool, unit, _ in counting:
        assert len(recorder.submitted) == 2
        assert sharded.settle(Outcome(pool, unit, np.array([1, 2]))) == []
    asked = recorder.submitted[2:]
    assert [arguments[1].tolist() for _, _, arguments in asked] == [[2, 4]] * 4
    for pool, unit, _ in asked[:2]:
        found = answers([2 * unit.place, 2 * unit.place], [-1.0 * unit.place, 0.0])
        assert sharded.settle(Outcome(pool, unit, found)) == []
    [(pool, unit, arguments)] = recorder.submitted[6:]
    assert (unit.asked, unit.answers.tasks, arguments) == (UNITS[0], [2, 0], ())
    assert {task: row.tolist() for task, row in unit.rows.items()} == {0: [0], 1: [1], 2: [2]}
    assert sharded.settle(Outcome(pool, unit, "rows")) == [Outcome(pool, UNITS[0], "rows")]


def test_a_part_that_cannot_be_counted_ends_all_units_once(begun):
    sharded, _ = begun
    ended = sharded.settle(Outcome("shard-0", CountUnit(4, 0), error="broken"))
    assert [(one.unit, one.error) for one in ended] == [(unit, "broken") for unit in UNITS]
    assert sharded.settle(Outcome("shard-1", CountUnit(4, 1), np.array([1]))) == []


def test_a_part_that_cannot_answer_ends_its_unit_and_no_other(begun):
    sharded, recorder = begun
    for place in range(2):
        sharded.settle(Outcome(shard_pool(place), CountUnit(4, place), np.array([1])))
    first, second = (LeadersUnit(UNITS[0], place, 2 * place) for place in range(2))
    [ended] = sharded.settle(Outcome("shard-0", first, error="broken"))
    assert (ended.unit, ended.error) == (UNITS[0], "broken")
    assert sharded.settle(Outcome("shard-1", second, answers([2, 2], [0.0, 0.0]))) == []
    assert sharded.settle(Outcome("shard-1", second, error="broken too")) == []
    for place in range(2):
        step = LeadersUnit(UNITS[1], place, 2 * place)
        sharded.settle(Outcome(shard_pool(place), step, answers([place, 0], [1.0 * place, 0.0])))
    assert isinstance(recorder.submitted[-1][1], ScoreUnit)
