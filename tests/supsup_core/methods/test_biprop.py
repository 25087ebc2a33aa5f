from dataclasses import replace

import numpy as np
import pytest
import torch

from conformance.methods import NETWORKS, OVER_WEIGHTS, MethodTests, shaped, stacked
from supsup_core.engines.bits import BitsEngine, keeps_alone
from supsup_core.engines.choose import engine_type
from supsup_core.methods.biprop import Biprop, magnitude_of
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import Progress, layout_of
from supsup_core.networks.mlp import MLP, mlp
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.blocks import MLPTrainer, logit_constant
from supsup_core.training.choose import trainer_for
from supsup_core.training.descent import Descent
from supsup_core.training.fused_layers import FusedTopShareLayer, layer_form
from supsup_core.training.inputs import BlockInputs
from supsup_core.training.layers import layer_gradients
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(steps=12, batch_size=16, learning_rate=1e-2)
PLAIN = {"magnitudes": "signed_constant"}


class BipropTests(MethodTests):
    # The masked pixels of a unit may cancel exactly. With signs, their sum is then 0. With weights
    # that have a scale, rounding makes it positive or negative, and ReLU passes a gradient or not.
    # So the fast trainer and autograd may find different bits.
    most_different = 0.05
    # By RMSprop with weight decay, units lose almost all weights. The few pixels then often cancel.
    decayed = replace(MethodTests.decayed, optimizer="sgd", learning_rate=0.1)

    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param


class TestBiprop(BipropTests):
    method = Biprop(density=0.3)


class TestGlobalBiprop(BipropTests):
    method = Biprop(density=0.3, scope="global", magnitudes="kaiming_uniform")

    @pytest.fixture
    def network(self):
        return NETWORKS["mlp"]


def trained(method, network, data, tasks, recipe=RECIPE, kind=trainer_for):
    trainer = kind(network, method, *data, recipe, seed=0)
    ((states, _),) = trainer.stages(tasks, [recipe.steps])
    return layout_of(network, method).pack(states)


def by_autograd(network, method, train, test, recipe, *, seed):
    measure = measure_for(network, layout_of(network, method), test, seed, CPU)
    return AutogradTrainer(
        network, method, train, measure, recipe, seed=seed, dtype=torch.float64, device=CPU
    )


def scores_of(method, network, num_tasks=2, seed=0):
    return stacked([method.begin(network, task, seed) for task in range(num_tasks)])


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_with_constant_magnitudes_it_is_edge_popup_bit_for_bit(name, digits, make_tasks):
    network = NETWORKS[name]
    data = shaped(digits, network)
    tasks = make_tasks("permuted", side=8, num_classes=10)
    biprop = Biprop(0.3, **PLAIN)
    own, other = (
        trained(method, network, data, tasks, kind=by_autograd)
        for method in (biprop, EdgePopup(0.3))
    )
    assert layout_of(network, biprop) == layout_of(network, EdgePopup(0.3))
    assert np.array_equal(own, other)
    again = trained(biprop, network, data, tasks)  # the fast trainer
    assert np.array_equal(again, trained(EdgePopup(0.3), network, data, tasks))


def test_the_scope_layer_gets_the_fast_trainer_and_constant_magnitudes_the_engine_of_bits(digits):
    network, recipe = NETWORKS["mlp"], RECIPE
    for method, fast in [
        (Biprop(0.3, **PLAIN), True),
        (Biprop(0.3), True),
        (Biprop(0.3, scope="global", **PLAIN), False),
    ]:
        trainer = trainer_for(network, method, *shaped(digits, network), recipe, seed=0)
        assert isinstance(trainer, MLPTrainer) == fast
        if fast:
            assert layer_form(method, network.tensors[0], CPU) is FusedTopShareLayer
        layout = layout_of(network, method)
        assert keeps_alone(layout) == (method.magnitudes == "signed_constant")
        assert (engine_type(network, layout, CPU) is BitsEngine) == keeps_alone(layout)


def test_the_scale_is_the_mean_magnitude_of_the_kept_weights():
    network, method = MLP("one", (20, 30)), Biprop(0.25)
    scores = scores_of(method, network)
    sizes = scores[magnitude_of("layer1")].detach()
    for b, state in enumerate(method.end(network, scores)):
        (kept,) = state.planes
        assert kept.sum() == 150
        expected = sizes[b].numpy()[kept].astype(np.float64).mean()
        assert state.floats["layer1.scale"] == pytest.approx(expected, rel=1e-6)
        gain = method.gains(network, scores)["layer1"][b].detach().numpy()
        assert np.array_equal(gain, kept * state.floats["layer1.scale"])


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_layers_take_the_steps_of_autograd(weight_decay, digits, brief, rng):
    """The inputs are random, so that no sum of masked inputs is 0."""
    network, method = NETWORKS["mlp"], Biprop(0.3)
    recipe = replace(brief, weight_decay=weight_decay)
    data = shaped(digits, network)
    trainer = trainer_for(network, method, *data, recipe, seed=0, dtype=torch.float64)
    tasks = [Task(0), Task(1)]
    layers = trainer.begin(tasks, BlockInputs(tasks, data[0], torch.float64, CPU))
    constant = logit_constant(network, recipe)
    weights = {name: weight.double() for name, weight in network.weights(0).items()}
    starts = [method.begin(network, task, 0) for task in range(2)]
    plain = Descent(network, method, recipe, weights, starts, task_ids=[0, 1], seed=0)
    first = plain.states()
    for step in range(10):
        images = torch.from_numpy(rng.standard_normal((2, 16, 64)))
        labels = torch.from_numpy(rng.integers(0, 10, (2, 16)))
        plain.step(step, images.unflatten(2, network.input_shape), labels)
        for i, delta, x in layer_gradients(layers, images.mT, labels, constant):
            layers[i].learn(delta, x, recipe.learning_rate_at(step))
        for i, (layer, tensor) in enumerate(zip(layers, network.tensors, strict=True)):
            scores = plain.scores[tensor.name].detach()
            torch.testing.assert_close(layer._scores, scores.abs(), rtol=1e-4, atol=1e-5)
            for b, state in enumerate(plain.states()):
                assert np.array_equal(layer.planes()[0][b], state.planes[i])
                assert (state.planes[i] != first[b].planes[i]).any() or step < 9
                scale = state.floats[f"{tensor.name}.scale"]
                assert scale == pytest.approx(float(layer.scale[b]), rel=1e-6)


