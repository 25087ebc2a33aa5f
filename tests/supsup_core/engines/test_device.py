"""The engine of a GPU: exact answers, on the CPU and on a pretended GPU, and little traffic."""

import numpy as np
import pytest
import torch

from conformance.engines import NUM_REAL, OF_BITS, OPTIONS, objective_of, trained
from pretended_cuda import CUDA, PretendedCuda
from supsup_core.bits.infer import BitInference
from supsup_core.data import normalise
from supsup_core.engines import device
from supsup_core.engines.choose import engine_for, engine_type, states_for
from supsup_core.engines.device import DeviceEngine
from supsup_core.inference.answers import Inference
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import FORWARD_ALGORITHMS, INFERENCE_ALGORITHMS
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import TaskState
from supsup_core.states.resident import ResidentStates

CPU = torch.device("cpu")
NETWORK = MLP("small", (64, 40, 30, 20))
LAYOUT = layout_of(NETWORK, Threshold())


def on_cuda(arrays):
    return {name: array.to(CUDA) for name, array in arrays.items()}


def random_rows(num_masks, seed=0):
    rng = np.random.default_rng(seed)
    masks = [rng.random((num_masks, *t.shape)) < 0.5 for t in NETWORK.tensors]
    return LAYOUT.pack([TaskState(planes) for planes in zip(*masks, strict=True)])


def random_images(num_queries, num_images=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_queries, num_images, 64, generator=generator)


def on_bits(rows):
    return BitInference(list(NETWORK.weights(0).values()), LAYOUT, rows, NUM_REAL)


def made(rows, where=CPU, weights=None, **options):
    weights = weights or {n: w.to(where) for n, w in NETWORK.weights(0).items()}
    return DeviceEngine(NETWORK, weights, ResidentStates(LAYOUT, rows, where, **options), NUM_REAL)


# Exact answers


@pytest.fixture(scope="module")
def shown(six_permutations, digits):
    """(network, rows, images): trained masks among random ones, and one query per test image."""
    network, tasks, rows = six_permutations
    layout = layout_of(network, Threshold())
    rng = np.random.default_rng(3)
    masks = [rng.random((60, *t.shape)) < 0.5 for t in network.tensors]
    others = layout.pack([TaskState(planes) for planes in zip(*masks, strict=True)])
    test = digits[1]
    pixels = np.concatenate([task.images(test.images[::2]) for task in tasks])
    images = normalise(torch.from_numpy(pixels), test.mean, test.std)
    return network, layout, np.concatenate([rows, others]), images


@pytest.mark.parametrize(
    ("objective", "num_images", "unpacked_bytes"),
    [*((name, 1, 2**30) for name in OBJECTIVES), ("H", 1, 0), ("G", 5, 0), ("H", 5, 2**30)],
)
def test_answers_are_those_of_inference_on_bits(shown, objective, num_images, unpacked_bytes):
    network, layout, rows, images = shown
    weights, objective = network.weights(0), OBJECTIVES[objective]
    queries = images[: len(images) // num_images * num_images].unflatten(0, (-1, num_images))
    bits = BitInference(list(weights.values()), layout, rows, NUM_REAL)
    exact = bits.one_shot(queries.flatten(2), objective)
    expected = exact.tasks
    states = ResidentStates(layout, rows, CPU, unpacked_bytes=unpacked_bytes)
    engine = DeviceEngine(network, weights, states, NUM_REAL)
    parts = queries.split(500)
    answers = Inference.joined(
        [engine.infer(part, "one_shot", objective, OPTIONS) for part in parts]
    )
    assert len(queries) * num_images > 1000
    assert len(set(expected.tolist())) >= 5
    assert torch.equal(answers.tasks, expected)
    # Only products that are close to the smallest one are exact.
    torch.testing.assert_close(answers.margins, exact.margins, rtol=1e-2, atol=1e-7)
    assert (answers.runners_up == exact.runners_up).double().mean() > 0.99


@pytest.mark.long
@pytest.mark.parametrize("objective", ["H", "G"])
def test_10_000_answers_are_those_of_inference_on_bits(objective, shown, six_permutations, digits):
    network, layout, rows, _ = shown
    pixels = np.concatenate(
        [task.images(part.images) for task in six_permutations[1] for part in digits]
    )
    queries = normalise(torch.from_numpy(pixels), digits[0].mean, digits[0].std)[:, None]
    assert len(queries) > 10_000
    weights, objective = network.weights(0), OBJECTIVES[objective]
    bits = BitInference(list(weights.values()), layout, rows, NUM_REAL)
    engine = DeviceEngine(network, weights, ResidentStates(layout, rows, CPU), NUM_REAL)
    for part in queries.split(500):
        found = engine.infer(part, "one_shot", objective, OPTIONS).tasks
        assert torch.equal(found, bits.one_shot(part.flatten(2), objective).tasks)


@pytest.mark.parametrize("candidates", [2, 8])
def test_close_products_are_decided_exactly(candidates, monkeypatch):
    monkeypatch.setattr(device, "CANDIDATES", candidates)
    # Many copies of each mask, so that up to 40 products are equal
    rows = random_rows(30)[np.random.default_rng(5).integers(0, 30, 200)]
    images, objective = random_images(100), OBJECTIVES["H"]
    expected = on_bits(rows).one_shot(images, objective).tasks
    assert torch.equal(made(rows).infer(images, "one_shot", objective, OPTIONS).tasks, expected)


def test_queries_without_evidence_get_the_lowest_task():
    images = torch.zeros(3, 1, 64)
    images[1] = random_images(1)
    found = made(random_rows(20)).infer(images, "one_shot", OBJECTIVES["H"], OPTIONS).tasks
    assert found[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12])
