"""Tests of the algorithms on random and trained masks, with every form of slopes."""

import numpy as np
import pytest
import torch

from supsup_core.data import normalise
from supsup_core.inference.algorithms import (
    BY_GRADIENT,
    Options,
    binary,
    frank_wolfe,
    gradient_descent,
    one_shot,
)
from supsup_core.inference.forward import FORWARD_SCORES, infer_by_forward
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import AutogradSlopes, GainSlopes, MLPSlopes
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.states.bits import BitStates

NUM_TASKS, NUM_QUERIES, NUM_REAL = 7, 4, 4  # two of the six outputs are superfluous


@pytest.mark.parametrize("log_base", [NUM_TASKS, NUM_TASKS + 1, 1000])
def test_binary_with_a_base_as_large_as_the_tasks_is_one_shot(
    tiny, log_base, stored, random_queries
):
    queries = random_queries(2, num_queries=20)
    gradient = MLPSlopes(tiny, tiny.weights(0), stored(tiny)[1], queries, OBJECTIVES["H"], NUM_REAL)
    found = binary(gradient, log_base)
    assert found.num_gradients == 1
    assert found.tasks.tolist() == one_shot(gradient).tasks.tolist()
    assert len(set(found.tasks.tolist())) > 1


def test_gradient_descent_lowers_the_objective(tiny, stored, random_queries):
    weights, (_, packed) = tiny.weights(0), stored(tiny)
    objective, queries = OBJECTIVES["H"], random_queries(3)
    values = []

    class Watched(MLPSlopes):
        def __call__(self, alphas):
            gains = packed.combine(alphas.expand(NUM_QUERIES, -1))
            logits = tiny.logits(weights, gains, queries)
            values.append(objective(logits, NUM_REAL).mean(dim=1))
            return super().__call__(alphas)

    watched = Watched(tiny, weights, packed, queries, objective, NUM_REAL)
    gradient_descent(watched, steps=10, rate=0.1)
    falls = torch.stack(values).diff(dim=0)
    assert (falls < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("num_tasks", [2, 7, 50])
def test_one_step_is_one_shot(tiny, name, num_tasks, stored, random_queries):
    _, packed = stored(tiny, num_tasks)
    queries = random_queries(2, num_queries=20)
    gradient = MLPSlopes(tiny, tiny.weights(0), packed, queries, OBJECTIVES[name], NUM_REAL)
    expected = one_shot(gradient).tasks.tolist()
    assert len(set(expected)) > 1
    assert frank_wolfe(gradient, steps=1).tasks.tolist() == expected
    for rate in (0.01, 0.3, 100.0):
        assert gradient_descent(gradient, steps=1, rate=rate).tasks.tolist() == expected


# Several queries and algorithms together


def by_every_algorithm(
    network,
    packed,
    queries,
    num_real,
    *,
    options=Options(),  # noqa: B008
    dense=None,
    seen_as=lambda g: g,
):
    """Run every algorithm with every objective on `packed`, and on `dense` if it is not None.

    Returns:
        Name -> result. Names have the form "ALGORITHM OBJECTIVE FORM". The name of a forward
        algorithm is "ALGORITHM".
    """
    forms = {"packed": (MLPSlopes, packed)}
    if dense is not None:
        forms["dense"] = (AutogradSlopes, dense)
    found, weights = {}, network.weights(0)
    for objective in OBJECTIVES:
        for form, (gradient, states) in forms.items():
            plain = gradient(network, weights, states, queries, OBJECTIVES[objective], num_real)
            for name, algorithm in BY_GRADIENT.items():
                found[f"{name} {objective} {form}"] = algorithm(seen_as(plain), options)
    for name in FORWARD_SCORES:
        found[name] = infer_by_forward(name, network, weights, packed, queries, num_real)
    return found


def tasks_of(found):
    return {name: inference.tasks.tolist() for name, inference in found.items()}


@pytest.mark.usefixtures("_rows_at_once")
def test_queries_together_are_inferred_as_one_by_one(tiny, stored, random_queries):
    _, packed = stored(tiny)
    queries = random_queries(3, num_queries=10)
    together = tasks_of(by_every_algorithm(tiny, packed, queries, NUM_REAL))
    one_by_one = [tasks_of(by_every_algorithm(tiny, packed, q[None], NUM_REAL)) for q in queries]
    for name, tasks in together.items():
        assert len(set(tasks)) > 1
        assert tasks == [single[name][0] for single in one_by_one]


@pytest.mark.parametrize("num_images", [1, 32])
def test_trained_masks_are_told_apart(six_permutations, digits, num_images):
    network, tasks, rows = six_permutations
    packed = BitStates(layout_of(network, Threshold()), rows, torch.device("cpu"))
    test = digits[1]
    queries = torch.stack(
        [
            normalise(torch.from_numpy(task.images(test.images[:num_images])), test.mean, test.std)
            for task in tasks
        ]
    )
    found = tasks_of(by_every_algorithm(network, packed, queries, num_real=10))
    assert found == {name: list(range(6)) for name in found}
    assert len(found) == 4 * 4 + 2


def test_options_reach_their_algorithm(tiny, stored, random_queries):
    _, packed = stored(tiny)
    options = Options(log_base=3, steps=4)
    found = by_every_algorithm(tiny, packed, random_queries(1), NUM_REAL, options=options)
    expected = {"one_shot": 1, "binary": 2, "gradient_descent": 4, "frank_wolfe": 4}
    for name, inference in found.items():
        assert inference.num_gradients == expected.get(name.split()[0], 0)


# Edge cases of every algorithm


def test_one_task_is_the_answer(tiny, stored, random_queries):
    dense, packed = stored(tiny, num_tasks=1)
    found = by_every_algorithm(tiny, packed, random_queries(2), NUM_REAL, dense=dense)
    for inference in found.values():
        assert inference.tasks.tolist() == [0] * NUM_QUERIES
    gradients = {name: inference.num_gradients for name, inference in found.items()}
    assert (gradients["one_shot H dense"], gradients["binary H dense"]) == (1, 0)
    assert (gradients["gradient_descent H dense"], gradients["frank_wolfe H dense"]) == (10, 10)


def test_two_tasks_are_told_apart(tiny, stored, random_queries):
    dense, packed = stored(tiny, num_tasks=2)
    queries = random_queries(2, num_queries=20)
    found = tasks_of(by_every_algorithm(tiny, packed, queries, NUM_REAL, dense=dense))
    for name, tasks in found.items():
        assert set(tasks) == {0, 1}
        assert tasks == found[name.replace("packed", "dense")]
        if name.startswith("binary"):
            assert tasks == found[name.replace("binary", "one_shot")]


def twins(of):
    """Make a class of gradients that give mask i exactly the slope of mask of[i], its twin.

    The two masks are equal, but their slopes may differ by rounding: a matrix product may round
    two equal columns differently.
    """

    class Twins:
        def __init__(self, gradient):
            self.gradient, self.device = gradient, gradient.device
            self.num_tasks, self.num_queries = gradient.num_tasks, gradient.num_queries

        def __call__(self, alphas):
            slopes = self.gradient(alphas)
            assert (slopes - slopes[:, of]).abs().max() < 1e-5
            return slopes[:, of]

    return Twins


@pytest.mark.parametrize("num_tasks", [2, 5, 8])
@pytest.mark.parametrize(
    "change",
    [lambda m: m[:1].repeat(len(m), axis=0), np.zeros_like, np.ones_like],
    ids=["random", "zeros", "ones"],
)
def test_identical_masks_give_the_lowest_task(tiny, num_tasks, change, stored, random_queries):
    dense, packed = stored(tiny, num_tasks, change)
    found = by_every_algorithm(
        tiny, packed, random_queries(2), NUM_REAL, dense=dense, seen_as=twins([0] * num_tasks)
    )
    assert tasks_of(found) == {name: [0] * NUM_QUERIES for name in found}


def test_of_two_identical_masks_the_later_is_never_named(tiny, stored, random_queries):
    dense, packed = stored(tiny, 4, change=lambda m: m[[0, 1, 0, 1]])
    queries, of = random_queries(2, num_queries=20), [0, 1, 0, 1]
    found = tasks_of(
        by_every_algorithm(tiny, packed, queries, NUM_REAL, dense=dense, seen_as=twins(of))
    )
    assert {name: set(tasks) for name, tasks in found.items()} == {name: {0, 1} for name in found}


def test_mask_of_zeros_beside_a_mask_of_ones(tiny, stored, random_queries):
    # The mask of zeros has a slope of 0. So one-shot chooses the mask of ones only if the slope of
    # the mask of ones is negative.
    dense, packed = stored(
        tiny, 2, change=lambda m: np.stack([np.zeros_like(m[0]), np.ones_like(m[0])])
    )
    queries, half = random_queries(1, num_queries=10), torch.full((1, 2), 0.5)
    found = tasks_of(by_every_algorithm(tiny, packed, queries, NUM_REAL, dense=dense))
    assert found["min_entropy"] == [1] * 10
    for name, objective in OBJECTIVES.items():
        plain = AutogradSlopes(tiny, tiny.weights(0), dense, queries, objective, NUM_REAL)
        slopes = plain(half)
        assert (slopes[:, 0] == 0).all()
        for form in ("packed", "dense"):
            assert found[f"one_shot {name} {form}"] == (slopes[:, 1] < 0).long().tolist()


@pytest.mark.parametrize("name", [*BY_GRADIENT, *FORWARD_SCORES])
def test_images_that_are_not_finite_are_refused(tiny, name, stored):
    weights, (dense, packed) = tiny.weights(0), stored(tiny)
    images = torch.full((1, 1, 16), float("nan"))
    if name in FORWARD_SCORES:
        with pytest.raises(FloatingPointError, match="7 candidates"):
            infer_by_forward(name, tiny, weights, packed, images, NUM_REAL)
        return
    for objective in OBJECTIVES.values():
        for gradient in (
            AutogradSlopes(tiny, weights, dense, images, objective, NUM_REAL),
            GainSlopes(tiny, weights, packed, images, objective, NUM_REAL),
            MLPSlopes(tiny, weights, packed, images, objective, NUM_REAL),
        ):
            with pytest.raises(FloatingPointError, match="7 candidates"):
                BY_GRADIENT[name](gradient, Options())
