import numpy as np
import pytest
import torch

from supsup_core.methods.threshold import Threshold
from supsup_core.names import OPTIMIZERS
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.layers import BlockLayer
from supsup_core.training.optimizers import SGD, Adam, FusedStep, RMSprop, make_optimizer

SHAPE = (3, 7, 11)
RATES = [1e-2, 1e-2, 3e-3, 1e-3]  # the rate may change from step to step


def signs_and_gradients(narrow):
    generator = torch.Generator().manual_seed(0)
    signs = 2 * torch.randint(0, 2, SHAPE, generator=generator) - 1
    gradients = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in RATES]
    return signs, [g.to(narrow) for g in gradients]


def plain(optimizer, scores, state, gradients, masked, rate, count, method=Threshold()):  # noqa: B008
    one, tensor = np.zeros((1, 1, 1)), MaskedTensor("one", (1, 1), fan_in=1, source="one")
    layer = BlockLayer(tensor, one, one, method, optimizer, scores.dtype, torch.device("cpu"))
    layer._advance(scores, state, gradients, masked, optimizer.constants(rate, count))


def fused(optimizer, scores, state, gradients, masked, rate, count):
    FusedStep(optimizer, scores, state, gradients, masked).step(rate, count)


def first_scores(wide):
    return torch.linspace(-0.03, 0.03, 3 * 7 * 11, dtype=wide).view(SHAPE)


def run(step, optimizer, wide, narrow):
    """Make four steps, and return the scores, the state and the masked signs."""
    signs, gradients = signs_and_gradients(narrow)
    scores, state = first_scores(wide), optimizer.begin(signs.to(wide))
    masked = torch.full(SHAPE, 9).to(narrow)
    for count, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), start=1):
        step(optimizer, scores, state, gradient, masked, rate, count)
    return scores, state, masked


@pytest.mark.parametrize(
    ("wide", "narrow", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-6),
        (torch.float32, torch.bfloat16, 1e-6),
    ],
)
def test_fused_step_equals_plain_step(optimizer, wide, narrow, tolerance):
    (scores, state, masked), other = (run(step, optimizer, wide, narrow) for step in (fused, plain))
    for one, same in zip((scores, *state), (other[0], *other[1]), strict=True):
        assert one.dtype == same.dtype
        torch.testing.assert_close(one, same, rtol=tolerance, atol=tolerance * 0.1)
    assert scores.dtype == wide
    assert masked.dtype == narrow
    assert torch.equal(masked, other[2])


OF_TORCH = {
    RMSprop(0.9): lambda scores: torch.optim.RMSprop([scores], alpha=0.9),
    RMSprop(0.99): lambda scores: torch.optim.RMSprop([scores], alpha=0.99),
    Adam(0.9, 0.99): lambda scores: torch.optim.Adam([scores], betas=(0.9, 0.99)),
    Adam(0.0, 0.9): lambda scores: torch.optim.Adam([scores], betas=(0.0, 0.9)),
    SGD(0.0): lambda scores: torch.optim.SGD([scores]),
    SGD(0.9): lambda scores: torch.optim.SGD([scores], momentum=0.9),
    RMSprop(0.9, 0.3): lambda s: torch.optim.RMSprop([s], alpha=0.9, weight_decay=0.3),
    Adam(0.9, 0.9, 0.3): lambda s: torch.optim.Adam([s], betas=(0.9, 0.9), weight_decay=0.3),
    SGD(0.9, 0.3): lambda s: torch.optim.SGD([s], momentum=0.9, weight_decay=0.3),
}


@pytest.mark.parametrize("step", [fused, plain])
@pytest.mark.parametrize("optimizer", OF_TORCH, ids=str)
def test_steps_are_those_of_torch(step, optimizer):
    scores, _, _ = run(step, optimizer, torch.float64, torch.float64)
    expected = first_scores(torch.float64)
    reference = OF_TORCH[optimizer](expected)
    signs, gradients = signs_and_gradients(torch.float64)
    for rate, gradient in zip(RATES, gradients, strict=True):
        reference.param_groups[0]["lr"] = rate
        expected.grad = gradient * signs
        reference.step()
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("step", [fused, plain])
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_masked_holds_the_signs_of_scores_from_zero_on(optimizer, step, narrow):
    scores, _, masked = run(step, optimizer, torch.float32, narrow)
    signs, _ = signs_and_gradients(narrow)
    assert torch.equal(masked, (signs * (scores >= 0)).to(narrow))
    assert 0 < (masked == 0).double().mean() < 1


