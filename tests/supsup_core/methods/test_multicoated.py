from itertools import pairwise

import numpy as np
import pytest
import torch

from conformance.methods import NETWORKS, SLIM, MethodTests, assert_same_planes, stacked
from supsup_core.data import ImageSet
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.multicoated import Multicoated
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.mlp import MLP
from supsup_core.states.choose import stored_states
from supsup_core.states.layout import TaskState
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")


class MulticoatedTests(MethodTests):
    def test_first_scores_agree_with_the_earlier_states_where_these_agree(
        self, network, layout, states, transferred
    ):
        """Replaces the test of other finders, because mean gains do not tell the coats apart.

        Two states with the gains 2 and 2 have the same mean as two states with the gains 1 and 3,
        and each coat keeps a fixed number of weights. So only dropped weights must agree.
        """
        begun = transferred("mean", layout.pack(states[:2]), 7)
        floats = states[0].floats
        ended = [TaskState(s.planes, floats) for s in self.method.end(network, stacked([begun]))]
        stored = stored_states(layout, layout.pack([*states[:2], *ended]), CPU)
        one, other, found = (stored.gains(i) for i in range(3))
        for name, gain in found.items():
            assert not gain[(one[name] == 0) & (other[name] == 0)].any()


class TestMulticoated(MulticoatedTests):
    method = Multicoated()


class TestScaledCoats(MulticoatedTests):
    # With some densities, the trainers do not agree to the bit: if the inputs of a unit cancel,
    # rounding decides whether the unit is above 0.
    method = Multicoated(densities=(0.6, 0.2), scale_fan=True)

    @pytest.fixture(params=[NETWORKS["mlp"], SLIM], ids=["mlp", "resnet"])
    def network(self, request):
        return request.param


def scores_of(network, num_tasks=2):
    generator = torch.Generator().manual_seed(0)
    return {t.name: torch.randn(num_tasks, *t.shape, generator=generator) for t in network.tensors}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def network(request):
    return request.param


def test_coats_are_nested_and_each_keeps_its_share(network):
    method, scores = Multicoated(densities=(0.5, 0.3, 0.1)), scores_of(network)
    for tensor in network.tensors:
        coats = method.choose(tensor, scores[tensor.name])
        for coat, density in zip(coats, method.densities, strict=True):
            assert (coat.flatten(1).sum(dim=1) == round(density * tensor.num_gains)).all()
        for outer, inner in pairwise(coats):
            assert not (inner & ~outer).any()


def test_the_gain_counts_the_coats():
    network = MLP("one", (4, 2))
    scores = torch.tensor([[[8.0, -7.0, 6.0, -5.0], [4.0, 3.0, -2.0, 1.0]]])
    method = Multicoated(densities=(0.75, 0.5, 0.25))
    gains = method.gains(network, {"layer1": scores})["layer1"]
    assert gains.tolist() == [[[3, 3, 2, 2], [1, 1, 0, 0]]]
    (state,) = method.end(network, {"layer1": scores})
    assert np.array_equal(sum(coat.astype(int) for coat in state.planes), gains[0].numpy())


def test_the_gradients_of_the_coats_add(network):
    scores = {name: s.requires_grad_() for name, s in scores_of(network).items()}
    sum(gain.sum() for gain in Multicoated().gains(network, scores).values()).backward()
    for score in scores.values():
        assert torch.equal(score.grad, 3 * score.detach().sign())


def test_scaled_gains_keep_the_size_of_outputs():
    network = MLP("one", (400, 200))
    method = Multicoated(densities=(0.25, 0.1), scale_fan=True)
    gains = method.gains(network, scores_of(network))["layer1"]
    assert gains.unique().tolist() == [0, 2, 4]
    assert layout_of(network, method).planes[0].spec.coefficient == 2


@pytest.mark.parametrize("density", [0.3, 0.5])
def test_one_coat_is_edge_popup_bit_for_bit(density, digits, make_tasks):
    """Both are trained by autograd, and by the trainer that is chosen for them."""
    network, tasks = NETWORKS["mlp"], make_tasks("permuted", side=8, num_classes=10)
    recipe, rows = Recipe(steps=15, batch_size=16, learning_rate=1e-2), []
    data = [
        ImageSet(d.images.reshape(-1, *network.input_shape), d.labels, d.mean, d.std)
        for d in digits
    ]
    methods = Multicoated(densities=(density,)), EdgePopup(density)
    for method in methods:
        layout = layout_of(network, method)
        measure = measure_for(network, layout, data[1], 0, CPU)
        given = network, method, data[0], measure, recipe
        trainer = AutogradTrainer(*given, seed=0, dtype=torch.float64, device=CPU)
        chosen = trainer_for(network, method, *data, recipe, seed=0, dtype=torch.float64)
        for each in (trainer, chosen):
            ((states, _),) = each.stages(tasks, [15])
            rows.append(layout.pack(states))
    assert layout_of(network, methods[0]) == layout_of(network, methods[1])
    assert all(np.array_equal(rows[0], row) for row in rows[1:])
    begun = [m.end(network, stacked([m.begin(network, 0, 0)]))[0] for m in methods]
    assert_same_planes(*begun)
    assert (rows[0][0] != layout.pack(begun[:1])[0]).any()  # training has changed the mask


@pytest.mark.parametrize(
    ("densities", "message"),
    [
        ((), "densities must be a list of at least one value in"),
        ((0.5, 1.5), "densities must be a list of at least one value in"),
        ((0.3, 0.3), r"densities must become smaller from coat to coat, got 0\.3, 0\.3"),
        ((0.1, 0.3), "densities must become smaller from coat to coat"),
    ],
)
def test_wrong_densities_are_refused(densities, message):
    with pytest.raises(ValueError, match=message):
        Multicoated(densities=densities)
