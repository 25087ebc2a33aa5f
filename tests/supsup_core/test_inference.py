import numpy as np
import pytest
import torch

from supsup_core import superposition
from supsup_core.data import normalise
from supsup_core.inference import (
    DenseGradient,
    PackedGradient,
    binary,
    max_logit,
    min_entropy,
    one_shot,
)
from supsup_core.masks import MaskLayout
from supsup_core.networks import Network, fixed_weights, forward
from supsup_core.objectives import OBJECTIVES, entropy
from supsup_core.superposition import PackedMasks

CPU = torch.device("cpu")
NUM_TASKS, NUM_QUERIES, NUM_REAL = 7, 4, 4  # two of the six outputs are superfluous


class Answers:
    """A gradient without a network: answers by a rule, and remembers what it was asked."""

    def __init__(self, rule, num_tasks, num_queries=1):
        self.rule, self.asked = rule, []
        self.num_tasks, self.num_queries, self.device = num_tasks, num_queries, CPU

    def __call__(self, alphas):
        self.asked.append(alphas.clone())
        slopes = torch.as_tensor(self.rule(alphas), dtype=torch.float32)
        return slopes.expand(self.num_queries, self.num_tasks)


def in_turn(*answers):
    """A rule that gives one answer after the other."""
    rest = iter(answers)
    return lambda alphas: next(rest)


def stored(tiny, num_tasks=NUM_TASKS):
    """Weights, float masks and packed masks of random masks."""
    rng = np.random.default_rng(2)
    masks = [rng.random((num_tasks, *layer.shape)) < 0.5 for layer in tiny.layers]
    layout = MaskLayout.of(tiny)
    packed = PackedMasks(layout, layout.pack(masks), CPU)
    return fixed_weights(tiny, 0), [torch.from_numpy(mask).float() for mask in masks], packed


def random_queries(num_images, num_queries=NUM_QUERIES):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_queries, num_images, 16, generator=generator)


@pytest.fixture(params=[2, 64])
def _rows_at_once(request, monkeypatch, tiny):
    """Fewer rows at once than there are masks, and more."""
    row_bits = MaskLayout.of(tiny).row_bits
    monkeypatch.setattr(superposition, "UNPACKED_BYTES", 4 * row_bits * request.param)


# Gradients


def assert_same_slopes(found, expected):
    scale = expected.abs().amax(dim=1, keepdim=True)
    assert (scale > 1e-4).all()
    assert ((found - expected).abs() / scale).max() < 1e-4


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("num_images", [1, 5])
@pytest.mark.parametrize("coefficients", ["uniform", "shared", "one a query"])
@pytest.mark.usefixtures("_rows_at_once")
def test_packed_gradient_is_that_of_autograd(tiny, objective, num_images, coefficients, rng):
    weights, masks, packed = stored(tiny)
    queries = random_queries(num_images)
    if coefficients == "uniform":
        alphas = torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    else:
        rows = 1 if coefficients == "shared" else NUM_QUERIES
        alphas = torch.from_numpy(rng.dirichlet(np.ones(NUM_TASKS), size=rows)).float()
    plain = DenseGradient(
        [weight.double() for weight in weights],
        [mask.double() for mask in masks],
        queries.double(),
        objective,
        NUM_REAL,
    )
    found = PackedGradient(weights, packed, queries, objective, NUM_REAL)(alphas)
    assert found.shape == (NUM_QUERIES, NUM_TASKS)
    assert_same_slopes(found, plain(alphas.double()))


def test_dense_gradient_is_the_slope_of_the_objective(tiny):
    weights, masks, _ = stored(tiny)
    weights, masks = [w.double() for w in weights], [m.double() for m in masks]
    queries = random_queries(5, num_queries=1).double()
    alphas = torch.linspace(0.05, 0.3, NUM_TASKS, dtype=torch.float64)

    def objective_at(a):
        effective = superposition.superpose_dense(weights, masks, a)
        return entropy(forward(effective, queries[0]), NUM_REAL).mean()

    step = 1e-6
    expected = [
        (objective_at(alphas + step * e) - objective_at(alphas - step * e)) / (2 * step)
        for e in torch.eye(NUM_TASKS, dtype=torch.float64)
    ]
    found = DenseGradient(weights, masks, queries, entropy, NUM_REAL)(alphas[None])
    torch.testing.assert_close(found[0], torch.stack(expected), rtol=1e-5, atol=1e-7)


