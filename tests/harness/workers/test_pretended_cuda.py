"""Evaluation workers on a pretended GPU: the results of the CPU, and few copies."""

import pytest

from composing import configured
from harness.config.options import resolved_options
from harness.config.schema import CUES
from harness.data.catalogue import load_dataset
from harness.plan.resolve import resolve
from harness.plan.units import EvaluationUnit, RecallUnit, ReservoirUnit, TrainUnit
from harness.run.spec import RunSpec
from harness.workers import evaluating
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
    config = configured(*given.split(), *overrides)
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
    with PretendedCuda():
        gpu_worker = on_gpu(spec, digits.test)
        names = (None,) if algorithm in WITHOUT_OBJECTIVE else OBJECTIVES
        for objective in names if kind == "weights" else names[:1]:
            for num_tasks in (3, NUM_TASKS):  # the worker's masks grow
                tasks = tuple(range(num_tasks))
                unit = EvaluationUnit(num_tasks, algorithm, objective, tasks)
                expected = worker.run(unit, rows[:num_tasks])
                found = gpu_worker.run(unit, rows[:num_tasks])
                assert told(found) == told(expected)
                assert set(found["device"].to_pylist()) == {CUDA.type}
                assert set(expected["device"].to_pylist()) == {"cpu"}


def test_masks_are_uploaded_once_for_all_units(trained, digits, on_gpu):
    spec, rows = trained["weights"]
    tasks = tuple(range(NUM_TASKS))
    with PretendedCuda() as gpu:
        worker = on_gpu(spec, digits.test)
        worker.run(EvaluationUnit(NUM_TASKS, "one_shot", "H", tasks), rows)
        assert isinstance(worker._masks._now.engine, DeviceEngine)
        gpu.reset()
        worker.run(EvaluationUnit(NUM_TASKS, "one_shot", "G", tasks), rows)
        num_batches, size = spec.config.evaluate.batches, spec.config.evaluate.batch_size
        images = NUM_TASKS * num_batches * size * 64  # one byte per pixel
        # Queries, scored batches, and the copies of one mask among which the worker warms up
        assert gpu.uploaded_bytes <= 2 * images + 12 * rows.shape[1] + 64 * NUM_TASKS


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
            expected, found = (worker.run(unit, rows[:num_tasks]) for worker in workers)
            assert told(found) == told(expected)


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
