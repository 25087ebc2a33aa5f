"""Evaluation by several actors. Each actor holds a part of the masks."""

import numpy as np
import pyarrow as pa
import pytest

from composing import configured
from harness import evaluate, scale
from harness.config.compose import compose_overrides, unchecked
from harness.driver import start
from harness.driver.sharding import ShardedEvaluation, shard_pool
from harness.executors.protocol import Outcome
from harness.plan.pools import TRAIN
from harness.plan.units import EvaluationUnit
from harness.tables.files import read_table_file
from harness.tables.inference import EVALUATIONS, QUERIES
from harness.workers.shard import CountUnit, LeadersUnit, PartAnswers, ScoreUnit, agreed
from supsup_core.bits.shards import Leaders

RUN = (
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=7"),
    *("train.block=2",),
    *("train.steps=20", "train.batch_size=32", "evaluate.batches=2", "evaluate.batch_size=16"),
    *("evaluate.algorithms=[one_shot,one_shot_ranked]", "evaluate.checkpoints=[1,3,7]"),
)


def rows_of(run):
    """Return all evaluations, without their seconds and the share of bits that the scan read."""
    tables = [read_table_file(path, EVALUATIONS) for path in sorted(run.glob("evaluations/*"))]
    return pa.concat_tables(tables).drop_columns(["seconds_per_inference", "bits_read_fraction"])


def exact_queries_of(run):
    """Return the rows of the table `queries` of exact one-shot."""
    files = sorted(run.glob("queries/*-one_shot-*"))
    return pa.concat_tables([read_table_file(path, QUERIES) for path in files])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The evaluations and the queries of a run with one evaluation actor."""
    run_dir = tmp_path_factory.mktemp("one")
    assert scale.run(configured(*RUN, "executor=serial", f"run_dir={run_dir}")) == 0
    found = rows_of(run_dir)
    assert found.num_rows == 2 * 2 * (1 + 3 + 7)
    return found, exact_queries_of(run_dir)


def test_shards_leave_the_rows_that_one_actor_leaves(tmp_path, typed, one):
    run_dir = f"run_dir={tmp_path}"
    assert typed(scale, *RUN, "executor=serial", run_dir, "actors.shards=3")[0] == 0
    assert rows_of(tmp_path).equals(one[0])
    assert exact_queries_of(tmp_path).equals(one[1])
    # A run's masks do not depend on its number of shards, so two shards can evaluate it too.
    again = ("executor=serial", "evaluate.num_images=4", *RUN[-2:-1], run_dir)
    assert typed(evaluate, *again, "actors.shards=2")[0] == 0
    assert rows_of(tmp_path).num_rows == one[0].num_rows + 2 * 2 * 7


@pytest.mark.long
def test_shards_on_ray_leave_the_rows_that_one_actor_leaves(tmp_path, typed, ray_session, one):
    sharded = ("executor=ray", f"run_dir={tmp_path}", "actors.shards=2")
    assert typed(scale, *RUN, *sharded)[0] == 0
    assert rows_of(tmp_path).equals(one[0])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("evaluate.algorithms=[one_shot,binary]", "got [one_shot,binary]"),
        ("evaluate.distractors=3", "evaluate.distractors must be 0"),
        ("actors.shards=0", "actors.shards must be"),
    ],
)
def test_what_parts_cannot_do_is_refused(typed, option, told):
    code, _, err = typed(scale, *RUN, "actors.shards=2", option)
    assert (code, told in err) == (2, True)


def test_on_a_cluster_of_gpus_each_part_reserves_a_cpu_of_a_worker(monkeypatch):
    """An actor that reserves nothing may be put on the head, which has no CPU for it."""
    monkeypatch.setattr(start, "RayExecutor", lambda sizes: sizes)
    config = compose_overrides([*RUN, "executor=ray", "actors.shards=3"])
    pools = start.make_executor(unchecked(config))(32, 8.0)
    assert list(pools) == [TRAIN, *map(shard_pool, range(3))]
    assert pools.pop(TRAIN).gpus > 0
    for pool in pools.values():
        assert (pool.actors, pool.actors_alone, pool.cpus, pool.gpus) == (1, 1, 1.0, 0.0)


class Recorder:
    """A stand-in for the driver's loop: it only records the submitted units."""

    def __init__(self):
        self.submitted = []

    def submit(self, due):
        assert due.num_masks is None
        self.submitted.append((due.pool, due.unit, due.arguments))