def test_packed_gradient_leaves_images_and_weights_as_they_were(tiny):
    weights, _, packed = stored(tiny)
    queries = random_queries(2)
    before = [w.clone() for w in weights], queries.clone()
    gradient = PackedGradient(weights, packed, queries, entropy, NUM_REAL)
    alphas = torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    assert torch.equal(gradient(alphas), gradient(alphas))
    assert all(torch.equal(w, b) for w, b in zip(weights, before[0], strict=True))
    assert torch.equal(queries, before[1])


# One-shot


def test_one_shot_takes_the_lowest_slope_of_each_query():
    gradient = Answers(lambda _: [[3.0, -1.0, 0.0], [-2.0, 5.0, -3.0]], 3, num_queries=2)
    found = one_shot(gradient)
    assert found.tasks.tolist() == [1, 2]
    assert found.num_gradients == len(gradient.asked) == 1
    torch.testing.assert_close(gradient.asked[0], torch.full((1, 3), 1 / 3))


def test_one_shot_gives_the_lowest_task_on_ties():
    assert one_shot(Answers(lambda _: [5.0, 2.0, 2.0, 2.0], 4)).tasks.tolist() == [1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("algorithm", [one_shot, binary])
def test_slope_that_is_not_finite_is_refused(algorithm, bad):
    with pytest.raises(FloatingPointError, match="4 candidates"):
        algorithm(Answers(lambda _: [0.0, 1.0, bad, 2.0], 4))


# Binary


@pytest.mark.parametrize("num_tasks", range(1, 18))
def test_binary_takes_ceil_log2_gradients(num_tasks):
    gradient = Answers(lambda _: torch.arange(num_tasks).flip(0), num_tasks)
    found = binary(gradient)
    expected = (num_tasks - 1).bit_length()
    assert found.num_gradients == len(gradient.asked) == expected
    assert found.tasks.tolist() == [num_tasks - 1]


@pytest.mark.parametrize("num_tasks", [2, 3, 5, 8, 17])
def test_binary_ends_on_ties(num_tasks):
    gradient = Answers(lambda _: 0.0, num_tasks)
    assert binary(gradient).tasks.tolist() == [0]
    assert len(gradient.asked) == (num_tasks - 1).bit_length()


def test_ties_favour_the_candidate_that_ranked_higher_before():
    # The first round ranks 3 before 1; the second knows no difference.
    gradient = Answers(in_turn([2.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]), 4)
    assert binary(gradient).tasks.tolist() == [3]


def test_binary_never_returns_to_a_candidate_it_has_left():
    # Whatever has no coefficient any more looks best of all.
    gradient = Answers(lambda alphas: torch.where(alphas > 0, torch.arange(8.0), -100.0), 8)
    assert binary(gradient).tasks.tolist() == [0]


def test_slope_of_a_left_candidate_need_not_be_finite():
    nan = float("nan")
    gradient = Answers(in_turn([2.0, 1.0, 3.0, 0.0], [nan, 0.0, nan, 1.0]), 4)
    assert binary(gradient).tasks.tolist() == [1]


def test_slope_of_a_candidate_must_be_finite_in_every_round():
    gradient = Answers(in_turn([2.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, float("nan")]), 4)
    with pytest.raises(FloatingPointError, match="2 candidates"):
        binary(gradient)


def test_binary_shares_the_coefficients_among_the_candidates():
    gradient = Answers(lambda _: [4.0, 3.0, 2.0, 1.0, 0.0], 5)
    binary(gradient)
    expected = [[0.2] * 5, [0, 0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 0, 0.5, 0.5]]
    for alphas, shares in zip(gradient.asked, expected, strict=True):
        torch.testing.assert_close(alphas, torch.tensor([shares]))


def test_binary_follows_each_query_by_itself():
    def rule(alphas):
        return torch.stack([torch.arange(4.0), torch.arange(4.0).flip(0)])

    gradient = Answers(rule, 4, num_queries=2)
    assert binary(gradient).tasks.tolist() == [0, 3]
    assert [alphas.tolist() for alphas in gradient.asked] == [
        [[0.25] * 4],
        [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]],
    ]