def test_evidence_of_any_magnitude_is_compared(factor):
    # The first layer's inputs are scaled, and with them the first layer's evidence.
    rows, images = random_rows(50), factor * random_images(40)
    objective = OBJECTIVES["G_first_layer"]
    expected = on_bits(rows).one_shot(images, objective).tasks
    found = made(rows).infer(images, "one_shot", objective, OPTIONS).tasks
    assert torch.equal(found, expected)


# On a pretended GPU


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("algorithm", INFERENCE_ALGORITHMS)
@pytest.mark.parametrize("name", OF_BITS)
def test_a_gpu_gives_the_answers_of_the_cpu(name, algorithm, objective, digits, make_tasks):
    case = trained(name, digits, make_tasks)
    asked = algorithm, objective_of(algorithm, objective), OPTIONS
    expected = case.made(engine_type(case.network, case.layout, CPU))
    if algorithm not in expected.supports:
        expected = case.made(DeviceEngine)
    with PretendedCuda():
        states = states_for(case.network, case.layout, case.rows, CUDA)
        engine = engine_for(case.network, on_cuda(case.weights), states, NUM_REAL)
        assert type(engine) is DeviceEngine
        assert engine.device == CUDA
        for images in (case.few, case.many):
            found = engine.infer(images.to(CUDA), *asked)
            assert found.tasks.tolist() == expected.infer(images, *asked).tasks.tolist()


@pytest.mark.parametrize("unpacked_bytes", [0, 2**30])
@pytest.mark.parametrize("algorithm", INFERENCE_ALGORITHMS)
def test_a_batch_moves_images_and_answers_and_waits_once(algorithm, unpacked_bytes):
    rows, images = random_rows(300), random_images(64)
    with PretendedCuda() as gpu:
        engine = made(rows, CUDA, unpacked_bytes=unpacked_bytes)
        assert gpu.uploaded_bytes >= rows.nbytes
        gpu.reset()
        engine.infer(images.to(CUDA), algorithm, objective_of(algorithm, "H"), OPTIONS)
        assert (gpu.uploads, gpu.uploaded_bytes) == (1, images.nbytes)
        assert gpu.downloads == gpu.waits == 1
        # One-shot also copies two numbers that say whether the answer is certain.
        # An answer is a task, a runner-up and a margin.
        assert gpu.downloaded_bytes <= 8 * (5 * len(images) + 1 + len(INFERENCE_ALGORITHMS))


def test_512_queries_among_2500_masks_move_images_and_answers():
    rows, images = random_rows(2500), random_images(512)
    with PretendedCuda() as gpu:
        engine = made(rows, CUDA)
        gpu.reset()
        engine.infer(images.to(CUDA), "one_shot", OBJECTIVES["H"], OPTIONS)
        # An answer is a task, a runner-up, a margin and two numbers that say whether it is certain.
        assert gpu.uploaded_bytes + gpu.downloaded_bytes <= images.nbytes + 8 * 5 * len(images)
        assert gpu.waits == 1


