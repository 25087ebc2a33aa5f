"""Tests of inference by one forward pass per state."""

import numpy as np
import pytest
import torch

from supsup_core.inference.forward import FORWARD_SCORES, infer_by_forward
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import FORWARD_ALGORITHMS
from supsup_core.networks.mlp import MLP, forward
from supsup_core.networks.units import UnitMLP
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import TaskState

NUM_TASKS, NUM_REAL = 7, 4


def test_every_algorithm_has_its_name():
    assert tuple(FORWARD_SCORES) == FORWARD_ALGORITHMS


def by_plain_loop(queries, logits_of):
    """Find the task of lowest entropy and the task of highest logit for each query."""
    lowest, highest = [], []
    for query in queries:
        logits = [logits_of(t, query) for t in range(NUM_TASKS)]
        chances = [torch.softmax(z, dim=1) for z in logits]
        entropies = [-(p * p.log()).sum(dim=1).mean().item() for p in chances]
        largest = [z[:, :NUM_REAL].max(dim=1).values.mean().item() for z in logits]
        lowest.append(int(np.argmin(entropies)))
        highest.append(int(np.argmax(largest)))
    assert len(set(lowest)) > 1
    assert len(set(highest)) > 1
    assert lowest != highest
    return lowest, highest


@pytest.mark.usefixtures("_rows_at_once")
@pytest.mark.parametrize("num_images", [1, 5])
def test_forward_algorithms_are_a_plain_loop_over_masks(tiny, num_images, stored, random_queries):
    weights = tiny.weights(0)
    dense, packed = stored(tiny)
    queries = random_queries(num_images, num_queries=12)

    def logits_of(task, query):
        return forward([weights[n] * gain for n, gain in dense.gains(task).items()], query)

    lowest, highest = by_plain_loop(queries, logits_of)
    given = tiny, weights, packed, queries, NUM_REAL
    assert infer_by_forward("min_entropy", *given).tasks.tolist() == lowest
    assert infer_by_forward("max_logit", *given).tasks.tolist() == highest
    assert infer_by_forward("min_entropy", *given).num_gradients == 0


@pytest.mark.usefixtures("_rows_at_once")
def test_a_network_that_normalises_shares_the_statistics_of_a_query(stored, random_queries):
    network = UnitMLP("units", (16, 40, 20, 6))
    weights = network.weights(0)
    dense, packed = stored(network)
    queries = random_queries(6, num_queries=12)
    queries *= torch.linspace(0.5, 2, 12)[:, None, None]  # so that their statistics differ
    lowest, highest = by_plain_loop(
        queries, lambda task, query: network.logits(weights, dense.gains(task), query)
    )
    given = network, weights, packed, queries, NUM_REAL
    assert infer_by_forward("min_entropy", *given).tasks.tolist() == lowest
    assert infer_by_forward("max_logit", *given).tasks.tolist() == highest


def test_max_logit_looks_at_real_outputs_only():
    # The network has one layer. An output has logit 1 if the mask keeps its weight, else 0.
    network = MLP("one", (1, 3))
    layout = layout_of(network, Threshold())
    masks = np.array([[[0], [0], [1]], [[1], [0], [0]]], dtype=bool)
    packed = BitStates(layout, layout.pack([TaskState((m,)) for m in masks]), torch.device("cpu"))
    weights, images = {"layer1": torch.ones(3, 1)}, torch.tensor([[[1.0]]])
    for num_real, expected in ((2, 1), (3, 0)):
        found = infer_by_forward("max_logit", network, weights, packed, images, num_real)
        assert found.tasks.tolist() == [expected]
