import pytest
import torch

from conformance.methods import NETWORKS, SLIM, MethodTests
from supsup_core.methods.n_of_m import NOfM
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.layers import score_gradients

LAYER = MaskedTensor("layer1", (3, 8), fan_in=8, source="layer1")


class TestNOfM(MethodTests):
    method = NOfM()


class TestOneOfThree(MethodTests):
    method = NOfM(n=1, m=3, decay_of_dropped=0.1)

    @pytest.fixture(params=[NETWORKS["mlp"], SLIM], ids=["mlp", "resnet"])
    def network(self, request):
        return request.param


def drawn(shape, num_tasks=2):
    return torch.randn(num_tasks, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8), (1, 1), (3, 5)])
def test_every_group_holds_n_of_its_largest_magnitudes(n, m):
    scores = drawn((6, 3 * m))
    tensor = MaskedTensor("layer1", (6, 3 * m), fan_in=3 * m, source="layer1")
    kept = NOfM(n, m).mask(tensor, scores).unflatten(-1, (-1, m))
    values = scores.abs().unflatten(-1, (-1, m))
    assert (kept.sum(dim=-1) == n).all()
    lowest = values.where(kept, torch.inf).amin(dim=-1)
    highest = values.where(~kept, -torch.inf).amax(dim=-1)
    assert (lowest > highest).all()


def test_equal_values_are_kept_in_order():
    scores = torch.tensor([[[1.0, 1, 1, 1, 0, 2, -2, 2]] * 3])
    kept = NOfM(2, 4).mask(LAYER, scores)
    assert kept[0, 0].tolist() == [True, True, False, False, False, True, True, False]


def test_all_of_m_are_all_ones():
    for network in NETWORKS.values():
        for tensor in network.tensors:
            assert NOfM(4, 4).mask(tensor, drawn(tensor.shape)).all()


@pytest.mark.parametrize(("num_inputs", "kept"), [(10, 5), (11, 6), (9, 5), (2, 1), (1, 1)])
def test_a_shorter_last_group_keeps_its_share(num_inputs, kept):
    tensor = MaskedTensor("layer1", (3, num_inputs), fan_in=num_inputs, source="layer1")
    mask = NOfM(2, 4).mask(tensor, drawn(tensor.shape))
    assert (mask.sum(dim=-1) == kept).all()


def test_groups_of_a_convolution_are_channels_at_one_place():
    tensor = MaskedTensor("conv", (5, 8, 3, 3), fan_in=72, source="conv")
    scores = drawn(tensor.shape)
    kept = NOfM(2, 4).mask(tensor, scores)
    groups = kept.unflatten(2, (2, 4))
    assert kept.shape == scores.shape
    assert (groups.sum(dim=3) == 2).all()


def test_dropped_scores_decay_and_kept_scores_do_not():
    method, scores = NOfM(2, 4, decay_of_dropped=0.5), drawn(LAYER.shape)
    decay = method.decay(LAYER, scores)
    kept = method.mask(LAYER, scores)
    assert not decay[kept].any()
    assert torch.equal(decay[~kept], 0.5 * scores[~kept])
    assert NOfM(decay_of_dropped=0.0).decay(LAYER, scores) is None


def test_the_decay_is_added_to_the_gradient_of_the_loss():
    method, scores = NOfM(2, 4, decay_of_dropped=0.5), drawn(LAYER.shape)
    signs = drawn(LAYER.shape, 2).flip(0).sign()
    network, leaf = MLP("one", (8, 3)), scores.clone().requires_grad_()
    (method.gains(network, {"layer1": leaf})["layer1"] * signs).sum().backward()
    expected = leaf.grad + method.decay(LAYER, scores)
    found = score_gradients(method, LAYER, scores, torch.ones_like(scores), signs)
    assert torch.equal(found, expected)


def test_n_above_m_is_refused():
    with pytest.raises(ValueError, match="n must be at most m=4, got 5"):
        NOfM(5, 4)
    with pytest.raises(ValueError, match=r"m must be in \[1, 64\], got 65"):
        NOfM(2, 65)
