import pytest
import torch

from supsup_core.kernels.top_share import keep_largest_plain
from supsup_core.training.magnitude_steps import TopShareStep
from supsup_core.training.optimizers import SGD, Adam, FusedStep, RMSprop

SIZE = 1000
TYPES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float64, torch.float64),
]
# At these learning rates many scores cross zero within a few steps, and the threshold moves.
RATES = {
    RMSprop(0.9): 3e-3,
    RMSprop(0.99): 3e-4,
    Adam(0.9, 0.99): 3e-3,
    Adam(0.0, 0.9): 3e-3,
    SGD(0.0): 3e-3,
    SGD(0.9): 1e-3,
}


def sign(scores):
    """Compute signs of +1 and -1. The sign of zero is +1."""
    return torch.where(scores >= 0, 1, -1).to(scores.dtype)


def plain_move(optimizer, scores, state, gradients, rate, count):
    """Make the optimiser's step on signed scores in torch, whose square roots are not exact."""
    slope = gradients.to(scores.dtype) * optimizer.signs(state).to(scores.dtype)
    optimizer.move(scores, state, slope, optimizer.constants(rate, count))


def kernel_move(optimizer, scores, state, gradients, rate, count):
    """Make the optimiser's step on signed scores with its kernel."""
    FusedStep(optimizer, scores, state, gradients, torch.empty_like(gradients)).step(rate, count)


def signed_step(move, optimizer, scores, state, gradients, masked, num_kept, rate, count):
    """Make a step of edge-popup on signed scores."""
    slope = gradients * sign(scores).to(gradients.dtype)
    move(optimizer, scores, state, slope, rate, count)
    keep_largest_plain(scores.abs(), optimizer.signs(state), masked, [(num_kept, 1.0)])


