import pytest
import torch

from supsup_core.kernels.rmsprop import FusedRmsprop, rmsprop_step_plain, signed_squares
from supsup_core.methods import Threshold

SHAPE = (3, 7, 11)
RATES = [1e-2, 1e-2, 3e-3, 1e-3]  # the rate may change from step to step


def signs_and_gradients(narrow):
    generator = torch.Generator().manual_seed(0)
    signs = 2 * torch.randint(0, 2, SHAPE, generator=generator) - 1
    gradients = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in RATES]
    return signs, [g.to(narrow) for g in gradients]


def plain(scores, squares, gradients, masked, rate, smoothing=0.99, method=Threshold()):  # noqa: B008
    rmsprop_step_plain(scores, squares, gradients, masked, rate, smoothing, method)


def fused(scores, squares, gradients, masked, rate, smoothing=0.99):
    FusedRmsprop(scores, squares, gradients, masked, smoothing).step(rate)


def run(step, wide, narrow, smoothing=0.9):
    """Scores, signed squares and masked signs after some steps of a kernel."""
    signs, gradients = signs_and_gradients(narrow)
    scores = torch.linspace(-0.03, 0.03, signs.numel(), dtype=wide).view(SHAPE)
    squares, masked = signed_squares(signs.to(wide)), torch.full(SHAPE, 9).to(narrow)
    for rate, gradient in zip(RATES, gradients, strict=True):
        step(scores, squares, gradient, masked, rate, smoothing)
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
    one, other = run(fused, wide, narrow), run(plain, wide, narrow)
    for a, b in zip(one[:2], other[:2], strict=True):
        assert a.dtype == b.dtype == wide
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 1e-2)
    assert one[2].dtype == other[2].dtype == narrow
    assert torch.equal(one[2], other[2])


@pytest.mark.parametrize("step", [fused, plain])
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
    expected = optimizer.state[parameter]["square_avg"] * signs
    torch.testing.assert_close(squares, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("step", [fused, plain])
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_masked_holds_the_signs_of_scores_from_zero_on(step, narrow):
    scores, _, masked = run(step, torch.float32, narrow)
    signs, _ = signs_and_gradients(narrow)
    assert torch.equal(masked, (signs * (scores >= 0)).to(narrow))
    assert 0 < (masked == 0).double().mean() < 1


@pytest.mark.parametrize("step", [fused, plain])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_zero_gradient_keeps_scores_and_signs_and_a_score_of_zero_stays(step, wide):
    scores = torch.tensor([0.0, -0.0, -1.0, 1.0], dtype=wide)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=wide)
    squares, masked = signed_squares(signs), torch.full((4,), 9.0, dtype=wide)
    for _ in range(2):  # squares of zero carry the sign too
        step(scores, squares, torch.zeros(4, dtype=wide), masked, 0.1)
    assert scores.tolist() == [0, 0, -1, 1]
    assert masked.tolist() == [1, -1, 0, -1]


def test_fused_step_changes_no_copy_where_memory_is_not_contiguous():
    values = [torch.ones(4, 6).t() for _ in range(4)]
    with pytest.raises(RuntimeError):
        fused(*values, 0.1)


def test_shapes_that_differ_are_refused_where_no_bounds_are_checked():
    values = [torch.ones(2, 3) for _ in range(4)]
    values[3] = torch.ones(3)
    with pytest.raises(ValueError, match="must have one shape"):
        fused(*values, 0.1)


def test_another_rule_than_the_threshold_is_obeyed():
    class Negative(Threshold):
        def mask(self, scores):
            return scores < 0

    squares = signed_squares(torch.tensor([1.0, -1.0]))
    masked, scores = torch.zeros(2), torch.tensor([1.0, -1.0])
    plain(scores, squares, torch.zeros(2), masked, 0.1, method=Negative())
    assert masked.tolist() == [0, -1]
