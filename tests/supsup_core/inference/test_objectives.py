from math import exp, log, log1p

import pytest
import torch

from supsup_core import names
from supsup_core.inference.objectives import OBJECTIVES, entropy, superfluous


@pytest.mark.parametrize("a", [-3.0, 0.5, 2.0, 40.0])
def test_entropy_of_two_outputs_has_its_closed_form(a):
    value = entropy(torch.tensor([0.0, a], dtype=torch.float64), 2).item()
    assert value == pytest.approx(log1p(exp(-a)) + a / (1 + exp(a)), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("level", [0.0, -7.0, 300.0])
def test_entropy_of_uniform_logits_is_log_of_the_number_of_outputs(level):
    value = entropy(torch.full((3, 500), level), 10)
    torch.testing.assert_close(value, torch.full((3,), log(500)))


def test_entropy_of_certainty_is_zero_and_finite():
    assert entropy(torch.tensor([[1e4, 0.0, -1e4]]), 3).item() == 0


def test_entropy_counts_superfluous_outputs():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(entropy(logits, 5), entropy(logits, 8))
    assert not torch.allclose(entropy(logits, 5), entropy(logits[:, :5], 5))


def test_g_is_the_logsumexp_over_all_outputs():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(superfluous(logits, 5), logits.exp().sum(dim=1).log())


def test_g_has_the_softmax_for_gradient_in_superfluous_outputs_and_none_in_real_ones():
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(superfluous(logits.requires_grad_(), 5), logits)
    assert gradient[:5].tolist() == [0] * 5
    torch.testing.assert_close(gradient[5:], torch.softmax(logits.detach(), dim=0)[5:])


@pytest.mark.parametrize("num_real", [8, 9])
def test_g_is_refused_without_superfluous_outputs(num_real):
    with pytest.raises(ValueError, match=f"8 outputs, {num_real} of them real"):
        superfluous(torch.zeros(4, 8), num_real)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_give_one_value_an_image(name):
    assert OBJECTIVES[name](torch.zeros(2, 3, 8), 5).shape == (2, 3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_that_of_autograd(name):
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(OBJECTIVES[name](leaf, 5).sum(), leaf)
    torch.testing.assert_close(OBJECTIVES[name].gradient(logits, 5), expected)


@pytest.mark.parametrize("name", ["H", "G"])
def test_scope_changes_neither_value_nor_gradient(name):
    every, first = OBJECTIVES[name], OBJECTIVES[f"{name}_first_layer"]
    assert (every.first_layer_only, first.first_layer_only) == (False, True)
    assert (every.value, every.gradient) == (first.value, first.gradient)


def test_objectives_have_their_names():
    assert tuple(OBJECTIVES) == names.OBJECTIVES
