"""Tests that every network must pass.

The tests of a new network are a subclass of NetworkTests. The tests of a torch.nn.Module are a
subclass of ModuleNetworkTests.
"""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

import supsup_core.networks.module
from supsup_core.networks.module import as_network
from supsup_core.networks.protocol import Network

N = 6  # number of inputs
B = 3  # number of states


def inputs_of(network, *leading, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*leading, *network.input_shape, generator=generator, dtype=dtype)


def gains_of(network, *leading, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        t.name: torch.rand(*leading, *t.shape, generator=generator, dtype=dtype) + 0.2
        for t in network.tensors
    }


def floats_of(network, *leading, dtype=torch.float32, seed=2):
    """Draw floats around their initial values. So variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    return {
        s.name: torch.rand(*leading, *s.shape, generator=generator, dtype=dtype) - 0.5 + s.initial
        for s in network.float_specs()
    }


def weights_of(network, dtype=torch.float32):
    return {name: value.to(dtype) for name, value in network.weights(0).items()}


def part(values, i):
    return {name: value[i] for name, value in values.items()}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Modes of batch normalisation: "batch" uses the batch's statistics, "given" uses given statistics,
# and "track" uses the batch's statistics and updates the given statistics. The values say whether
# statistics are given, and whether the network updates the given statistics.
MODES = {"batch": (False, False), "given": (True, False), "track": (True, True)}


def run(network, weights, gains, inputs, mode, floats=None):
    """Compute the logits. Returns: logits, and the floats after this computation."""
    given, track = MODES[mode]
    floats = {name: value.clone() for name, value in (floats or {}).items()}
    logits = network.logits(weights, gains, inputs, floats if given else None, track=track)
    return logits, floats


class NetworkTests:
    """Tests of a network. A subclass TestX must define `make`, which returns the network."""

    def make(self):
        raise NotImplementedError

    @pytest.fixture
    def network(self):
        return self.make()

    def test_it_is_a_network(self, network):
        assert isinstance(network, Network)
        logits = network.logits(network.weights(0), gains_of(network), inputs_of(network, N))
        assert logits.shape == (N, network.num_outputs)
        assert network.num_activations >= network.num_outputs
        assert len({t.name for t in network.tensors}) == len(network.tensors)

    def test_weights_depend_on_the_seed_alone(self, network):
        first, again, other = network.weights(3), self.make().weights(3), network.weights(4)
        assert first.keys() == again.keys() == other.keys()
        for name, value in first.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, again[name])
        for tensor in network.tensors:
            if tensor.over == "weights":
                assert first[tensor.source].shape == tensor.shape
                assert not torch.equal(first[tensor.source], other[tensor.source])

    def test_weights_do_not_depend_on_the_global_random_state(self, network):
        state = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        network.weights(0)
        network.logits(network.weights(0), gains_of(network), inputs_of(network, N))
        assert torch.equal(state[0], torch.random.get_rng_state())
        assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002

    @pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
    def test_the_last_layer_computes_the_logits_from_the_features(self, network, given):
        weights, gains, inputs = weights_of(network), gains_of(network), inputs_of(network, N)
        floats = floats_of(network) if given else None
        features = network.features(weights, gains, inputs, floats)
        last = network.tensors[-1]
        if last.over == "units":
            matrix = list(weights.values())[-1]  # the layer after the last masked units
        else:
            matrix = weights[last.source] * gains[last.name]
        close(features @ matrix.T, network.logits(weights, gains, inputs, floats))

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
    def test_many_states_are_as_one_by_one(self, network, mode, own):
        weights, gains, floats = weights_of(network), gains_of(network, B), floats_of(network, B)
        inputs = inputs_of(network, *((B, N) if own else (N,)))
        together, moved = run(network, weights, gains, inputs, mode, floats)
        assert together.shape == (B, N, network.num_outputs)
        for i in range(B):
            x = inputs[i] if own else inputs
            alone, left = run(network, weights, part(gains, i), x, mode, part(floats, i))
            close(together[i], alone)
            for name, value in left.items():
                close(moved[name][i], value)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("leading", [(), (B,)], ids=["one", "many"])
    def test_gradient_in_gains_is_that_in_weights(self, network, mode, leading):
        """Check w dL/dw = sum of g dL/dg over the masked tensors of w and over states."""
        weights = weights_of(network, torch.float64)
        sources = {t.source for t in network.tensors if t.over == "weights"}
        drawn = {name: weights[name].requires_grad_() for name in sources}
        gains = gains_of(network, *leading, dtype=torch.float64)
        gains = {name: gain.requires_grad_() for name, gain in gains.items()}
        floats = floats_of(network, *leading, dtype=torch.float64)
        inputs = inputs_of(network, N, dtype=torch.float64)
        logits, _ = run(network, weights, gains, inputs, mode, floats)
        slopes = inputs_of(network, N, dtype=torch.float64).flatten(1)[:, :1]
        loss = (logits.square() * slopes).sum()
        found = torch.autograd.grad(loss, [*drawn.values(), *gains.values()])
        by_weight = dict(zip(drawn, found, strict=False))
        by_gain = dict(zip(gains, found[len(drawn) :], strict=True))
        assert all(slope.abs().max() > 0 for slope in by_gain.values())
        for source, weight in drawn.items():
            parts = [
                (gains[t.name] * by_gain[t.name]).reshape(-1, *t.shape).sum(0)
                for t in network.tensors
                if t.source == source
            ]
            expected = weight * by_weight[source]
            torch.testing.assert_close(sum(parts), expected, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("mode", MODES)
    def test_gradient_in_gains_is_that_of_differences(self, network, mode):
        weights, floats = weights_of(network, torch.float64), floats_of(network, B)
        floats = {name: value.double() for name, value in floats.items()}
        inputs = inputs_of(network, N, dtype=torch.float64)
        gains = gains_of(network, B, dtype=torch.float64)
        way = gains_of(network, B, dtype=torch.float64, seed=5)

        def loss(step):
            moved = {name: gain + step * way[name] for name, gain in gains.items()}
            return run(network, weights, moved, inputs, mode, floats)[0].square().sum()

        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(step), step)
        with torch.no_grad():
            difference = (loss(1e-6) - loss(-1e-6)) / 2e-6
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("mode", MODES)
    def test_nothing_else_changes(self, network, mode):
        weights, gains, floats = weights_of(network), gains_of(network, B), floats_of(network, B)
        inputs = inputs_of(network, N)
        given = [weights, gains, {"inputs": inputs}]
        before = deepcopy(given)
        first, moved = run(network, weights, gains, inputs, mode, floats)
        second, moved_again = run(network, weights, gains, inputs, mode, floats)
        for values, old in zip(given, before, strict=True):
            assert all(torch.equal(value, old[name]) for name, value in values.items())
        assert torch.equal(first, second)
        for name, value in floats.items():
            assert torch.equal(moved[name], moved_again[name])
            assert torch.equal(moved[name], value) == (mode != "track")

    def test_own_statistics_make_inputs_independent(self, network):
        if network.normalises and not network.float_specs():
            pytest.skip("the network keeps no statistics")
        weights, gains, floats = weights_of(network), gains_of(network), floats_of(network)
        inputs = inputs_of(network, N)
        whole = network.logits(weights, gains, inputs, floats)
        for i in range(N):
            close(network.logits(weights, gains, inputs[i : i + 1], floats), whole[i : i + 1])

    def test_batches_matter_where_it_normalises(self, network):
        weights, gains, inputs = weights_of(network), gains_of(network), inputs_of(network, N)
        whole = network.logits(weights, gains, inputs)[:2]
        alone = network.logits(weights, gains, inputs[:2])
        assert torch.allclose(whole, alone, rtol=1e-5, atol=1e-5) == (not network.normalises)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_pickled_copy_gives_the_same_bits(self, network, mode):
        copy = pickle.loads(pickle.dumps(network))
        gains, floats = gains_of(network, B), floats_of(network, B)
        inputs = inputs_of(network, N)
        first, moved = run(network, network.weights(0), gains, inputs, mode, floats)
        second, moved_again = run(copy, copy.weights(0), gains, inputs, mode, floats)
        assert torch.equal(first, second)
        assert all(torch.equal(value, moved_again[name]) for name, value in moved.items())
        assert copy.tensors == network.tensors
        assert copy.float_specs() == network.float_specs()


class ModuleNetworkTests(NetworkTests):
    """Tests that also compare a network with its module.

    A subclass must define `make_module`, and `input_shape` if it differs from (1, 8, 8).
    """

    input_shape = (1, 8, 8)

    def make_module(self):
        raise NotImplementedError

    def make(self):
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(0)
        network = as_network("tested", self.make_module(), self.input_shape)
        torch.random.set_rng_state(torch_state)
        return network

    @pytest.fixture(autouse=True, params=["vmap", "loop"])
    def _way(self, request, monkeypatch):
        least = 0 if request.param == "loop" else 2**60
        monkeypatch.setattr(supsup_core.networks.module, "LEAST_VALUES_OF_LOOP", least)

    def module_with(self, weights, gains, floats, mode):
        """Make the module, with the effective weights as its parameters."""
        torch.manual_seed(0)
        module = self.make_module().double().eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(weights[name] * gains.get(name, 1.0))
            for name, buffer in module.named_buffers():
                if name in floats:
                    buffer.copy_(floats[name])
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train(mode != "given")
        return module

    @pytest.mark.parametrize(
        ("mode", "ones"), [("batch", True), ("batch", False), ("given", False), ("track", False)]
    )
    def test_it_is_the_module(self, network, mode, ones):
        """Compare logits, gradients and updated statistics with the module's."""
        weights = weights_of(network, torch.float64)
        gains = gains_of(network, B, dtype=torch.float64)
        if ones:
            gains = {name: torch.ones_like(gain) for name, gain in gains.items()}
        gains = {name: gain.requires_grad_() for name, gain in gains.items()}
        floats = floats_of(network, B, dtype=torch.float64)
        inputs = inputs_of(network, B, N, dtype=torch.float64)
        logits, moved = run(network, weights, gains, inputs, mode, floats)
        slopes = torch.autograd.grad(logits.square().sum(), list(gains.values()))
        exact = {"rtol": 1e-9, "atol": 1e-9}
        for i in range(B):
            module = self.module_with(weights, part(gains, i), part(floats, i), mode)
            expected = module(inputs[i])
            torch.testing.assert_close(logits[i], expected, **exact)
            expected.square().sum().backward()
            for name, slope in zip(gains, slopes, strict=True):
                by_weight = module.get_parameter(name).grad
                torch.testing.assert_close(slope[i], by_weight * weights[name], **exact)
            if mode == "track":
                for name, value in moved.items():
                    torch.testing.assert_close(value[i], module.get_buffer(name), **exact)

    def test_a_gradient_may_be_taken_after_the_statistics_moved_again(self, network):
        weights, floats = weights_of(network), floats_of(network, B)
        gains = {name: gain.requires_grad_() for name, gain in gains_of(network, B).items()}
        inputs = inputs_of(network, N)
        first, _ = run(network, weights, gains, inputs, "batch", floats)
        expected = torch.autograd.grad(first.sum(), list(gains.values()))
        kept = network.logits(weights, gains, inputs, floats, track=True)
        network.logits(weights, gains, inputs + 1, floats, track=True)
        for slope, other in zip(
            torch.autograd.grad(kept.sum(), list(gains.values())), expected, strict=True
        ):
            close(slope, other)
