"""Evaluation workers on a pretended GPU: the results of the CPU, and few copies."""

import numpy as np
import pytest

from composing import configured
from harness.config.names import CUES
from harness.config.options import resolved_options
from harness.data.catalogue import load_dataset
from harness.plan.resolve import resolve
from harness.plan.units import EvaluationUnit, RecallUnit, ReservoirUnit, TrainUnit
from harness.run.spec import RunSpec
from harness.workers import evaluating, training
from harness.workers.evaluating import EvaluateWorker
from harness.workers.training import TrainWorker
from pretended_cuda import CUDA, PretendedCuda
from supsup_core.engines.device import DeviceEngine
from supsup_core.names import ALGORITHMS, OBJECTIVES, RESERVOIR_RULES, WITHOUT_OBJECTIVE

NUM_TASKS = 6
TIMES = ("seconds", "store_seconds", "seconds_per_inference")
KINDS = {
    "weights": ("network=mlp", "network_options.hidden=[24]", "outputs=20", "reservoir.block=256"),
    "units": (
        *("network=units", "network_options.hidden=[64]", "outputs=10", "evaluate.num_images=64"),
        *("train=unit", "evaluate.batch_size=128"),
    ),
}


def make_spec(*overrides):
    given = (
        "data=digits tasks=6 train.steps=12 train.block=6 train.dtype=float32 "
        "train.learning_rate=0.01 evaluate.checkpoints=[3,6] evaluate.batches=2 evaluate.steps=3"
    )
    values = dict(one.split("=", 1) for one in (*given.split(), *overrides))  # the last one counts
    config = configured(*(f"{key}={value}" for key, value in values.items()))
    probe = RunSpec(resolved_options(config), (1, 8, 8), 10)
    config = resolve(probe.config, probe.capabilities, bfloat16_is_faster=False)
    return RunSpec(config, (1, 8, 8), 10)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(digits):
    """For each kind of masks, the specification and the packed rows of six tasks."""
    found = {}
    for kind, overrides in KINDS.items():
        spec = make_spec(*overrides)
        worker = TrainWorker(spec, digits.train, digits.test, name="here")
        tasks = tuple(range(NUM_TASKS))
        found[kind] = spec, worker.run(TrainUnit("unit", tasks, tasks)).rows
    return found


@pytest.fixture
def on_gpu(monkeypatch):
    """A function that makes a worker on the pretended GPU."""

    def make(spec, test):
        monkeypatch.setattr(evaluating, "pick_device", lambda: CUDA)
        return EvaluateWorker(spec, test, name="here")

    return make


def told(table):
    """Return the columns of a table that do not depend on the machine."""
    names = [n for n in table.column_names if n not in (*TIMES, "device", "bits_read_fraction")]
    return table.select(names).to_pydict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evaluations_are_those_of_the_cpu(kind, algorithm, trained, digits, on_gpu):
    spec, rows = trained[kind]
    if algorithm not in spec.capabilities.supports:
        pytest.skip("the configuration does not accept this algorithm")
    worker = EvaluateWorker(spec, digits.test, name="here")
    with PretendedCuda() as gpu:
        gpu_worker = on_gpu(spec, digits.test)
        names = (None,) if algorithm in WITHOUT_OBJECTIVE else OBJECTIVES
        for objective in names if kind == "weights" else names[:1]:
            for num_tasks in (3, NUM_TASKS):  # the worker's masks grow
                tasks = tuple(range(num_tasks))
                unit = EvaluationUnit(num_tasks, algorithm, objective, tasks)
                expected = worker.run(unit, rows[:num_tasks])["evaluations"]
                before = gpu.kernels
                found = gpu_worker.run(unit, rows[:num_tasks])["evaluations"]
                assert gpu.kernels > before + num_tasks  # the column `device` is true
                assert told(found) == told(expected)
                assert set(found["device"].to_pylist()) == {CUDA.type}
                assert set(expected["device"].to_pylist()) == {"cpu"}


# Each family, each optimiser and each trainer once
TRAINED = [
    ("weights", "family=permuted"),
    ("weights", "family=rotated", "train.optimizer=adam", "train.momentum=0.9"),
    ("weights", "family=split", "train.optimizer=sgd", "train.momentum=0.9", "tasks=5"),
    ("weights", "family=permuted_rotated", "family_options.interpolation=bilinear"),
    ("weights", "train.dtype=bfloat16", "method=edge_popup"),
    ("weights", "method=signed", "family=rotated"),
    ("weights", "method=multicoated", "family=permuted"),
    ("weights", "method=biprop", "family=permuted"),  # by autograd
    ("units", "family=permuted"),
    ("units", "family=rotated"),
]


