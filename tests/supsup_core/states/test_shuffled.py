"""Shuffled copies keep what a mask does to each unit, and nothing about its task."""

import numpy as np
import pytest

from supsup_core import names
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.mlp import mlp
from supsup_core.networks.units import units
from supsup_core.states.layout import TaskState
from supsup_core.states.shuffled import Shuffles


def states(layout, rng, num):
    """Random states. Each later plane has ones only where the first plane has a one."""
    found = []
    for _ in range(num):
        planes, before = [], {}
        for plane in layout.planes:
            bits = rng.random(plane.shape) < 0.5
            planes.append(before.setdefault(plane.tensor, bits) & bits)
        found.append(TaskState(tuple(planes)))
    return found


@pytest.mark.parametrize("method", ["threshold", "signed"])
def test_a_copy_keeps_as_many_weights_of_each_sign_in_each_unit(method, rng):
    network = mlp((16,), 6, hidden=[12, 8])
    layout = layout_of(network, names.load("method", names.METHODS, method)())
    weights = network.weights(3)
    own = states(layout, rng, 2)
    copies = layout.unpack(Shuffles(layout, weights, 3, 3).of(layout.pack(own), [0, 2]))
    for state, copy in zip(own, copies, strict=True):
        for plane, bits, moved in zip(layout.planes, state.planes, copy.planes, strict=True):
            signs = np.sign(weights[plane.tensor].numpy())
            for sign in (-1, 1):
                counts = [((signs == sign) & found).sum(axis=1) for found in (bits, moved)]
                np.testing.assert_array_equal(*counts)
            assert (bits != moved).any()
    if method == "signed":  # both planes of a tensor moved together
        for keep, negative in zip(copies[0].planes[::2], copies[0].planes[1::2], strict=True):
            assert not (negative & ~keep).any()


def test_gains_over_units_move_among_all_units(rng):
    network = units((16,), 6, hidden=[64])
    layout = layout_of(network, names.load("method", names.METHODS, "threshold")())
    (own,) = states(layout, rng, 1)
    rows = Shuffles(layout, network.weights(0), 1, 0).of(layout.pack([own]), [0])
    (copy,) = layout.unpack(rows)
    assert own.planes[0].sum() == copy.planes[0].sum()
    assert (own.planes[0] != copy.planes[0]).any()


def test_a_shuffle_depends_only_on_seed_and_index(rng):
    network = mlp((16,), 6, hidden=[12])
    layout = layout_of(network, names.load("method", names.METHODS, "threshold")())
    weights, rows = network.weights(0), layout.pack(states(layout, rng, 1))

    def of(index, num=4, seed=1):
        return Shuffles(layout, weights, num, seed).of(rows, [index]).tobytes()

    assert of(1) == of(1, num=2)
    assert len({of(0), of(1), of(0, seed=2)}) == 3
