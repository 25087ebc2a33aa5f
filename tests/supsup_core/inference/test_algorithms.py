import numpy as np
import pytest
import torch

from supsup_core.data import normalise
from supsup_core.inference.algorithms import (
    GRADIENT_ALGORITHMS,
    Options,
    binary,
    frank_wolfe,
    gradient_descent,
    num_kept,
    one_shot,
)
from supsup_core.inference.forward import FORWARD_ALGORITHMS, max_logit, min_entropy
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import DenseGradient, PackedGradient
from supsup_core.networks.mlp import Network, fixed_weights, forward
from supsup_core.states import bits as superposition
from supsup_core.states.bits import PackedMasks
from supsup_core.states.layout import MaskLayout

CPU = torch.device("cpu")
DEFAULTS = Options()
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


def stored(tiny, num_tasks=NUM_TASKS, change=lambda masks: masks):
    """Weights, float masks and packed masks of random masks, changed before they are packed."""
    rng = np.random.default_rng(2)
    masks = [change(rng.random((num_tasks, *layer.shape)) < 0.5) for layer in tiny.layers]
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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_dense_gradient_is_the_slope_of_the_objective(tiny, name):
    weights, masks, _ = stored(tiny)
    weights, masks = [w.double() for w in weights], [m.double() for m in masks]
    queries = random_queries(5, num_queries=1).double()
    alphas = torch.linspace(0.05, 0.3, NUM_TASKS, dtype=torch.float64)

    def logits_at(a):
        counted = [a, alphas, alphas] if name.endswith("_first_layer") else [a, a, a]
        x = queries[0]
        for i, (weight, mask, alpha) in enumerate(zip(weights, masks, counted, strict=True)):
            superposed = sum(alpha[t] * mask[t] for t in range(NUM_TASKS))
            x = (x.relu() if i else x) @ (weight * superposed).T
        return x

    def objective_at(a):
        logits = logits_at(a)
        if name.startswith("H"):
            p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
            return -(p * p.log()).sum(dim=1).mean()
        # G does not see the real outputs move.
        logits[:, :NUM_REAL] = logits_at(alphas)[:, :NUM_REAL]
        return logits.exp().sum(dim=1).log().mean()

    step = 1e-6
    expected = [
        (objective_at(alphas + step * e) - objective_at(alphas - step * e)) / (2 * step)
        for e in torch.eye(NUM_TASKS, dtype=torch.float64)
    ]
    found = DenseGradient(weights, masks, queries, OBJECTIVES[name], NUM_REAL)(alphas[None])
    torch.testing.assert_close(found[0], torch.stack(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["H", "G"])
def test_first_layer_has_slopes_of_its_own(tiny, name):
    weights, masks, packed = stored(tiny)
    queries, alphas = random_queries(3), torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    for gradient, form in [(DenseGradient, masks), (PackedGradient, packed)]:
        first, every = (
            gradient(weights, form, queries, OBJECTIVES[scope], NUM_REAL)(alphas)
            for scope in (f"{name}_first_layer", name)
        )
        assert ((first - every).abs().amax(dim=1) > 0.1 * every.abs().amax(dim=1)).all()


@pytest.mark.parametrize("name", ["H", "G"])
def test_first_layer_of_one_is_all_there_is(name):
    weights, _, packed = stored(Network("one", (16, 6)))
    queries, alphas = random_queries(3), torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    first, every = (
        PackedGradient(weights, packed, queries, OBJECTIVES[scope], NUM_REAL)(alphas)
        for scope in (f"{name}_first_layer", name)
    )
    assert torch.equal(first, every)


def test_packed_gradient_leaves_images_and_weights_as_they_were(tiny):
    weights, _, packed = stored(tiny)
    queries = random_queries(2)
    before = [w.clone() for w in weights], queries.clone()
    gradient = PackedGradient(weights, packed, queries, OBJECTIVES["H"], NUM_REAL)
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
@pytest.mark.parametrize("algorithm", GRADIENT_ALGORITHMS.values(), ids=GRADIENT_ALGORITHMS)
def test_slope_that_is_not_finite_is_refused(algorithm, bad):
    with pytest.raises(FloatingPointError, match="4 candidates"):
        algorithm(Answers(lambda _: [0.0, 1.0, bad, 2.0], 4), DEFAULTS)


# Binary


def lefts_by_plain_count(num_tasks, log_base):
    """Candidates at the start of every round."""
    lefts = []
    while num_tasks > 1:
        lefts.append(num_tasks)
        num_tasks = len(range(0, num_tasks, log_base))  # one of every log_base begun
    return lefts


@pytest.mark.parametrize("log_base", [2, 3, 4])
@pytest.mark.parametrize("num_tasks", [*range(1, 18), 27, 28, 64, 65])
def test_binary_divides_the_candidates_by_its_base(num_tasks, log_base):
    gradient = Answers(lambda _: torch.arange(num_tasks).flip(0), num_tasks)
    found = binary(gradient, log_base)
    assert found.tasks.tolist() == [num_tasks - 1]
    lefts = [int((alphas > 0).sum()) for alphas in gradient.asked]
    assert lefts == lefts_by_plain_count(num_tasks, log_base)
    assert found.num_gradients == len(lefts)
    # As many as it takes for the base's power to reach T.
    assert log_base ** len(lefts) >= num_tasks > (log_base ** len(lefts) - 1) // log_base


def test_binary_halves_unless_told():
    gradient = Answers(lambda _: 0.0, 36)
    binary(gradient)
    assert [int((alphas > 0).sum()) for alphas in gradient.asked] == [36, 18, 9, 5, 3, 2]


@pytest.mark.parametrize("log_base", [NUM_TASKS, NUM_TASKS + 1, 1000])
def test_binary_with_a_base_as_large_as_the_tasks_is_one_shot(tiny, log_base):
    weights, _, packed = stored(tiny)
    queries = random_queries(2, num_queries=20)
    gradient = PackedGradient(weights, packed, queries, OBJECTIVES["H"], NUM_REAL)
    found = binary(gradient, log_base)
    assert found.num_gradients == 1
    assert found.tasks.tolist() == one_shot(gradient).tasks.tolist()
    assert len(set(found.tasks.tolist())) > 1


@pytest.mark.parametrize("num_tasks", [2, 3, 5, 8, 17])
@pytest.mark.parametrize("log_base", [2, 3, 4, 17])
def test_binary_ends_on_ties(num_tasks, log_base):
    gradient = Answers(lambda _: 0.0, num_tasks)
    assert binary(gradient, log_base).tasks.tolist() == [0]
    assert len(gradient.asked) == len(lefts_by_plain_count(num_tasks, log_base))


@pytest.mark.parametrize("log_base", [1, 0, -2])
def test_base_that_would_drop_no_candidate_is_refused(log_base):
    for num_tasks in (1, 4):
        with pytest.raises(ValueError, match=f"log_base must be >= 2, got {log_base}"):
            binary(Answers(lambda _: 0.0, num_tasks), log_base)
    with pytest.raises(ValueError, match=f"log_base must be >= 2, got {log_base}"):
        num_kept(4, log_base)


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


# Gradient descent and Frank-Wolfe


def pull(alphas):
    """Slopes that change with the coefficients, another way for each of two queries."""
    pulls = torch.tensor([[0.3, -0.2, 0.1, 0.0, -0.1], [-0.4, 0.5, 0.0, 0.2, -0.3]])
    return pulls + torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]) * alphas