def beginning(optimizer, wide, narrow, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = 0.03 * (2 * torch.rand(SIZE, generator=generator) - 1).to(wide)
    signs = 2 * torch.randint(0, 2, (SIZE,), generator=generator) - 1
    return scores, signs.to(wide), torch.full((SIZE,), 9).to(narrow), generator


def as_magnitudes(optimizer, scores, state):
    """Convert signed scores and their state to the values that the fused step should have."""
    kept = [v * sign(scores) if i in optimizer.odd_state else v for i, v in enumerate(state)]
    return [scores.abs(), *kept]


def steps(optimizer, wide, narrow, num_kept, move, num_steps):
    """Yield, after every step, the fused step's tensors and the tensors from signed scores."""
    scores, signs, masked, generator = beginning(optimizer, wide, narrow)
    state, magnitudes, expected = optimizer.begin(signs), scores.abs(), masked.clone()
    moved, gradients = optimizer.begin(signs), torch.empty(SIZE).to(narrow)
    fused = TopShareStep(optimizer, magnitudes, moved, gradients, masked, [(num_kept, 1.0)])
    crossings = 0
    for count in range(1, num_steps + 1):
        rate, before = RATES[optimizer] / (1 + count // 10), sign(scores)
        gradients.copy_(torch.randn(SIZE, generator=generator))
        fused.step(rate, count)
        signed_step(move, optimizer, scores, state, gradients, expected, num_kept, rate, count)
        crossings += int((sign(scores) != before).sum())
        yield (masked, magnitudes, *moved), (expected, *as_magnitudes(optimizer, scores, state))
    assert crossings > 100
    assert int((masked != 0).sum()) == num_kept


@pytest.mark.parametrize("num_kept", [1, 400, SIZE])
@pytest.mark.parametrize(("wide", "narrow"), TYPES)
@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_magnitudes_step_as_signed_scores_do_bit_for_bit(optimizer, wide, narrow, num_kept):
    for found, expected in steps(optimizer, wide, narrow, num_kept, kernel_move, 40):
        for one, same in zip(found, expected, strict=True):
            assert one.dtype == same.dtype
            assert torch.equal(one, same)


@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_fused_step_equals_plain_step(optimizer):
    for found, expected in steps(optimizer, torch.float64, torch.float64, 400, plain_move, 20):
        assert torch.equal(found[0], expected[0])
        for one, same in zip(found[1:], expected[1:], strict=True):
            torch.testing.assert_close(one, same, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_the_signs_of_the_weights_outlast_crossings(optimizer):
    scores, signs, masked, generator = beginning(optimizer, torch.float32, torch.float32)
    state, gradients = optimizer.begin(signs), torch.empty(SIZE)
    fused = TopShareStep(optimizer, scores.abs_(), state, gradients, masked, [(SIZE, 1.0)])
    for count in range(1, 6):
        gradients.copy_(torch.randn(SIZE, generator=generator))
        fused.step(1e-2, count)
        assert torch.equal(masked, signs)
    assert torch.equal(optimizer.signs(state).float(), signs)
    assert torch.equal(torch.copysign(torch.ones(SIZE), state[0].float()), signs)


@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_scores_of_zero_move_as_positive_ones(optimizer):
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    gradients = torch.tensor([-1.0, -1.0, 1.0, 0.0])
    state, plain_state, masked = optimizer.begin(signs), optimizer.begin(signs), torch.empty(4)
    magnitudes, scores = torch.zeros(4), torch.zeros(4)
    fused = TopShareStep(optimizer, magnitudes, state, gradients, masked, [(2, 1.0)])
    for count in (1, 2, 3):
        fused.step(1e-2, count)
        signed_step(
            kernel_move, optimizer, scores, plain_state, gradients, torch.empty(4), 2, 1e-2, count
        )
        assert torch.equal(magnitudes, scores.abs())
    assert (magnitudes > 0).tolist() == [True, True, True, False]


def test_a_score_that_lands_on_zero_from_below_keeps_its_momentum_as_if_negative():
    optimizer, gradients = SGD(0.5), torch.tensor([1.0])
    magnitudes, state = torch.tensor([0.25]), optimizer.begin(torch.ones(1))
    fused = TopShareStep(optimizer, magnitudes, state, gradients, torch.empty(1), [(1, 1.0)])
    fused.step(0.25, 1)
    assert magnitudes.item() == 0
    assert state[1].item() == 1  # momentum of the magnitude, which went down
    gradients.zero_()
    fused.step(0.25, 2)
    assert magnitudes.item() == 0.125  # the score has crossed zero and keeps its direction
    assert state[1].item() == -0.5


@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_odd_state_changes_sign_with_scores_and_gradients_and_the_rest_does_not(optimizer):
    scores, signs, _, generator = beginning(optimizer, torch.float64, torch.float64)
    state, turned, turned_state = optimizer.begin(signs), -scores, optimizer.begin(signs)
    for count in (1, 2, 3):
        slope = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        optimizer.move(scores, state, slope, optimizer.constants(1e-2, count))
        optimizer.move(turned, turned_state, -slope, optimizer.constants(1e-2, count))
    assert torch.equal(turned, -scores)
    for i, (one, other) in enumerate(zip(state, turned_state, strict=True)):
        assert torch.equal(other, -one if i in optimizer.odd_state else one)


@pytest.mark.parametrize("optimizer", RATES, ids=str)
def test_memory_that_is_not_contiguous_is_refused(optimizer):
    ones = torch.ones(4, 6)
    whole = [ones.clone(), *optimizer.begin(ones), ones.clone(), ones.clone()]
    turned = [torch.ones_like(t).reshape(6, 4).t() for t in whole]
    for i in range(len(whole)):
        scores, *state, gradients, masked = (
            turned[j] if i == j else t for j, t in enumerate(whole)
        )
        with pytest.raises(RuntimeError):
            TopShareStep(optimizer, scores, tuple(state), gradients, masked, [(3, 1.0)])
