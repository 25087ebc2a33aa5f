"""The results of training and evaluation workers agree with plain calculations."""

import io
from collections.abc import Callable
from dataclasses import replace
from math import ceil, log2
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from composing import configured
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.plan.evaluation import evaluation_units
from harness.plan.resolve import resolve
from harness.plan.units import EvaluationUnit, TrainUnit
from harness.run.spec import RunSpec
from harness.workers.answers import compared
from harness.workers.evaluating import EvaluateWorker
from harness.workers.query_rows import as_png
from harness.workers.shard import CountUnit, LeadersUnit, PartAnswers, ShardWorker
from harness.workers.training import TrainedUnit, TrainWorker
from supsup_core.bits.infer import BitInference
from supsup_core.data import ImageSet, normalise
from supsup_core.engines.bits import BitsEngine
from supsup_core.inference.algorithms import one_shot
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import AutogradSlopes
from supsup_core.networks.mlp import MLP, forward
from supsup_core.states.bits import DenseStates
from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Task
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.measure import PlainMeasure
from supsup_core.training.recipe import Recipe

NUM_TASKS = 6
ALL = tuple(range(NUM_TASKS))


def resolved(config: Config) -> Config:
    """Return the configuration that a run stores, with the algorithms of its network and finder."""
    probe = RunSpec(resolved_options(config), (1, 8, 8), 10)
    return resolve(probe.config, probe.capabilities, bfloat16_is_faster=False)


def make_job(*overrides: str) -> RunSpec:
    """Make the spec of six digits tasks in one block, which train for 12 steps only.

    After so few steps, one image does not always identify its task.
    """
    given = (
        "data=digits network=mlp network_options.hidden=[24] outputs=20 tasks=6 train.steps=12 "
        "train.learning_rate=0.01 train.smoothing=0.9 train.block=6 train.dtype=float32 "
        "evaluate.checkpoints=[6]"
    )
    config = configured(*given.split(), *overrides)
    return RunSpec(resolved(config), (1, 8, 8), 10)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def test_set(digits: Dataset) -> ImageSet:
    return digits.test


@pytest.fixture(scope="module")
def train_worker(digits: Dataset, test_set: ImageSet) -> TrainWorker:
    return TrainWorker(make_job(), digits.train, test_set, name="here")


@pytest.fixture(scope="module")
def trained(train_worker: TrainWorker) -> TrainedUnit:
    return train_worker.run(TrainUnit("unit-000000", ALL, ALL))


def evaluate(
    spec: RunSpec, test_set: ImageSet, rows: np.ndarray, unit: EvaluationUnit
) -> list[dict[str, object]]:
    return tables_of(spec, test_set, rows, unit)["evaluations"].to_pylist()


def tables_of(
    spec: RunSpec, test_set: ImageSet, rows: np.ndarray, unit: EvaluationUnit
) -> dict[str, pa.Table]:
    tables = EvaluateWorker(spec, test_set, name="here").run(unit, rows[: unit.num_tasks])
    assert isinstance(tables, dict)
    return tables


def evaluate_all(
    spec: RunSpec, test_set: ImageSet, rows: np.ndarray, num_tasks: int
) -> list[dict[str, object]]:
    units = evaluation_units(spec.config, num_tasks)
    return [row for unit in units for row in evaluate(spec, test_set, rows, unit)]


@pytest.mark.parametrize("algorithm", ["one_shot", "one_shot_ranked", "max_logit"])
def test_queries_say_what_the_evaluations_count(
    test_set: ImageSet, trained: TrainedUnit, algorithm: str
) -> None:
    spec = make_job("evaluate.batches=3", "evaluate.batch_size=40", "evaluate.num_images=2")
    objective = None if algorithm == "max_logit" else "G"
    found = tables_of(spec, test_set, trained.rows, EvaluationUnit(6, algorithm, objective, ALL))
    queries, counts = found["queries"].to_pandas(), found["evaluations"].to_pandas()
    assert len(queries) == counts["num_batches"].sum() == 18
    by_task = queries.groupby("task_id")
    assert by_task["right"].mean().tolist() == counts["task_accuracy"].tolist()
    assert (queries["right"] == (queries["inferred"] == queries["task_id"])).all()
    assert by_task["batch"].apply(list).tolist() == [[0, 1, 2]] * 6
    named = queries["runner_up"].notna()
    assert (queries["runner_up"] != queries["inferred"]).all()
    assert (queries.loc[queries["margin"].notna(), "margin"] >= 0).all()
    assert named.all()
    # A picture shows the query's image as its task shows it.
    shown = queries[queries["picture"].notna()]
    assert sorted(shown["right"]) == [False] * (len(shown) - 1) + [True]
    for one in shown.itertuples():
        pixels = spec.task(one.task_id).images(test_set.images[[one.image]])[0]
        assert np.array_equal(Image.open(io.BytesIO(one.picture)), pixels.reshape(8, 8))