def answers(tasks, products, num_masks=5, exact=None):
    # The runner-up of a part is the next task, with a product that is larger by 10.
    both = np.stack([products, np.add(products, 10.0)])
    found = Leaders(np.stack([tasks, np.add(tasks, 1)]), both, 0.5)
    exactly = None if exact is None else Leaders(np.stack([exact, np.add(exact, 1)]), both, 1.0)
    return PartAnswers(found, exactly, 0.1 * num_masks, num_masks)


def test_parts_agree_on_the_smallest_product():
    together = agreed(
        [answers([0, 4], [-1.0, 3.0], 5, exact=[0, 3]), answers([5, 6], [-1.0, 2.0], 3, [5, 6])]
    )
    assert together.tasks == [0, 6]
    assert together.found.runners_up.tolist() == [5, 4]
    assert together.found.margins.tolist() == [0.0, 1.0]
    assert together.agreement == 1.0
    assert together.seconds == pytest.approx(0.5)  # parts answer at the same time
    assert together.found.bits_read_fraction == pytest.approx(0.5)


def unit_of(num_tasks, objective="H", first=0):
    return EvaluationUnit(num_tasks, "one_shot", objective, (first, first + 1))


UNITS = [unit_of(4, objective) for objective in "HG"]


@pytest.fixture
def begun():
    """A ShardedEvaluation that counts a checkpoint of four masks in two parts, and its Recorder."""
    recorder = Recorder()
    sharded = ShardedEvaluation(
        lambda value: value, recorder.submit, 2, lambda ids: np.array(ids)[:, None]
    )
    sharded.submit(4, UNITS)
    return sharded, recorder


def count_all(sharded, num_tasks=4):
    for place in range(2):
        sharded.settle(Outcome(shard_pool(place), CountUnit(num_tasks, place), np.array([1, 2])))


def answer_all(sharded, unit, products=(0.0, -1.0)):
    for place in range(2):
        found = answers([2 * place] * 2, [products[place]] * 2)
        sharded.settle(Outcome(shard_pool(place), LeadersUnit(unit, place, 2 * place), found))


def test_steps_follow_each_other(begun):
    sharded, recorder = begun
    assert [(pool, arguments[0].tolist()) for pool, _, arguments in recorder.submitted] == [
        (shard_pool(0), [[0], [1]]),
        (shard_pool(1), [[2], [3]]),
    ]
    count_all(sharded)
    asked = recorder.submitted[2:]
    assert [arguments[1].tolist() for _, _, arguments in asked] == [[2, 4]] * 4
    answer_all(sharded, UNITS[0])
    [(pool, unit, arguments)] = recorder.submitted[6:]
    assert (unit.asked, unit.answers.tasks, arguments) == (UNITS[0], [2, 2], ())
    assert {task: row.tolist() for task, row in unit.rows.items()} == {0: [0], 1: [1], 2: [2]}
    assert sharded.settle(Outcome(pool, unit, "rows")) == [Outcome(pool, UNITS[0], "rows")]


def test_units_are_scored_by_all_shards_and_few_wait(begun):
    sharded, recorder = begun
    many = [unit_of(4, first=2 * i) for i in range(6)]
    for unit in UNITS:
        sharded._now.waiting.remove(unit)
    sharded._now.waiting.extend(many)
    count_all(sharded)
    scorers, seen = [], set()
    for _ in many:
        begun_units = {u.asked.name: u.asked for _, u, _ in recorder.submitted[2:]}
        under_way = [u for name, u in begun_units.items() if name not in seen]
        assert 1 <= len(under_way) <= 3
        answer_all(sharded, under_way[0])
        pool, unit, _ = recorder.submitted[-1]
        scorers.append(pool)
        seen.add(unit.asked.name)
        sharded.settle(Outcome(pool, unit, "rows"))
    assert scorers == ["shard-0", "shard-1"] * 3
    assert seen == {unit.name for unit in many}


