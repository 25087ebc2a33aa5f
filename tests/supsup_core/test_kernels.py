import pytest
import torch

from supsup_core.kernels.rmsprop import (
    rmsprop_step_for,
    rmsprop_step_fused,
    rmsprop_step_plain,
)
from supsup_core.methods import Threshold

SHAPE = (3, 7, 11)
RATES = [1e-2, 1e-2, 3e-3, 1e-3]  # the rate may change from step to step


def signs_and_gradients(narrow):
    generator = torch.Generator().manual_seed(0)
    signs = 2 * torch.randint(0, 2, SHAPE, generator=generator) - 1
    gradients = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in RATES]
    return signs.to(narrow), [g.to(narrow) for g in gradients]


def run(step, wide, narrow, smoothing=0.9):
    """Scores, squares and masked signs after some steps of a kernel."""
    signs, gradients = signs_and_gradients(narrow)
    scores = torch.linspace(-0.03, 0.03, signs.numel(), dtype=wide).view(SHAPE)
    squares, masked = torch.zeros_like(scores), torch.full_like(signs, 9)
    for rate, gradient in zip(RATES, gradients, strict=True):
        step(scores, squares, gradient, signs, masked, rate, smoothing)
    return scores, squares, masked


@pytest.mark.parametrize(
    ("wide", "narrow", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-6),
        (torch.float32, torch.bfloat16, 1e-6),
    ],
)
def test_fused_step_equals_plain_step(wide, narrow, tolerance):
    fused, plain = run(rmsprop_step_fused, wide, narrow), run(rmsprop_step_plain, wide, narrow)
    for one, other in zip(fused[:2], plain[:2], strict=True):
        assert one.dtype == other.dtype == wide
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * 1e-2)
    assert fused[2].dtype == plain[2].dtype == narrow
    assert torch.equal(fused[2], plain[2])


@pytest.mark.parametrize("step", [rmsprop_step_fused, rmsprop_step_plain])
@pytest.mark.parametrize("smoothing", [0.9, 0.99])
def test_steps_are_those_of_torch(step, smoothing):
    scores, squares, _ = run(step, torch.float64, torch.float64, smoothing)
    signs, gradients = signs_and_gradients(torch.float64)
    parameter = torch.linspace(-0.03, 0.03, signs.numel(), dtype=torch.float64).view(SHAPE)
    optimizer = torch.optim.RMSprop([parameter], alpha=smoothing)
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient * signs
        optimizer.step()
    torch.testing.assert_close(scores, parameter, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        squares, optimizer.state[parameter]["square_avg"], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("step", [rmsprop_step_fused, rmsprop_step_plain])
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_masked_holds_the_signs_of_scores_from_zero_on(step, narrow):
    scores, _, masked = run(step, torch.float32, narrow)
    signs, _ = signs_and_gradients(narrow)
    assert torch.equal(masked, signs * (scores >= 0))
    assert 0 < (masked == 0).double().mean() < 1


@pytest.mark.parametrize("step", [rmsprop_step_fused, rmsprop_step_plain])
def test_zero_gradient_leaves_scores_and_a_score_of_zero_stays(step):
    scores = torch.tensor([0.0, -0.0, -1.0, 1.0])
    signs, masked = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.full((4,), 9.0)
    step(scores, torch.zeros(4), torch.zeros(4), signs, masked, 0.1, 0.99)
    assert scores.tolist() == [0, 0, -1, 1]
    assert masked.tolist() == [1, -1, 0, -1]


def test_plain_step_takes_one_row_of_signs_for_many_scores():
    scores, gradients = torch.tensor([[-1.0, 1.0], [1.0, 2.0]]), torch.zeros(2, 2)
    masked = torch.zeros(2, 2)
    signs = torch.tensor([1.0, -1.0])
    rmsprop_step_plain(scores, torch.zeros(2, 2), gradients, signs, masked, 0.1, 0.99)
    assert masked.tolist() == [[0, -1], [1, -1]]


def test_fused_step_changes_no_copy_where_memory_is_not_contiguous():
    values = [torch.ones(4, 6).t() for _ in range(5)]
    with pytest.raises(RuntimeError):
        rmsprop_step_fused(*values, 0.1, 0.99)


def test_shapes_that_differ_are_refused_where_no_bounds_are_checked():
    values = [torch.ones(2, 3) for _ in range(5)]
    values[3] = torch.ones(3)
    with pytest.raises(ValueError, match="must have one shape"):
        rmsprop_step_fused(*values, 0.1, 0.99)


class Negative:
    """Another rule: keeps what the threshold drops."""

    def initial_scores(self, layer, generator):
        return generator.standard_normal(layer.shape, dtype="float32")

    def mask(self, scores):
        return scores < 0


def test_rule_and_device_choose_the_step():
    cpu = torch.device("cpu")
    assert rmsprop_step_for(Threshold(), cpu) is rmsprop_step_fused
    for method, device in ((Threshold(), torch.device("cuda")), (Negative(), cpu)):
        step = rmsprop_step_for(method, device)
        assert step.func is rmsprop_step_plain
        assert step.keywords == {"method": method}


def test_another_rule_than_the_threshold_is_obeyed():
    signs, masked = torch.tensor([1.0, -1.0]), torch.zeros(2)
    scores = torch.tensor([1.0, -1.0])
    step = rmsprop_step_for(Negative(), torch.device("cpu"))
    step(scores, torch.zeros(2), torch.zeros(2), signs, masked, 0.1, 0.99)
    assert masked.tolist() == [0, -1]