def test_given_tasks_have_no_queries(test_set: ImageSet, trained: TrainedUnit) -> None:
    unit = EvaluationUnit(6, "given", None, (0,))
    found = tables_of(make_job("evaluate.batches=1"), test_set, trained.rows, unit)
    assert list(found) == [unit.table]
    assert unit.details == ()


@pytest.mark.parametrize(
    ("shape", "size"), [((9, 7), (7, 9)), ((1, 9, 7), (7, 9)), ((3, 8, 6), (6, 8))]
)
def test_pictures_are_of_images_in_grey_or_in_colour(
    shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = as_png(pixels)
    assert found is not None
    image = Image.open(io.BytesIO(found))
    assert image.size == size
    assert np.array_equal(
        np.asarray(image), pixels.transpose(1, 2, 0) if shape[0] == 3 else pixels.reshape(9, 7)
    )


@pytest.mark.parametrize("shape", [(64,), (2, 8, 8), (65, 65)])
def test_other_or_large_images_have_no_picture(shape: tuple[int, ...]) -> None:
    assert as_png(np.zeros(shape, np.uint8)) is None


def test_missing_masks_of_a_block_are_made_again_bit_for_bit(
    train_worker: TrainWorker, trained: TrainedUnit
) -> None:
    again = train_worker.run(TrainUnit("unit-000000", ALL, (1, 4)))
    assert again.rows.tobytes() == trained.rows[[1, 4]].tobytes()
    assert again.tasks["task_id"].to_pylist() == [1, 4]
    for column in ("accuracy", "loss", "density"):
        assert again.tasks[column].to_pylist() == trained.tasks[column].take([1, 4]).to_pylist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["permuted", "rotated"])