def test_a_checkpoint_waits_for_the_one_before(begun):
    sharded, recorder = begun
    later = unit_of(6)
    sharded.submit(6, [later])
    count_all(sharded)
    for unit in UNITS:
        answer_all(sharded, unit)
        assert not any(
            isinstance(u, CountUnit) and u.num_tasks == 6 for _, u, _ in recorder.submitted
        )
        pool, score, _ = recorder.submitted[-1]
        sharded.settle(Outcome(pool, score, "rows"))
    assert [unit for _, unit, _ in recorder.submitted[-2:]] == [CountUnit(6, 0), CountUnit(6, 1)]


def test_a_part_that_cannot_be_counted_ends_all_units_once_and_no_later_checkpoint(begun):
    sharded, recorder = begun
    sharded.submit(6, [unit_of(6)])
    ended = sharded.settle(Outcome("shard-0", CountUnit(4, 0), error="broken"))
    assert [one.unit for one in ended] == UNITS
    assert {one.error for one in ended} == {"count of part 0 of 4 masks: broken"}
    assert sharded.settle(Outcome("shard-1", CountUnit(4, 1), np.array([1]))) == []
    count_all(sharded, 6)
    assert isinstance(recorder.submitted[-1][1], LeadersUnit)


def test_a_part_that_cannot_answer_ends_its_unit_and_no_other(begun):
    sharded, recorder = begun
    count_all(sharded)
    first, second = (LeadersUnit(UNITS[0], place, 2 * place) for place in range(2))
    [ended] = sharded.settle(Outcome("shard-0", first, error="broken"))
    assert (ended.unit, ended.error) == (UNITS[0], f"{first.name}: broken")
    assert sharded.settle(Outcome("shard-1", second, answers([2, 2], [0.0, 0.0]))) == []
    assert sharded.settle(Outcome("shard-1", second, error="broken too")) == []
    answer_all(sharded, UNITS[1])
    assert isinstance(recorder.submitted[-1][1], ScoreUnit)


def test_a_unit_that_cannot_be_scored_ends_alone(begun):
    sharded, recorder = begun
    count_all(sharded)
    answer_all(sharded, UNITS[0])
    pool, score, _ = recorder.submitted[-1]
    [ended] = sharded.settle(Outcome(pool, score, error="broken"))
    assert (ended.unit, ended.error) == (UNITS[0], f"score of {UNITS[0].name}: broken")
    answer_all(sharded, UNITS[1])
    assert recorder.submitted[-1][1].asked == UNITS[1]


@pytest.mark.long
def test_a_shard_that_dies_is_replaced(tmp_path, typed, monkeypatch, ray_session):
    """The first unit of each kind kills its actor."""
    import os

    from harness.driver import evaluate as driver

    flags = tmp_path / "flags"
    flags.mkdir()

    class Mortal(driver.ShardWorker):
        def run(self, unit, *arguments):
            flag = flags / type(unit).__name__
            if not flag.exists():
                flag.touch()
                os._exit(1)
            return super().run(unit, *arguments)

    assert typed(scale, *RUN, "executor=serial", "run_dir=one")[0] == 0
    monkeypatch.setattr(driver, "ShardWorker", Mortal)
    sharded = (*RUN, "executor=ray", "run_dir=two", "actors.shards=2")
    assert typed(scale, *sharded)[0] == 0
    assert sorted(path.name for path in flags.iterdir()) == [
        "CountUnit",
        "LeadersUnit",
        "ScoreUnit",
    ]
    assert rows_of(tmp_path / "two").equals(rows_of(tmp_path / "one"))