@pytest.mark.parametrize("overrides", TRAINED, ids=lambda given: " ".join(given[:2]))
def test_training_on_a_gpu_gives_the_masks_of_the_cpu(overrides, digits, monkeypatch):
    kind, *others = overrides
    spec = make_spec(*KINDS[kind], "train.block=3", "evaluate.checkpoints=[]", *others)
    tasks = tuple(range(spec.config.tasks))
    sizes = (3, len(tasks) - 3)
    unit = TrainUnit("unit", tasks, tasks, sizes)
    expected = TrainWorker(spec, digits.train, digits.test, name="here").run(unit)
    monkeypatch.setattr(training, "training_device", lambda wanted: CUDA)
    with PretendedCuda():
        found = TrainWorker(spec, digits.train, digits.test, name="here").run(unit)
    assert not found.failed
    assert set(found.tasks["device"].to_pylist()) == {CUDA.type}
    differ = np.bitwise_count(found.rows ^ expected.rows).sum() / len(tasks)
    assert differ / spec.layout.num_bits < 0.02  # products are rounded differently
    accuracies = [np.array(one.tasks["accuracy"].to_pylist()) for one in (found, expected)]
    assert np.abs(accuracies[0] - accuracies[1]).max() < 0.1


def test_a_gpu_warms_up_with_as_many_queries_as_it_infers_at_a_time(trained, digits, on_gpu):
    """Other kernels infer few queries. The timed inference must compile nothing."""
    spec, rows = trained["weights"]
    with PretendedCuda():
        worker = on_gpu(spec, digits.test)
        seen = []
        as_before = DeviceEngine._scan

        def noted(engine, images, objective):
            seen.append(tuple(images.shape))
            return as_before(engine, images, objective)

        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(DeviceEngine, "_scan", noted)
            worker.run(EvaluationUnit(NUM_TASKS, "one_shot", "H", tuple(range(NUM_TASKS))), rows)
    assert len(seen) == 3  # among copies of one mask, among the masks, and the timed inference
    assert len(set(seen)) == 1


def test_masks_are_uploaded_once_for_all_units(trained, digits, on_gpu):
    spec, rows = trained["weights"]
    tasks = tuple(range(NUM_TASKS))
    with PretendedCuda() as gpu:
        worker = on_gpu(spec, digits.test)
        worker.run(EvaluationUnit(NUM_TASKS, "one_shot", "H", tasks), rows)
        assert isinstance(worker._masks._now.engine, DeviceEngine)
        gpu.reset()
        worker.run(EvaluationUnit(NUM_TASKS, "one_shot", "G", tasks), rows)
        evaluate = spec.config.evaluate
        images = NUM_TASKS * evaluate.batches * evaluate.batch_size
        # Indices of queries and of scored images, the order of the pixels of each task, and the
        # copies of one mask among which the worker warms up. No image is uploaded.
        assert gpu.uploaded_bytes <= 8 * 2 * images + NUM_TASKS * 8 * 64 * 3 + 12 * rows.shape[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RESERVOIR_RULES)
def test_recalls_are_those_of_the_cpu(kind, rule, trained, digits, on_gpu):
    spec, rows = trained[kind]
    cues = CUES if rule != "random_features" else CUES[:1]
    with PretendedCuda():
        workers = EvaluateWorker(spec, digits.test, name="here"), on_gpu(spec, digits.test)
        for num_tasks in (3, NUM_TASKS):
            tasks = tuple(range(num_tasks))
            unit = ReservoirUnit(tuple(RecallUnit(num_tasks, rule, c, tasks, "v") for c in cues))
            tables = [worker.run(unit, rows[:num_tasks])["reservoir"] for worker in workers]
            assert told(tables[0]) == told(tables[1])


def test_recalls_do_not_depend_on_earlier_checkpoints(trained, digits):
    spec, rows = trained["weights"]
    unit = ReservoirUnit((RecallUnit(6, "projection", "flipped", tuple(range(6)), "v"),))
    alone = EvaluateWorker(spec, digits.test, name="here")
    grown = EvaluateWorker(spec, digits.test, name="here")
    before = ReservoirUnit((RecallUnit(3, "projection", "flipped", (0, 1, 2), "v"),))
    grown.run(before, rows[:3])
    for worker in (alone, grown):
        worker.run(unit, rows)
    one, other = (worker._reservoirs._now.blocks.weights for worker in (alone, grown))
    assert one.tolist() == other.tolist()
