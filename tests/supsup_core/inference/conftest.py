"""Fixtures for the tests of inference: random masks in two forms, and random queries."""

import numpy as np
import pytest
import torch

from conformance.states import plain_states
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.states import bits
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import TaskState


@pytest.fixture(scope="session")
def stored():
    """A function that draws random masks for a network, and returns them as floats and as bits.

    The caller's function `change` may change the masks (T, *shape) of each masked tensor.
    """

    def make(network, num_tasks=7, change=lambda masks: masks):
        rng = np.random.default_rng(2)
        masks = [change(rng.random((num_tasks, *t.shape)) < 0.5) for t in network.tensors]
        states = [TaskState(planes) for planes in zip(*masks, strict=True)]
        layout = layout_of(network, Threshold())
        packed = BitStates(layout, layout.pack(states), torch.device("cpu"))
        return plain_states(layout, states), packed

    return make


@pytest.fixture(scope="session")
def random_queries():
    """A function that draws normalised queries (Q, K, 16) of K images each."""

    def make(num_images, num_queries=4):
        generator = torch.Generator().manual_seed(3)
        return torch.randn(num_queries, num_images, 16, generator=generator)

    return make


@pytest.fixture(params=[2, 64])
def _rows_at_once(request, monkeypatch, tiny):
    """Set the number of rows unpacked at once below, then above, the number of masks."""
    row_bits = layout_of(tiny, Threshold()).row_bits
    monkeypatch.setattr(bits, "UNPACKED_BYTES", 4 * row_bits * request.param)
