"""The lower bound and PSP pass the tests of shared weights, and PSP has the contexts it names."""

import numpy as np
import pytest
import torch

from conformance.shared_weights import SharedWeightsTests
from supsup_core.baselines.contexts import random_rotation
from supsup_core.baselines.lower_bound import LowerBound
from supsup_core.baselines.psp import PSP
from supsup_core.networks.mlp import mlp
from supsup_core.streams import Role, stream
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

NETWORK = mlp((8, 8), 12, hidden=[16])


class TestLowerBound(SharedWeightsTests):
    method = LowerBound()


class TestBinaryPSP(SharedWeightsTests):
    method = PSP("binary")


class TestRotationPSP(SharedWeightsTests):
    method = PSP("rotation")


def images():
    return torch.randn(5, 64, generator=torch.Generator().manual_seed(0))


def in_task(context, task=3, seed=2):
    """Return W and the weights of one task, layer by layer."""
    shared = NETWORK.weights(0)
    return shared.values(), PSP(context).weights_of_task(NETWORK, task, seed)(shared).values()


def test_a_binary_context_gives_each_input_of_a_layer_a_sign():
    for i, (shared, own) in enumerate(zip(*in_task("binary"), strict=True)):
        signs = own[0] / shared[0]
        assert set(signs.tolist()) == {-1.0, 1.0}
        x = images()[:, : shared.shape[1]]
        torch.testing.assert_close(x @ own.T, (x * signs) @ shared.T)
        drawn = stream(2, Role.CONTEXTS, 3, i).choice([-1.0, 1.0], len(signs))
        assert np.array_equal(signs.numpy(), drawn)


def test_a_rotation_context_rotates_the_inputs_of_a_layer():
    for i, (shared, own) in enumerate(zip(*in_task("rotation"), strict=True)):
        rotation = random_rotation(shared.shape[1], stream(2, Role.CONTEXTS, 3, i))
        identity = torch.eye(len(rotation), dtype=torch.float64)
        torch.testing.assert_close(rotation @ rotation.T, identity)
        x = images()[:, : shared.shape[1]]
        torch.testing.assert_close(x @ own.T, (x @ rotation.float().T) @ shared.T)


def test_rotations_are_distributed_uniformly():
    drawn = torch.stack([random_rotation(3, np.random.default_rng(i)) for i in range(400)])
    # The distribution is the same after a reflection of any axis. So every element has the mean 0,
    # and its square has the mean 1/3. Half of the matrices are reflections.
    assert drawn.mean(dim=0).abs().max() < 0.12  # four standard errors
    torch.testing.assert_close(
        (drawn**2).mean(dim=0), torch.full((3, 3), 1 / 3).double(), atol=0.06, rtol=0
    )
    assert abs(torch.linalg.det(drawn).mean()) < 0.2


def test_contexts_keep_what_earlier_tasks_have_learnt(digits, make_tasks):
    network, recipe = mlp((64,), 12, hidden=[96]), Recipe(100, 64, learning_rate=2e-3)
    tasks = make_tasks("permuted", range(4), side=8, num_classes=10, num_tasks=4)
    found = {}
    for method in (LowerBound(), PSP("binary"), PSP("rotation")):
        trainer, shared = trainer_for(network, method, *digits, recipe, seed=0), {}
        for task in tasks:
            (((state,), shared),) = trainer.stages([task], [recipe.steps], shared)
        found[method] = trainer.measure(tasks[0], state, shared).accuracy
    lower, binary, rotation = found.values()
    assert min(binary, rotation) > lower + 0.2


def test_contexts_cost_no_bytes():
    for context in ("binary", "rotation"):
        assert PSP(context).float_specs(NETWORK) == ()
        assert PSP(context).planes(NETWORK.tensors[0]) == ()


def test_an_unknown_context_is_refused():
    with pytest.raises(ValueError, match="context must be one of rotation, binary, got other"):
        PSP("other")