def nearest_on_the_simplex(point):
    """By bisection for what is to be taken off each coordinate."""
    low, high = point.min() - 1, point.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (point - middle).clip(0).sum() > 1 else (low, middle)
    return (point - high).clip(0)


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0, 50.0])
def test_gradient_descent_follows_its_equation(rate):
    gradient = Answers(pull, 5, num_queries=2)
    found = gradient_descent(gradient, steps=6, rate=rate)
    assert found.num_gradients == len(gradient.asked) == 6
    alphas = np.full((2, 5), 0.2)
    for asked in gradient.asked:
        np.testing.assert_allclose(asked.expand(2, -1), alphas, atol=1e-5)
        moved = alphas - rate * pull(torch.from_numpy(alphas)).numpy()
        alphas = np.array([nearest_on_the_simplex(point) for point in moved])
    assert found.tasks.tolist() == alphas.argmax(axis=1).tolist()


def test_gradient_descent_stays_on_the_simplex_however_high_its_rate():
    gradient = Answers(pull, 5, num_queries=2)
    gradient_descent(gradient, steps=5, rate=1e12)
    for alphas in gradient.asked:
        assert (alphas >= 0).all()
        torch.testing.assert_close(alphas.sum(dim=1), torch.ones(len(alphas)))


def test_gradient_descent_lowers_the_objective(tiny):
    weights, _, packed = stored(tiny)
    objective, queries = OBJECTIVES["H"], random_queries(3)
    values = []

    class Watched(PackedGradient):
        def __call__(self, alphas):
            effective = packed.effective_weights(weights, alphas.expand(NUM_QUERIES, -1))
            values.append(objective(forward(effective, queries), NUM_REAL).mean(dim=1))
            return super().__call__(alphas)

    gradient_descent(Watched(weights, packed, queries, objective, NUM_REAL), steps=10, rate=0.1)
    falls = torch.stack(values).diff(dim=0)
    assert (falls < 0).all()