# Forward with every mask


@pytest.mark.usefixtures("_rows_at_once")
@pytest.mark.parametrize("num_images", [1, 5])
def test_forward_algorithms_are_a_plain_loop_over_masks(tiny, num_images):
    weights, masks, packed = stored(tiny)
    queries = random_queries(num_images, num_queries=12)
    lowest, highest = [], []
    for query in queries:
        logits = [
            forward([w * m[t] for w, m in zip(weights, masks, strict=True)], query)
            for t in range(NUM_TASKS)
        ]
        chances = [torch.softmax(z, dim=1) for z in logits]
        entropies = [-(p * p.log()).sum(dim=1).mean().item() for p in chances]
        largest = [z[:, :NUM_REAL].max(dim=1).values.mean().item() for z in logits]
        lowest.append(int(np.argmin(entropies)))
        highest.append(int(np.argmax(largest)))
    assert len(set(lowest)) > 1
    assert len(set(highest)) > 1
    assert lowest != highest
    assert min_entropy(weights, packed, queries, NUM_REAL).tasks.tolist() == lowest
    assert max_logit(weights, packed, queries, NUM_REAL).tasks.tolist() == highest
    assert min_entropy(weights, packed, queries, NUM_REAL).num_gradients == 0


def test_max_logit_looks_at_real_outputs_only():
    # One layer, so that the logits are 1 for an output whose weight the mask keeps.
    layout = MaskLayout.of(network := Network("one", (1, 3)))
    masks = np.array([[[0], [0], [1]], [[1], [0], [0]]], dtype=bool)
    packed = PackedMasks(layout, layout.pack([masks]), CPU)
    weights = [torch.ones(network.layers[0].shape)]
    images = torch.tensor([[[1.0]]])
    assert max_logit(weights, packed, images, num_real=2).tasks.tolist() == [1]
    assert max_logit(weights, packed, images, num_real=3).tasks.tolist() == [0]


@pytest.mark.parametrize("algorithm", [min_entropy, max_logit])
def test_images_that_are_not_finite_are_refused(tiny, algorithm):
    weights, _, packed = stored(tiny)
    with pytest.raises(FloatingPointError, match="7 candidates"):
        algorithm(weights, packed, torch.full((1, 1, 16), float("nan")), NUM_REAL)


# Together


def by_every_algorithm(weights, packed, queries, num_real):
    """The tasks that each algorithm finds, by its name."""
    found = {
        f"{algorithm.__name__} {name}": algorithm(
            PackedGradient(weights, packed, queries, objective, num_real)
        )
        for algorithm in (one_shot, binary)
        for name, objective in OBJECTIVES.items()
    }
    for algorithm in (min_entropy, max_logit):
        found[algorithm.__name__] = algorithm(weights, packed, queries, num_real)
    return {name: inference.tasks.tolist() for name, inference in found.items()}


@pytest.mark.usefixtures("_rows_at_once")
def test_queries_together_are_inferred_as_one_by_one(tiny):
    weights, _, packed = stored(tiny)
    queries = random_queries(3, num_queries=10)
    together = by_every_algorithm(weights, packed, queries, NUM_REAL)
    one_by_one = [by_every_algorithm(weights, packed, q[None], NUM_REAL) for q in queries]
    for name, tasks in together.items():
        assert len(set(tasks)) > 1
        assert tasks == [single[name][0] for single in one_by_one]


@pytest.mark.parametrize("num_images", [1, 32])
def test_trained_masks_are_told_apart(six_permutations, digits, num_images):
    network, tasks, rows = six_permutations
    packed = PackedMasks(MaskLayout.of(network), rows, CPU)
    test = digits[1]
    queries = torch.stack(
        [
            normalise(torch.from_numpy(task.images(test.images[:num_images])), test.mean, test.std)
            for task in tasks
        ]
    )
    found = by_every_algorithm(fixed_weights(network, 0), packed, queries, num_real=10)
    assert found == {name: list(range(6)) for name in found}
    assert len(found) == 6