@pytest.mark.parametrize("bad", [0, 3])
def test_the_other_masks_of_a_block_do_not_change_where_a_task_cannot_be_made(
    bad: int, family: str, dtype: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_job(f"family={family}", f"train.dtype={dtype}", "network_options.hidden=[130,70]")
    unit = TrainUnit("unit-000000", ALL, ALL)
    worker = TrainWorker(spec, digits.train, digits.test, name="test")
    whole, make = worker.run(unit), RunSpec.task

    def fail(spec: RunSpec, task_id: int) -> Task:
        if task_id == bad:
            raise OSError("no data")
        return make(spec, task_id)

    monkeypatch.setattr(RunSpec, "task", fail)
    others = worker.run(unit)
    assert {task: error.line for task, error in others.failed.items()} == {
        bad: f"OSError: no data ({__file__}, line {fail.__code__.co_firstlineno + 2})"
    }
    kept = [i for i in ALL if i != bad]
    assert others.tasks["task_id"].to_pylist() == kept
    assert (others.rows == whole.rows[kept]).all()


def test_what_a_task_of_the_split_family_raises_is_the_blocks(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_job("family=split", "tasks=5", "train.block=5", "evaluate.checkpoints=[5]")
    worker, make = TrainWorker(spec, digits.train, digits.test, name="test"), RunSpec.task

    def fail(spec: RunSpec, task_id: int) -> Task:
        if task_id == 1:
            raise OSError("no data")
        return make(spec, task_id)

    monkeypatch.setattr(RunSpec, "task", fail)
    with pytest.raises(OSError, match="no data"):
        worker.run(TrainUnit("unit-000000", (0, 1), (0, 1)))


def test_the_recipe_is_all_that_train_says() -> None:
    spec = make_job(
        "train.batch_size=9", "train.decay=linear", "train.temperature=0.5",
        "train.optimizer=adam", "train.momentum=0.8",
    )  # fmt: skip
    assert spec.recipe == Recipe(
        steps=12,
        batch_size=9,
        learning_rate=0.01,
        smoothing=0.9,
        decay="linear",
        temperature=0.5,
        optimizer="adam",
        momentum=0.8,
    )


def test_a_mask_is_measured_on_the_test_images(test_set: ImageSet, trained: TrainedUnit) -> None:
    spec = make_job()
    measure = PlainMeasure(spec.network, spec.layout, test_set, 0, torch.device("cpu"))
    for i, state in enumerate(spec.layout.unpack(trained.rows)):
        measured = measure(spec.task(i), state)
        assert trained.tasks["accuracy"][i].as_py() == measured.accuracy
        assert trained.tasks["loss"][i].as_py() == pytest.approx(measured.loss, abs=1e-5)


def test_a_trained_row_says_what_was_done(trained: TrainedUnit) -> None:
    table = trained.tasks
    assert set(table["steps"].to_pylist()) == {12}
    assert set(table["worker"].to_pylist()) == {"here"}
    assert set(table["mask_bytes"].to_pylist()) == {trained.rows.shape[1]}
    num_bits = 64 * 24 + 24 * 20
    ones = np.unpackbits(trained.rows, axis=1).sum(axis=1) / num_bits
    assert table["density"].to_numpy() == pytest.approx(ones)
    assert table["accuracy"].to_numpy().min() > 0.3


class SlowFirst:
    """A clock that only the watched calls move: 1000 s in the first call of a form, 1 s later."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._now, self._seen, self._patched = 0.0, set[object](), patched
        patched.setattr("time.perf_counter", lambda: self._now)

    def watch(self, owner: object, name: str, form: Callable[..., object]) -> None:
        call = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            asked = form(*arguments, **options)
            self._now += 1 if asked in self._seen else 1000
            self._seen.add(asked)
            return call(*arguments, **options)

        self._patched.setattr(owner, name, counted)


def test_compiling_is_no_part_of_the_seconds_of_the_first_inference(
    test_set: ImageSet, trained: TrainedUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowFirst(monkeypatch)
    clock.watch(BitsEngine, "infer", lambda _, images, by, objective, options: (by, objective))
    worker = EvaluateWorker(make_job("evaluate.batches=1"), test_set, name="here")
    for algorithm in ("one_shot", "one_shot_ranked", "binary"):
        for objective in ("H", "G"):
            for num_tasks in (2, 6):
                unit = EvaluationUnit(num_tasks, algorithm, objective, (0,))
                tables = worker.run(unit, trained.rows[:num_tasks])
                assert tables["evaluations"]["seconds_per_inference"].to_pylist() == [1]


def test_preparing_masks_is_no_part_of_the_seconds_of_an_inference(
    test_set: ImageSet, trained: TrainedUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowFirst(monkeypatch)
    clock.watch(BitInference, "__init__", lambda weights, *arguments: id(arguments[2]))
    worker = EvaluateWorker(make_job("evaluate.batches=1"), test_set, name="here")
    tables = worker.run(EvaluationUnit(6, "binary", "H", (0,)), trained.rows)
    assert tables["evaluations"]["seconds_per_inference"].to_pylist() == [0]


def test_compiling_is_no_part_of_the_seconds_of_a_part_of_the_masks(
    test_set: ImageSet, trained: TrainedUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowFirst(monkeypatch)
    clock.watch(BitInference, "leaders", lambda _, queries, *, ranked=False: ranked)
    worker = ShardWorker(make_job("evaluate.batches=1"), test_set, name="here")
    counts = worker.run(CountUnit(6, 0), trained.rows)
    asked = EvaluationUnit(6, "one_shot", "H", (0,))
    found = worker.run(LeadersUnit(asked, 0, 0), trained.rows, counts)
    assert isinstance(found, PartAnswers)
    assert found.seconds == 1


def test_compiling_is_no_part_of_the_seconds_of_the_first_block(
    digits: Dataset, trained: TrainedUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowFirst(monkeypatch)
    clock.watch(MLPTrainer, "stages", lambda *arguments, **options: "train")
    worker = TrainWorker(make_job(), digits.train, digits.test, name="here")
    first = worker.run(TrainUnit("unit-000000", ALL, ALL))
    assert first.tasks["train_seconds"].to_pylist() == [1 / 6] * 6
    assert first.rows.tobytes() == trained.rows.tobytes()


def test_workers_take_arrays_that_may_not_be_written(
    digits: Dataset, test_set: ImageSet, trained: TrainedUnit
) -> None:
    def locked(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flags.writeable = False
        return array

    given = digits.train
    train = replace(given, images=locked(given.images), labels=locked(given.labels))
    test = replace(test_set, images=locked(test_set.images), labels=locked(test_set.labels))
    again = TrainWorker(make_job(), train, test, name="here").run(
        TrainUnit("unit-000000", ALL, ALL)
    )
    assert again.rows.tobytes() == trained.rows.tobytes()
    unit = EvaluationUnit(NUM_TASKS, "one_shot", "H", (0,))
    (row,) = evaluate(make_job(), test, locked(trained.rows), unit)
    (same,) = evaluate(make_job(), test_set, trained.rows, unit)
    del row["seconds_per_inference"], same["seconds_per_inference"]
    assert row == same


@pytest.mark.parametrize(("batches", "expected"), [("1", 1), ("2", 2), ("99", 3), ("null", 3)])
def test_num_batches_says_how_many_were_asked(
    batches: str, expected: int, test_set: ImageSet, trained: TrainedUnit
) -> None:
    # 359 images make two batches of 128 and a last batch of 103.
    spec = make_job(f"evaluate.batches={batches}")
    rows = evaluate(spec, test_set, trained.rows, EvaluationUnit(6, "max_logit", None, (0, 3)))
    assert [(row["task_id"], row["num_batches"]) for row in rows] == [(0, expected), (3, expected)]


def test_all_batches_are_the_whole_test_set_with_its_short_last_batch(
    test_set: ImageSet, trained: TrainedUnit
) -> None:
    spec = make_job("evaluate.batches=null")
    rows = evaluate(spec, test_set, trained.rows, EvaluationUnit(6, "max_logit", None, ALL))
    right = [row["accuracy_gg"] * 359 for row in rows]
    assert right == pytest.approx(trained.tasks["accuracy"].to_numpy() * 359, abs=1e-6)


def test_a_last_batch_smaller_than_a_query_is_asked_about_all_the_same(
    test_set: ImageSet, trained: TrainedUnit
) -> None:
    spec = make_job(
        "evaluate.batches=null", "evaluate.batch_size=119", "evaluate.num_images=100"
    )  # 359 = 3 * 119 + 2 images
    (row,) = evaluate(spec, test_set, trained.rows, EvaluationUnit(6, "one_shot", "H", (2,)))
    assert row["num_batches"] == 4
    assert row["num_images"] == 100
    assert row["accuracy_gg"] * 359 == pytest.approx(trained.tasks["accuracy"][2].as_py() * 359)


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 6])
def test_gradients_are_counted_by_algorithm(
    num_tasks: int, test_set: ImageSet, trained: TrainedUnit
) -> None:
    rows = evaluate_all(make_job("evaluate.batches=1"), test_set, trained.rows, num_tasks)
    counted = {(row["algorithm"], row["num_gradients"]) for row in rows}
    assert counted == {
        ("one_shot", 1),
        ("one_shot_ranked", 1),
        ("binary", ceil(log2(num_tasks))),
        ("min_entropy", 0),
        ("max_logit", 0),
    }


def test_accuracies_agree_with_each_other(test_set: ImageSet, trained: TrainedUnit) -> None:
    rows = evaluate_all(make_job("evaluate.batches=3"), test_set, trained.rows, NUM_TASKS)
    assert len(rows) == NUM_TASKS * 8  # 3 algorithms with 2 objectives, 2 algorithms without
    for row in rows:
        # If the inferred task is wrong, GNu scores a batch 0, and GNs uses the inferred mask.
        assert 0 <= row["accuracy_gnu"] <= min(row["accuracy_gns"], row["accuracy_gg"]) <= 1
        assert row["task_accuracy"] in (0, 1 / 3, 2 / 3, 1)
        assert row["seconds_per_inference"] > 0
        assert 0 < row["bits_read_fraction"] <= 1
        if row["task_accuracy"] == 1:
            assert row["accuracy_gnu"] == row["accuracy_gns"] == row["accuracy_gg"]
        if row["task_accuracy"] == 0:
            assert row["accuracy_gnu"] == 0
    shares = {row["task_accuracy"] for row in rows}
    assert 1 in shares  # otherwise the branches above were not tested
    assert shares - {1}
    assert any(row["accuracy_gnu"] < row["accuracy_gns"] for row in rows)


def test_a_wrong_task_still_counts_by_its_own_mask_in_gns(
    test_set: ImageSet, trained: TrainedUnit
) -> None:
    # Every mask lies in another task's row: inference finds the right mask but a wrong number.
    spec = make_job("evaluate.batches=null", "evaluate.num_images=64")
    unit = EvaluationUnit(NUM_TASKS, "one_shot", "H", ALL)
    rows = evaluate(spec, test_set, trained.rows[::-1].copy(), unit)
    accuracies = trained.tasks["accuracy"].to_pylist()
    for row, accuracy in zip(rows, accuracies, strict=True):
        assert row["task_accuracy"] == row["accuracy_gnu"] == 0
        assert row["accuracy_gns"] == pytest.approx(accuracy)
        assert row["accuracy_gg"] < accuracy


def test_a_single_mask_is_always_inferred_right(test_set: ImageSet, trained: TrainedUnit) -> None:
    rows = evaluate_all(make_job(), test_set, trained.rows, 1)
    assert len(rows) == 8
    for row in rows:
        assert row["task_accuracy"] == 1
        assert row["accuracy_gnu"] == row["accuracy_gns"] == row["accuracy_gg"] > 0.3


@pytest.mark.parametrize(("objective", "num_images"), [("H", 1), ("G", 1), ("H", 5)])
def test_one_shot_scores_are_those_of_a_plain_calculation(
    objective: str, num_images: int, test_set: ImageSet, trained: TrainedUnit
) -> None:
    spec = make_job("evaluate.batches=3", f"evaluate.num_images={num_images}")
    unit = EvaluationUnit(NUM_TASKS, "one_shot", objective, ALL)
    found = evaluate(spec, test_set, trained.rows, unit)

    assert isinstance(spec.network, MLP)
    drawn = spec.weights()
    weights = list(drawn.values())
    bits = [
        np.unpackbits(trained.rows[:, start : start + size // 8], axis=1, bitorder="little")
        for start, size in ((0, 64 * 24), (192, 24 * 20))
    ]
    masks = [
        torch.from_numpy(layer.reshape(NUM_TASKS, *weight.shape)).float()
        for layer, weight in zip(bits, weights, strict=True)
    ]
    for row in found:
        task_id = row["task_id"]
        order = stream(spec.config.seed, Role.EVALUATION_ORDER, task_id).permutation(359)
        pixels = torch.from_numpy(test_set.flat[:, spec.task(task_id).source])
        images = normalise(pixels, test_set.mean, test_set.std)
        hits, right_gg, right_gns, right_gnu, total = [], 0, 0, 0, 0
        for start in (0, 128, 256):
            index = order[start : start + 128]
            query = images[index[:num_images]][None]
            states = DenseStates(dict(zip(drawn, masks, strict=True)), {})
            asked = query.reshape(1, -1, *spec.input_shape)
            minimised = OBJECTIVES[objective]
            gradient = AutogradSlopes(spec.network, drawn, states, asked, minimised, 10)
            inferred = int(one_shot(gradient).tasks)
            right = [
                int((logits.argmax(dim=1).numpy() == test_set.labels[index]).sum())
                for logits in (
                    forward([w * m[i] for w, m in zip(weights, masks, strict=True)], images[index])
                    for i in (task_id, inferred)
                )
            ]
            hits.append(inferred == task_id)
            right_gg += right[0]
            right_gns += right[1]
            right_gnu += right[1] if inferred == task_id else 0
            total += len(index)
        assert row["task_accuracy"] == sum(hits) / 3
        assert row["accuracy_gg"] == right_gg / total
        assert row["accuracy_gns"] == right_gns / total
        assert row["accuracy_gnu"] == right_gnu / total


def test_tasks_of_the_split_family_are_asked_about_their_own_classes(
    digits: Dataset, test_set: ImageSet
) -> None:
    spec = make_job(
        "family=split", "tasks=3", "train.block=3", "evaluate.checkpoints=[3]",
        "evaluate.batches=null",
    )  # fmt: skip
    ids = (0, 1, 2)
    trained = TrainWorker(spec, digits.train, test_set, name="here").run(
        TrainUnit("unit", ids, ids)
    )
    rows = evaluate(spec, test_set, trained.rows, EvaluationUnit(3, "max_logit", None, ids))
    sizes = [int(np.isin(digits.test.labels, (2 * i, 2 * i + 1)).sum()) for i in ids]
    assert max(sizes) < 128
    for row, size, accuracy in zip(rows, sizes, trained.tasks["accuracy"].to_pylist(), strict=True):
        assert row["num_batches"] == 1
        assert row["accuracy_gg"] * size == pytest.approx(accuracy * size)


def test_progress_is_a_share_of_the_unit(
    train_worker: TrainWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = train_worker._on_step

    def spy(done: int) -> None:
        step(done)
        seen.append(train_worker.progress())

    monkeypatch.setattr(train_worker, "_on_step", spy)
    train_worker.run(TrainUnit("unit-000000", ALL, ALL))
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert seen[-1] == 1
    assert train_worker.progress() == 0  # between two units


@pytest.mark.parametrize(("num_queries", "expected"), [(1, 1), (7, 7), (100, 100), (1975, 100)])
def test_compared_queries_are_spread_over_all(num_queries, expected):
    index = compared(num_queries)
    assert len(set(index.tolist())) == expected
    assert 0 <= index.min() <= index.max() < num_queries
    assert np.diff(index, append=num_queries).max() <= -(-num_queries // expected)