def test_frank_wolfe_follows_its_equation():
    gradient = Answers(pull, 5, num_queries=2)
    found = frank_wolfe(gradient, steps=8)
    assert found.num_gradients == len(gradient.asked) == 8
    alphas, corners = torch.full((2, 5), 0.2), set()
    for t, asked in enumerate(gradient.asked):
        torch.testing.assert_close(asked.expand(2, -1), alphas)
        gamma = 2 / (t + 3)
        alphas = (1 - gamma) * alphas
        for q, task in enumerate(pull(asked).argmin(dim=1).tolist()):
            alphas[q, task] += gamma
            corners.add(task)
    assert found.tasks.tolist() == alphas.argmax(dim=1).tolist()
    assert len(corners) > 2


@pytest.mark.parametrize("order", [[2, 1, 1, 2], [1, 2, 2, 1]])
def test_frank_wolfe_gives_the_lowest_task_of_equal_coefficients(order):
    # Steps 0 and 3 weigh together what steps 1 and 2 weigh: 2 + 5 = 3 + 4.
    slopes = [[-1.0 if task == lowest else 0.0 for task in range(3)] for lowest in order]
    assert frank_wolfe(Answers(in_turn(*slopes), 3), steps=4).tasks.tolist() == [1]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("num_tasks", [2, 7, 50])
def test_one_step_is_one_shot(tiny, name, num_tasks):
    weights, _, packed = stored(tiny, num_tasks)
    queries = random_queries(2, num_queries=20)
    gradient = PackedGradient(weights, packed, queries, OBJECTIVES[name], NUM_REAL)
    expected = one_shot(gradient).tasks.tolist()
    assert len(set(expected)) > 1
    assert frank_wolfe(gradient, steps=1).tasks.tolist() == expected
    for rate in (0.01, 0.3, 100.0):
        assert gradient_descent(gradient, steps=1, rate=rate).tasks.tolist() == expected


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_must_be_one_at_least(steps):
    with pytest.raises(ValueError, match=f"steps must be >= 1, got {steps}"):
        gradient_descent(Answers(pull, 5), steps=steps, rate=1.0)
    with pytest.raises(ValueError, match=f"steps must be >= 1, got {steps}"):
        frank_wolfe(Answers(pull, 5), steps=steps)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_rate_must_be_positive_and_finite(rate):
    with pytest.raises(ValueError, match=f"rate must be positive and finite, got {rate}"):
        gradient_descent(Answers(pull, 5), steps=1, rate=rate)


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


# Together


def by_every_algorithm(
    weights, packed, queries, num_real, *, options=DEFAULTS, masks=None, seen_as=lambda g: g
):
    """What each algorithm finds, by its name; from float masks too, where there are any."""
    forms = {"packed": (PackedGradient, packed)}
    if masks is not None:
        forms["dense"] = (DenseGradient, masks)
    found = {}
    for objective in OBJECTIVES:
        for form, (gradient, stored_masks) in forms.items():
            plain = gradient(weights, stored_masks, queries, OBJECTIVES[objective], num_real)
            for name, algorithm in GRADIENT_ALGORITHMS.items():
                found[f"{name} {objective} {form}"] = algorithm(seen_as(plain), options)
    for name, algorithm in FORWARD_ALGORITHMS.items():
        found[name] = algorithm(weights, packed, queries, num_real)
    return found


def tasks_of(found):
    return {name: inference.tasks.tolist() for name, inference in found.items()}


@pytest.mark.usefixtures("_rows_at_once")
def test_queries_together_are_inferred_as_one_by_one(tiny):
    weights, _, packed = stored(tiny)
    queries = random_queries(3, num_queries=10)
    together = tasks_of(by_every_algorithm(weights, packed, queries, NUM_REAL))
    one_by_one = [tasks_of(by_every_algorithm(weights, packed, q[None], NUM_REAL)) for q in queries]
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
    found = tasks_of(by_every_algorithm(fixed_weights(network, 0), packed, queries, num_real=10))
    assert found == {name: list(range(6)) for name in found}
    assert len(found) == 4 * 4 + 2


def test_options_reach_their_algorithm(tiny):
    weights, _, packed = stored(tiny)
    options = Options(log_base=3, steps=4)
    found = by_every_algorithm(weights, packed, random_queries(1), NUM_REAL, options=options)
    expected = {"one_shot": 1, "binary": 2, "gradient_descent": 4, "frank_wolfe": 4}
    for name, inference in found.items():
        assert inference.num_gradients == expected.get(name.split()[0], 0)
    slow, fast = Answers(pull, 5, num_queries=2), Answers(pull, 5, num_queries=2)
    GRADIENT_ALGORITHMS["gradient_descent"](slow, Options(steps=2, rate=0.01))
    GRADIENT_ALGORITHMS["gradient_descent"](fast, Options(steps=2, rate=0.1))
    torch.testing.assert_close(10 * (slow.asked[1] - 0.2), fast.asked[1] - 0.2)


# Edges, of every algorithm