def test_one_query_starts_few_kernels():
    # The host takes 5 to 10 microseconds to start a kernel.
    with PretendedCuda() as gpu:
        engine = made(random_rows(300), CUDA, unpacked_bytes=2**30)
        images = random_images(1).to(CUDA)
        engine.infer(images, "one_shot", OBJECTIVES["H"], OPTIONS)  # makes the superposition
        gpu.reset()
        engine.infer(images, "one_shot", OBJECTIVES["H"], OPTIONS)
        assert gpu.kernels < 98


def test_open_queries_are_decided_on_the_gpu(monkeypatch):
    monkeypatch.setattr(device, "CANDIDATES", 2)
    rows = random_rows(30)[np.random.default_rng(5).integers(0, 30, 100)]
    images, objective = random_images(40), OBJECTIVES["H"]
    expected = on_bits(rows).one_shot(images, objective).tasks
    with PretendedCuda() as gpu:
        found = made(rows, CUDA).infer(images.to(CUDA), "one_shot", objective, OPTIONS)
        assert torch.equal(found.tasks, expected)
        assert gpu.waits > 1


@pytest.mark.parametrize("algorithm", INFERENCE_ALGORITHMS)
def test_inputs_that_are_not_finite_are_refused(algorithm):
    images = random_images(4)
    images[2, 0, 5] = torch.nan
    with PretendedCuda():
        engine = made(random_rows(20), CUDA)
        with pytest.raises(FloatingPointError, match="evidence must be finite"):
            engine.infer(images.to(CUDA), algorithm, objective_of(algorithm, "H"), OPTIONS)


@pytest.mark.parametrize("unpacked_bytes", [0, 2**30])
def test_growth_uploads_only_new_rows(unpacked_bytes):
    rows, images = random_rows(200), random_images(30)
    with PretendedCuda() as gpu:
        engine = made(rows[:120], CUDA, unpacked_bytes=unpacked_bytes)
        for num_rows in (128, 130, 200):  # in place, with new memory, and in place
            before = len(engine.stored)
            gpu.reset()
            engine = engine.grown(rows[:num_rows])
            assert gpu.uploaded_bytes == rows[before:num_rows].nbytes
            assert gpu.waits == 0
            found = engine.infer(images.to(CUDA), "one_shot", OBJECTIVES["G"], OPTIONS)
            expected = on_bits(rows[:num_rows]).one_shot(images, OBJECTIVES["G"]).tasks
            assert torch.equal(found.tasks, expected)


def test_batches_fit_the_free_memory(monkeypatch):
    engine = made(random_rows(3))
    assert engine.queries_together(1) == 512
    monkeypatch.setattr(device, "free_bytes", lambda where: 4_000_000)
    assert 1 < engine.queries_together(1) < 30
    monkeypatch.setattr(device, "free_bytes", lambda where: 0)
    assert engine.queries_together(1) == 1


def test_forward_algorithms_need_no_objective():
    with PretendedCuda():
        engine = made(random_rows(10), CUDA)
        for algorithm in FORWARD_ALGORITHMS:
            found = engine.infer(random_images(3, 2).to(CUDA), algorithm, None, OPTIONS)
            assert found.num_gradients == 0


def test_too_little_memory_halves_the_queries_and_says_so(monkeypatch):
    engine, images = made(random_rows(20)), random_images(41)
    asked = "one_shot", OBJECTIVES["H"], OPTIONS
    expected = engine.infer(images, *asked)
    as_before = engine._infer

    def small(inputs, *others):
        if len(inputs) > 12:
            raise torch.OutOfMemoryError("pretended")
        return as_before(inputs, *others)

    monkeypatch.setattr(engine, "_infer", small)
    with pytest.warns(RuntimeWarning, match=r"memory for (41|20) queries, got too little"):
        found = engine.infer(images, *asked)
    assert torch.equal(found.tasks, expected.tasks)
    assert found.num_gradients == expected.num_gradients
    assert engine.queries_together(1) <= 12
    monkeypatch.setattr(engine, "_infer", lambda *all: small(random_images(13)))
    with pytest.raises(torch.OutOfMemoryError):
        engine.infer(images[:1], *asked)