@pytest.mark.parametrize("family", ["permuted", "rotated"])
def test_the_fast_trainer_makes_states_with_scales(family, digits, make_tasks):
    network, method = NETWORKS["mlp"], Biprop(0.3)
    data = shaped(digits, network)
    tasks = make_tasks(family, side=8, num_classes=10)
    trainer = trainer_for(network, method, *data, RECIPE, seed=0)
    ((states, _),) = trainer.stages(tasks, [RECIPE.steps])
    sizes = [method.begin(network, 0, 0)[magnitude_of(t.name)] for t in network.tensors]
    for state in states:
        for tensor, kept, size in zip(network.tensors, state.planes, sizes, strict=True):
            assert kept.sum() == method.num_kept(tensor)
            scale = state.floats[f"{tensor.name}.scale"]
            assert scale.dtype == np.float32
            assert scale == pytest.approx(size[kept].mean(), rel=1e-5)


def test_large_weights_get_large_gradients():
    network, method = MLP("one", (20, 30)), Biprop(0.25)
    scores = scores_of(method, network)
    method.gains(network, scores)["layer1"].sum().backward()
    score, sizes = scores["layer1"], scores[magnitude_of("layer1")].detach()
    torch.testing.assert_close(score.grad, score.detach().sign() * sizes)


@pytest.mark.parametrize("init", ["kaiming_normal", "kaiming_uniform"])
def test_magnitudes_are_those_of_the_distribution_and_the_same_for_all_tasks(init):
    network, method = MLP("one", (200, 400)), Biprop(magnitudes=init)
    sizes = [method.begin(network, task, 3)[magnitude_of("layer1")] for task in (0, 5)]
    assert np.array_equal(*sizes)
    assert (sizes[0] >= 0).all()
    assert (sizes[0] ** 2).mean() == pytest.approx(1, rel=0.02)  # the variance of W is c^2
    other = method.begin(network, 0, 4)[magnitude_of("layer1")]
    assert not np.array_equal(sizes[0], other)


def test_one_threshold_for_all_tensors_keeps_the_whole_density():
    network, method = NETWORKS["mlp"], Biprop(0.1, scope="global", ramp=0.0)
    scores = scores_of(method, network)
    with torch.no_grad():
        scores["layer1"] *= 3  # the first layer has larger scores now, so it keeps more
    for state in method.end(network, scores):
        shares = [plane.mean() for plane in state.planes]
        assert sum(plane.sum() for plane in state.planes) == round(
            0.1 * sum(plane.size for plane in state.planes)
        )
        assert shares[0] > 0.1 > max(shares[1:])


def test_the_density_falls_from_one_half_within_the_ramp():
    network, method = NETWORKS["mlp"], Biprop(0.1, scope="global", ramp=0.5, **PLAIN)
    scores, found = scores_of(method, network), []
    for step in range(9):
        gains = method.gains(network, scores)
        ones = sum(float(gain.detach().sum()) for gain in gains.values())
        found.append(ones / sum(gain.numel() for gain in gains.values()))
        kept = sum(plane.sum() for plane in method.end(network, scores)[0].planes)
        assert kept == round(0.1 * sum(t.num_gains for t in network.tensors))  # in each step
        method.after_step(network, scores, None, Progress(step + 1, 8, [0, 1], 0))
    expected = [0.1 + 0.4 * max(0, 1 - step / 4) ** 3 for step in range(9)]
    assert found == pytest.approx(expected, abs=1e-3)


def test_dense_masks_need_no_ramp():
    scores = Biprop(0.6, scope="global").begin(NETWORKS["mlp"], 0, 0)
    assert "density" not in scores


def test_other_networks_are_refused():
    for network, message in [
        (NETWORKS["units"], "gains over weights for this method, got gains over units of units1"),
        (mlp((8, 8), 12, hidden=[8], init="kaiming_normal"), "init must be signed_constant"),
    ]:
        with pytest.raises(ValueError, match=message):
            layout_of(network, Biprop())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0\.0"),
        ({"scope": "all"}, "scope must be one of layer, global, got all"),
        ({"ramp": 2.0}, r"ramp must be in \[0, 1\], got 2\.0"),
        ({"magnitudes": "normal"}, "magnitudes must be one of signed_constant, .*, got normal"),
        ({"scope": "global", "kappa": 2.0}, r"kappa must be 0 with scope=global, got 2\.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Biprop(**options)