def test_one_task_is_the_answer(tiny):
    weights, masks, packed = stored(tiny, num_tasks=1)
    found = by_every_algorithm(weights, packed, random_queries(2), NUM_REAL, masks=masks)
    for inference in found.values():
        assert inference.tasks.tolist() == [0] * NUM_QUERIES
    gradients = {name: inference.num_gradients for name, inference in found.items()}
    assert (gradients["one_shot H dense"], gradients["binary H dense"]) == (1, 0)
    assert (gradients["gradient_descent H dense"], gradients["frank_wolfe H dense"]) == (10, 10)


def test_two_tasks_are_told_apart(tiny):
    weights, masks, packed = stored(tiny, num_tasks=2)
    queries = random_queries(2, num_queries=20)
    found = tasks_of(by_every_algorithm(weights, packed, queries, NUM_REAL, masks=masks))
    for name, tasks in found.items():
        assert set(tasks) == {0, 1}
        assert tasks == found[name.replace("packed", "dense")]
        if name.startswith("binary"):
            assert tasks == found[name.replace("binary", "one_shot")]


@pytest.mark.parametrize("name", GRADIENT_ALGORITHMS)
def test_equal_slopes_give_the_lowest_task(name):
    found = GRADIENT_ALGORITHMS[name](Answers(lambda _: -0.7, 5, num_queries=2), DEFAULTS)
    assert found.tasks.tolist() == [0, 0]


def twins(of):
    """A gradient where mask i is the same as mask of[i]: so are its slopes, but for rounding.

    A matrix product may round a column otherwise than its twin, which stands elsewhere.
    """

    def seen_as(gradient):
        def rule(alphas):
            slopes = gradient(alphas)
            assert (slopes - slopes[:, of]).abs().max() < 1e-5
            return slopes[:, of]

        return Answers(rule, gradient.num_tasks, gradient.num_queries)

    return seen_as


@pytest.mark.parametrize("num_tasks", [2, 5, 8])
@pytest.mark.parametrize(
    "change",
    [lambda m: m[:1].repeat(len(m), axis=0), np.zeros_like, np.ones_like],
    ids=["random", "zeros", "ones"],
)
def test_identical_masks_give_the_lowest_task(tiny, num_tasks, change):
    weights, masks, packed = stored(tiny, num_tasks, change)
    found = by_every_algorithm(
        weights, packed, random_queries(2), NUM_REAL, masks=masks, seen_as=twins([0] * num_tasks)
    )
    assert tasks_of(found) == {name: [0] * NUM_QUERIES for name in found}


def test_of_two_identical_masks_the_later_is_never_named(tiny):
    weights, masks, packed = stored(tiny, 4, change=lambda m: m[[0, 1, 0, 1]])
    queries, of = random_queries(2, num_queries=20), [0, 1, 0, 1]
    found = tasks_of(
        by_every_algorithm(weights, packed, queries, NUM_REAL, masks=masks, seen_as=twins(of))
    )
    assert {name: set(tasks) for name, tasks in found.items()} == {name: {0, 1} for name in found}


def test_mask_of_zeros_beside_a_mask_of_ones(tiny):
    # A mask of zeros has no slope: one-shot names it where that of the ones rises.
    weights, masks, packed = stored(
        tiny, 2, change=lambda m: np.stack([np.zeros_like(m[0]), np.ones_like(m[0])])
    )
    queries, half = random_queries(1, num_queries=10), torch.full((1, 2), 0.5)
    found = tasks_of(by_every_algorithm(weights, packed, queries, NUM_REAL, masks=masks))
    assert found["min_entropy"] == [1] * 10
    for name, objective in OBJECTIVES.items():
        slopes = DenseGradient(weights, masks, queries, objective, NUM_REAL)(half)
        assert (slopes[:, 0] == 0).all()
        for form in ("packed", "dense"):
            assert found[f"one_shot {name} {form}"] == (slopes[:, 1] < 0).long().tolist()


@pytest.mark.parametrize("name", [*GRADIENT_ALGORITHMS, *FORWARD_ALGORITHMS])
def test_images_that_are_not_finite_are_refused(tiny, name):
    weights, masks, packed = stored(tiny)
    images = torch.full((1, 1, 16), float("nan"))
    if name in FORWARD_ALGORITHMS:
        with pytest.raises(FloatingPointError, match="7 candidates"):
            FORWARD_ALGORITHMS[name](weights, packed, images, NUM_REAL)
        return
    for objective in OBJECTIVES.values():
        for gradient in (
            DenseGradient(weights, masks, images, objective, NUM_REAL),
            PackedGradient(weights, packed, images, objective, NUM_REAL),
        ):
            with pytest.raises(FloatingPointError, match="7 candidates"):
                GRADIENT_ALGORITHMS[name](gradient, DEFAULTS)
