"""Tests of the algorithms on artificial gradients, without a network or states."""

import numpy as np
import pytest
import torch

from supsup_core.inference.algorithms import (
    BY_GRADIENT,
    Options,
    binary,
    frank_wolfe,
    gradient_descent,
    num_kept,
    one_shot,
)
from supsup_core.inference.answers import NO_TASK
from supsup_core.names import GRADIENT_ALGORITHMS

CPU = torch.device("cpu")


class Answers:
    """A gradient that computes slopes with a rule, and keeps the coefficients that it received."""

    def __init__(self, rule, num_tasks, num_queries=1):
        self.rule, self.asked = rule, []
        self.num_tasks, self.num_queries, self.device = num_tasks, num_queries, CPU

    def __call__(self, alphas):
        self.asked.append(alphas.clone())
        slopes = torch.as_tensor(self.rule(alphas), dtype=torch.float32)
        return slopes.expand(self.num_queries, self.num_tasks)


def in_turn(*answers):
    """Make a rule that returns the given answers one after another."""
    rest = iter(answers)
    return lambda alphas: next(rest)


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
@pytest.mark.parametrize("algorithm", BY_GRADIENT.values(), ids=BY_GRADIENT)
def test_slope_that_is_not_finite_is_refused(algorithm, bad):
    with pytest.raises(FloatingPointError, match="4 candidates"):
        algorithm(Answers(lambda _: [0.0, 1.0, bad, 2.0], 4), Options())


# Runner-up


@pytest.mark.parametrize(
    ("name", "slopes", "runner_up", "margin"),
    [
        ("one_shot", [[3.0, -1.0, 0.5, -1.0]], 3, 0.0),
        ("one_shot", [[3.0, -1.0, 0.5, 1.5]], 2, 1.5),
        # Round 1 keeps tasks 1 and 2. Only round 2 ranks them.
        ("binary", [[3.0, -1.0, 0.5, 1.5], [0.0, 4.0, 2.0, 0.0]], 1, 2.0),
        # Both steps choose task 1, so the other tasks are equal.
        ("frank_wolfe", [[3.0, -1.0, 0.5, 1.5]] * 2, NO_TASK, None),
        # The votes are 2 for task 1, then 3 for task 3.
        ("frank_wolfe", [[3.0, -1.0, 0.5, 1.5], [3.0, 0.0, 0.5, -1.0]], 1, 1 / 6),
        ("gradient_descent", [[0.25, 0.0, 0.05, 0.1]] * 2, 2, 0.1),
        ("gradient_descent", [[9.0, -9.0, 5.0, 7.0]] * 2, NO_TASK, None),
    ],
)
def test_the_runner_up_has_the_second_best_score(name, slopes, runner_up, margin):
    found = BY_GRADIENT[name](Answers(in_turn(*slopes), 4), Options(steps=2, rate=1.0))
    assert found.runners_up.tolist() == [runner_up]
    if margin is None:
        assert found.margins.isnan().all()
    else:
        assert found.margins.item() == pytest.approx(margin, abs=1e-6)


# Binary


def lefts_by_plain_count(num_tasks, log_base):
    """Count the candidates at the start of every round."""
    lefts = []
    while num_tasks > 1:
        lefts.append(num_tasks)
        num_tasks = len(range(0, num_tasks, log_base))  # num_tasks / log_base, rounded up
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
    # The number of rounds is the smallest exponent for which the base's power reaches T.
    assert log_base ** len(lefts) >= num_tasks > (log_base ** len(lefts) - 1) // log_base


def test_binary_halves_unless_told():
    gradient = Answers(lambda _: 0.0, 36)
    binary(gradient)
    assert [int((alphas > 0).sum()) for alphas in gradient.asked] == [36, 18, 9, 5, 3, 2]


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
    # The first round ranks task 3 before task 1. In the second round both have the same slope.
    gradient = Answers(in_turn([2.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]), 4)
    assert binary(gradient).tasks.tolist() == [3]


def test_binary_never_returns_to_a_candidate_it_has_left():
    # The rule gives the lowest slope to tasks that are no longer candidates.
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
    """Compute slopes that depend on the coefficients, and differ between two queries."""
    pulls = torch.tensor([[0.3, -0.2, 0.1, 0.0, -0.1], [-0.4, 0.5, 0.0, 0.2, -0.3]])
    return pulls + torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]) * alphas


def nearest_on_the_simplex(point):
    """Project onto the simplex, by bisection for the number to subtract from each coordinate."""
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
    # Steps 0 and 3 together have the same weight as steps 1 and 2: 2 + 5 = 3 + 4.
    slopes = [[-1.0 if task == lowest else 0.0 for task in range(3)] for lowest in order]
    assert frank_wolfe(Answers(in_turn(*slopes), 3), steps=4).tasks.tolist() == [1]


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


# All algorithms


def test_every_algorithm_by_gradient_has_its_name():
    assert tuple(BY_GRADIENT) == GRADIENT_ALGORITHMS


def test_rate_reaches_gradient_descent():
    slow, fast = Answers(pull, 5, num_queries=2), Answers(pull, 5, num_queries=2)
    BY_GRADIENT["gradient_descent"](slow, Options(steps=2, rate=0.01))
    BY_GRADIENT["gradient_descent"](fast, Options(steps=2, rate=0.1))
    torch.testing.assert_close(10 * (slow.asked[1] - 0.2), fast.asked[1] - 0.2)


@pytest.mark.parametrize("name", GRADIENT_ALGORITHMS)
def test_equal_slopes_give_the_lowest_task(name):
    found = BY_GRADIENT[name](Answers(lambda _: -0.7, 5, num_queries=2), Options())
    assert found.tasks.tolist() == [0, 0]
