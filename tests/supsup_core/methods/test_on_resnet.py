"""Finders train masks of a slim ResNet, whose states also have running statistics."""

import numpy as np
import pytest
import torch

from conformance.methods import CPU, shaped
from supsup_core.methods.biprop import Biprop
from supsup_core.methods.iterand import IteRand
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.random_search import RandomSearch
from supsup_core.methods.recycling import Recycling
from supsup_core.networks.module import as_network
from supsup_core.networks.resnet import resnet18_slim
from supsup_core.states.choose import stored_states
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

NETWORK = as_network("resnet", resnet18_slim((1, 8, 8), 10, width=4), (1, 8, 8))
METHODS = (
    Biprop(0.3),
    Biprop(0.3, scope="global"),
    Recycling(0.3, every=1),
    IteRand(0.3, every=1, magnitudes="kaiming_normal"),
    RandomSearch(0.3),
)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_masks_of_a_slim_resnet_are_trained_stored_and_measured(method, digits, make_tasks):
    steps = 16 if method.searches else 6  # the first of few candidates may be the best
    recipe = Recipe(steps=steps, batch_size=8, learning_rate=1e-2)
    tasks = make_tasks("split", (0, 1), side=8, num_classes=10)
    trainer = trainer_for(NETWORK, method, *shaped(digits, NETWORK), recipe, seed=1)
    (before, _), (after, _) = trainer.stages(tasks, [0, steps])
    layout = layout_of(NETWORK, method)
    rows = layout.pack(after)
    assert not np.array_equal(rows, layout.pack(before))
    stored = stored_states(layout, rows, CPU)
    kept = sum(int((gain != 0).sum()) for gain in stored.gains(1).values())
    total = sum(tensor.num_gains for tensor in NETWORK.tensors)
    assert kept == pytest.approx(0.3 * total, abs=len(NETWORK.tensors))
    measured = trainer.measure(tasks[1], after[1])
    assert 0 <= measured.accuracy <= 1
    assert np.isfinite(measured.loss)
    assert all(torch.isfinite(values).all() for values in stored.floats(1).values())
