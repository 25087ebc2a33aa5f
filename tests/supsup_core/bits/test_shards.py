import numpy as np
import pytest
import torch

from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.bits.shards import leaders, merge, part_bounds
from supsup_core.inference.algorithms import Options
from supsup_core.inference.answers import NO_TASK
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import SHARDED_ALGORITHMS
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import TaskState

NETWORK = MLP("wide", (130, 64, 12, 6))
LAYOUT = layout_of(NETWORK, Threshold())
WEIGHTS = list(NETWORK.weights(0).values())


def bits_of(rows):
    return BitInference(WEIGHTS, LAYOUT, rows, num_real=4)


@pytest.fixture
def rows(rng):
    masks = [rng.random((120, *tensor.shape)) < 0.5 for tensor in NETWORK.tensors]
    rows = LAYOUT.pack([TaskState(planes) for planes in zip(*masks, strict=True)])
    rows[60] = rows[7]  # equal masks in different parts: the lower task wins
    return rows


@pytest.mark.parametrize("num_parts", [1, 2, 5])
@pytest.mark.parametrize("name", SHARDED_ALGORITHMS)
@pytest.mark.parametrize("objective", ["H", "G_first_layer"])
def test_parts_answer_as_one_place_does(num_parts, name, objective, rows):
    images = torch.randn(30, 1, 130, generator=torch.Generator().manual_seed(5))
    together = bits_of(rows)
    expected = BIT_ALGORITHMS[name](together, images, OBJECTIVES[objective], Options())
    assert len(set(expected.tasks.tolist())) > 3

    bounds = part_bounds(len(rows), num_parts)
    parts = [bits_of(rows[first:end]) for first, end in bounds]
    counts = sum(part.counts for part in parts)
    assert np.array_equal(counts, together.counts)
    for part in parts:
        part.superpose(counts, len(rows))
    found = [
        leaders(
            part,
            first,
            part.evidence(images, OBJECTIVES[objective]),
            ranked=name == "one_shot_ranked",
        )
        for part, (first, _) in zip(parts, bounds, strict=True)
    ]
    merged = merge(found)
    assert merged.tasks.tolist() == expected.tasks.tolist()
    if name == "one_shot":
        assert merged.runners_up.tolist() == expected.runners_up.tolist()
        assert merged.margins.tolist() == expected.margins.tolist()


def test_parts_of_one_mask_have_no_runner_up_of_their_own(rows):
    images = torch.randn(4, 1, 130, generator=torch.Generator().manual_seed(5))
    alone, two = bits_of(rows[:1]), bits_of(rows[:2])
    alone.superpose(two.counts, 2)
    evidence = two.evidence(images, OBJECTIVES["H"])
    first = leaders(alone, 0, evidence)
    assert torch.equal(merge([first]).runners_up, torch.full((4,), NO_TASK))
    assert merge([first]).margins.isnan().all()
    other = leaders(bits_of(rows[1:2]), 1, evidence)
    expected = two.one_shot(images, OBJECTIVES["H"])
    assert merge([first, other]).runners_up.tolist() == expected.runners_up.tolist()


@pytest.mark.parametrize(("num_masks", "num_parts"), [(7, 1), (7, 3), (7, 7), (2500, 4)])
def test_parts_cover_all_masks_evenly(num_masks, num_parts):
    bounds = part_bounds(num_masks, num_parts)
    assert [i for first, end in bounds for i in range(first, end)] == list(range(num_masks))
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes) <= 1
