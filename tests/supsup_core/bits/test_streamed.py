from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.bits.evidence import Evidence
from supsup_core.bits.infer import BitInference
from supsup_core.bits.scan import exact_products
from supsup_core.bits.streamed import StreamedScan, _cut
from supsup_core.bits.threads import Threads
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.kernels.vectors import LANES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import TaskState

NETWORK = MLP("wide", (130, 64, 12, 6))
LAYOUT = layout_of(NETWORK, Threshold())
WEIGHTS = list(NETWORK.weights(0).values())


@pytest.fixture
def rows(rng):
    masks = [rng.random((150, *tensor.shape)) < 0.5 for tensor in NETWORK.tensors]
    return LAYOUT.pack([TaskState(planes) for planes in zip(*masks, strict=True)])


@pytest.fixture
def queries(rows):
    images = torch.randn(12, 1, 130, generator=torch.Generator().manual_seed(1))
    bits = BitInference(WEIGHTS, LAYOUT, rows, num_real=4)
    expected = bits.one_shot(images, OBJECTIVES["H"]).tasks.tolist()
    return bits.evidence(images, OBJECTIVES["H"]), expected


@pytest.mark.parametrize("num_rows", [150, 64, 7])
def test_rows_that_pass_by_in_any_order_give_the_answer_of_all_at_once(
    num_rows, rows, queries, monkeypatch
):
    monkeypatch.setattr("supsup_core.bits.streamed._READ_AT_ONCE", num_rows // 3)
    evidence, expected = queries
    scan = StreamedScan(evidence, len(rows), Threads(1))
    for first in reversed(range(0, len(rows), num_rows)):
        scan.take(first, rows[first : first + num_rows])
    assert scan.decide(lambda tasks: rows[tasks]).tolist() == expected
    assert len(set(expected)) > 5


def test_few_tasks_are_left_open_where_the_evidence_is_clear(rows, queries):
    evidence, _ = queries
    values = [e.outer(np.arange(len(e.weights))) * e.weights for e in evidence[0].layers]
    rows[77] = LAYOUT.pack([TaskState(tuple(value < 0 for value in values))])[0]
    scan = StreamedScan(evidence[:1], len(rows), Threads(1))
    scan.take(0, rows)
    assert scan.open_tasks()[0].tolist() == [77]


@pytest.mark.parametrize("kept", [[3], [3, 3], [5, 3, 3, 9]], ids=str)
def test_one_and_identical_masks_leave_the_lowest(kept, rows, queries):
    some = rows[kept]
    scan = StreamedScan(queries[0], len(some), Threads(1))
    scan.take(0, some)
    for evidence, task in zip(queries[0], scan.decide(lambda tasks: some[tasks]), strict=True):
        products = exact_products(some.view(np.uint64), evidence, np.arange(len(some)), Threads(1))
        assert task == products.argmin()


def test_no_evidence_and_hardly_any_leave_an_answer(rows, queries):
    first = queries[0][0].layers[0]
    for size in (0.0, 1e-42):
        layer = replace(first, deltas=first.deltas * np.float32(size))
        scan = StreamedScan([Evidence((layer,))], len(rows), Threads(1))
        scan.take(0, rows)
        assert scan.decide(lambda tasks: rows[tasks])[0] in range(len(rows))


def test_planes_hold_the_evidence_but_for_rounding(rows, queries):
    for evidence in queries[0]:
        planes = _cut(evidence)
        first = evidence.layers[0]
        values = (first.outer(np.arange(len(first.weights))) * first.weights).astype(np.float64)
        cut = np.moveaxis(planes.planes, 1, 2)  # (lines, words, planes)
        bits = np.unpackbits(np.ascontiguousarray(cut).view(np.uint8), bitorder="little")
        bits = bits.reshape(len(planes.lines), LANES, -1, 64)
        worth = 2.0 ** np.arange(bits.shape[2])
        worth[-1] *= -1
        found = np.zeros(LAYOUT.row_bits)
        lines = found.reshape(-1, LANES, 64)
        lines[planes.lines] = planes.scale * np.einsum("p,nwpb->nwb", worth, bits)
        found = found[: values.size].reshape(values.shape)
        assert np.abs(found - values).max() <= planes.scale / 2 * (1 + 1e-6)
        later = sum(layer.energies().sum() for layer in evidence.layers[1:])
        assert planes.unread == pytest.approx(((found - values) ** 2).sum() + later, rel=1e-3)