@pytest.mark.parametrize("step", [fused, plain])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_zero_gradient_keeps_scores_and_signs_and_a_score_of_zero_stays(optimizer, step, wide):
    scores = torch.tensor([0.0, -0.0, -1.0, 1.0], dtype=wide)
    state = optimizer.begin(torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=wide))
    masked = torch.full((4,), 9.0, dtype=wide)
    for count in (1, 2):  # a state of zeros also stores the signs
        step(optimizer, scores, state, torch.zeros(4, dtype=wide), masked, 0.1, count)
    assert scores.tolist() == [0, 0, -1, 1]
    assert masked.tolist() == [1, -1, 0, -1]


def test_a_step_made_once_reads_what_its_gradients_hold_by_then(optimizer):
    expected, _, _ = run(fused, optimizer, torch.float32, torch.float32)
    signs, gradients = signs_and_gradients(torch.float32)
    scores, buffer = first_scores(torch.float32), torch.empty(SHAPE)
    state = optimizer.begin(signs.float())
    once = FusedStep(optimizer, scores, state, buffer, torch.empty(SHAPE))
    for count, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), start=1):
        buffer.copy_(gradient)
        once.step(rate, count)
    assert torch.equal(scores, expected)


def scores_and_all_beside_them(optimizer, ones):
    return [ones.clone(), *optimizer.begin(ones), ones.clone(), ones.clone()]


def fused_step(optimizer, scores, *more):
    *state, gradients, masked = more
    return FusedStep(optimizer, scores, tuple(state), gradients, masked)


def test_fused_step_changes_no_copy_where_memory_is_not_contiguous(optimizer):
    whole = scores_and_all_beside_them(optimizer, torch.ones(6, 4))
    turned = scores_and_all_beside_them(optimizer, torch.ones(4, 6).t())
    for i in range(len(whole)):
        with pytest.raises(RuntimeError):
            fused_step(optimizer, *whole[:i], turned[i], *whole[i + 1 :])


def test_shapes_that_differ_are_refused_where_no_bounds_are_checked(optimizer):
    whole = scores_and_all_beside_them(optimizer, torch.ones(2, 3))
    for i in range(len(whole)):
        with pytest.raises(ValueError, match="must have the same shape"):
            fused_step(optimizer, *whole[:i], whole[i][0], *whole[i + 1 :])


def test_another_rule_than_the_threshold_is_obeyed(optimizer):
    class Negative(Threshold):
        def mask(self, tensor, scores):
            return scores < 0

    state = optimizer.begin(torch.tensor([1.0, -1.0]))
    masked, scores = torch.zeros(2), torch.tensor([1.0, -1.0])
    plain(optimizer, scores, state, torch.zeros(2), masked, 0.1, 1, method=Negative())
    assert masked.tolist() == [0, -1]


def test_a_name_makes_its_optimizer_with_what_it_has():
    made = [make_optimizer(name, smoothing=0.9, momentum=0.0) for name in OPTIMIZERS]
    assert made == [RMSprop(0.9), Adam(0.0, 0.9), SGD(0.0)]
    assert make_optimizer("adam", smoothing=0.9, momentum=0.8) == Adam(0.8, 0.9)
    assert make_optimizer("sgd", smoothing=0.9, momentum=0.8, weight_decay=0.1) == SGD(0.8, 0.1)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of rmsprop, adam, sgd, got 'adagrad'"):
        make_optimizer("adagrad", smoothing=0.9, momentum=0.0)


def test_a_momentum_without_effect_is_refused():
    with pytest.raises(ValueError, match=r"momentum must be 0 with rmsprop, got 0\.9"):
        make_optimizer("rmsprop", smoothing=0.9, momentum=0.9)
