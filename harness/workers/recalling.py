"""What an evaluation actor does with reservoirs: it stores masks one by one, and recalls some.

The reservoir stays in the actor for the next checkpoint of its rule, to which only the masks
that are new are added; an actor that has another, or none, stores them all again.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import torch

from harness.config.schema import CUES
from harness.plan.units import RecallUnit
from harness.run.spec import RunSpec
from harness.tables.schemas import RESERVOIR
from harness.workers.device import device_name
from harness.workers.queries import Queries, TaskQueries
from supsup_core.reservoirs import Blocks, Centred, Perceptron
from supsup_core.reservoirs.patterns import gains, patterns, rows_of
from supsup_core.reservoirs.recall import Recalled, erased, flipped, packed, recall, score, unpacked
from supsup_core.reservoirs.rules import named_rule
from supsup_core.reservoirs.seeking import seek
from supsup_core.states.layout import density
from supsup_core.streams import Role, stream

OnShare = Callable[[float], None]  # hears the share of a unit that is done

_NOISES = {"flipped": flipped, "erased": erased}
_REHEARSALS = 200  # sweeps over all that is stored, at most
_TOGETHER = 8  # tasks whose batches go through the network at a time
_NUMBERS = 2**25  # of cues that are recalled at a time: 128 MB, and a few times that in between


@dataclass
class _Filled:
    """A reservoir, and what is known of what is in it.

    Attributes:
        rule: how masks are stored.
        blocks: the reservoirs.
        centred: the same, without the mean.
        stored: every pattern, packed.
        seconds: spent storing.
    """

    rule: str
    blocks: Blocks
    centred: Centred
    stored: list[bytes] = field(default_factory=list)
    seconds: float = 0.0

    def recalled_from(self) -> Centred:
        """What masks are recalled from."""
        return self.centred.over(self.blocks.replaced(named_rule(self.rule).recalled_from))


class ReservoirWorker:
    """Fills reservoirs and recalls from them.

    Args:
        spec: of the run.
        queries: scores the masks that are recalled.
    """

    def __init__(self, spec: RunSpec, queries: Queries) -> None:
        self._spec, self._queries, self._device = spec, queries, queries.device
        self._layout = spec.layout
        self._now: _Filled | None = None

    def run(self, unit: RecallUnit, rows: np.ndarray, on_share: OnShare) -> pa.Table:
        """Store the masks in rows (k, R), recall those of the unit: rows of `reservoir`."""
        filled = self._filled(unit.rule, rows, lambda share: on_share(share / 2))
        reservoir, stored = filled.recalled_from(), set(filled.stored)
        asked = [self._queries.of(i) for i in unit.task_ids]
        given = self._accuracy(asked, rows[list(unit.task_ids)])
        size = max(1, _NUMBERS // self._layout.num_bits)
        groups = [asked[i : i + size] for i in range(0, len(asked), size)]
        columns: dict[str, list[object]] = defaultdict(list)
        for place, cue in enumerate(unit.cues):
            told = []
            for i, group in enumerate(groups):
                on_share((1 + (place + i / len(groups)) / len(unit.cues)) / 2)
                told.append(self._told(reservoir, cue, group, rows, stored))
            columns["cue"].append(cue)
            columns["share"].append(None if cue == "data" else self._spec.config.reservoir.share)
            for name in told[0]:
                values = [one[name] for one in told]
                columns[name].append(float(np.average(values, weights=list(map(len, groups)))))
        dim = min(part.dim for part in filled.blocks.parts)  # the one that is full first
        same = {
            "rule": unit.rule,
            "dim": dim,
            "num_blocks": len(filled.blocks.parts),
            "num_tasks": unit.num_tasks,
            "num_cues": len(asked),
            "accuracy_gg": given,
            "capacity": named_rule(unit.rule).capacity(dim),
            "reservoir_bytes": reservoir.num_bytes,
            "store_bytes": self._layout.row_bytes * unit.num_tasks,
            "store_seconds": filled.seconds / unit.num_tasks,
            "device": device_name(self._device),
        }
        columns |= {name: [value] * len(unit.cues) for name, value in same.items()}
        ordered = {name: columns[name] for name in RESERVOIR.names}
        return pa.table(ordered, schema=RESERVOIR)

    def _told(
        self,
        reservoir: Centred,
        cue: str,
        asked: Sequence[TaskQueries],
        rows: np.ndarray,
        stored: Collection[bytes],
    ) -> dict[str, float]:
        """What came of some cues: means over them."""
        wanted = patterns(self._layout, rows[[one.task.task_id for one in asked]])
        wanted = wanted.to(self._device)
        started = time.perf_counter()
        found = self._recalled(reservoir, cue, asked, wanted)
        seconds = (time.perf_counter() - started) / len(asked)
        told = asdict(score(found, wanted, stored))
        return {
            "seconds": seconds,
            "steps": float(found.steps.double().mean()),
            "accuracy": self._accuracy(asked, rows_of(self._layout, found.states)),
            "exact_recall": told.pop("exact"),
            **told,
        }

    def _filled(self, rule: str, rows: np.ndarray, on_share: OnShare) -> _Filled:
        """A reservoir with all masks of rows."""
        now = self._now
        # What perceptrons have rehearsed at an earlier checkpoint would show in their weights.
        kept = now is not None and not isinstance(now.blocks.parts[0], Perceptron)
        if now is None or not kept or now.rule != rule or len(now.stored) > len(rows):
            self._now = None  # both may be large
            now = self._empty(rule, float(density(self._layout, rows[:1])[0]))
        started = time.perf_counter()
        for i in range(len(now.stored), len(rows)):
            pattern = patterns(self._layout, rows[i : i + 1]).to(self._device)
            now.centred.store(pattern[0])
            now.stored += packed(pattern)
            on_share((i + 1) / len(rows))
        self._rehearse(now)
        now.seconds += time.perf_counter() - started
        self._now = now
        return now

    def _empty(self, rule: str, expected_density: float) -> _Filled:
        num_bits = self._layout.num_bits
        size = int(self._spec.config.reservoir.block)  # resolved: no longer auto
        kind = named_rule(rule)
        blocks = Blocks(num_bits, size, lambda dim: kind.make(dim, self._device))
        # A mask of all ones or none would leave nothing to expect of the other bits.
        expected = min(max(expected_density, 0.01), 0.99)
        centred = Centred(blocks, expected, self._device, kind.needs_centring)
        return _Filled(rule, blocks, centred)

    def _rehearse(self, filled: _Filled) -> None:
        """Let perceptrons go over all that is stored, which they alone need."""
        for part, (first, end) in zip(filled.blocks.parts, filled.blocks.spans, strict=True):
            if isinstance(part, Perceptron):
                own = unpacked(filled.stored, first, end).to(self._device)
                part.rehearse(filled.centred.centred(own, slice(first, end)), _REHEARSALS)

    def _recalled(
        self, reservoir: Centred, cue: str, asked: Sequence[TaskQueries], wanted: torch.Tensor
    ) -> Recalled:
        config = self._spec.config
        most_steps = config.reservoir.most_steps
        if cue == "data":
            parts = [
                self._sought(reservoir, asked[i : i + _TOGETHER], most_steps)
                for i in range(0, len(asked), _TOGETHER)
            ]
            return Recalled.joined(parts)
        cues = []
        for one, pattern in zip(asked, wanted, strict=True):
            drawn = stream(config.seed, Role.CUES, one.task.task_id, CUES.index(cue)).integers(
                2**62
            )
            generator = torch.Generator().manual_seed(int(drawn))
            cues.append(_NOISES[cue](pattern[None], config.reservoir.share, generator))
        # All units at once: no order is drawn.
        return recall(reservoir, torch.cat(cues), most_steps, torch.Generator())

    def _sought(
        self, reservoir: Centred, asked: Sequence[TaskQueries], most_steps: int
    ) -> Recalled:
        """Each task's mask from its first test batch alone, without labels."""
        size = min(len(one.batches[0]) for one in asked)
        images = torch.stack(
            [self._queries.shown(one.task, one.batches[0][:size]) for one in asked]
        )
        logits = self._spec.network.on_inputs(self._queries.weights, images)
        return seek(
            reservoir, lambda states: logits(gains(self._layout, states)), len(asked), most_steps
        )

    def _accuracy(self, asked: Sequence[TaskQueries], rows: np.ndarray) -> float:
        """Mean over tasks of the labels that are right, each by its row."""
        shares = []
        for one, row in zip(asked, rows, strict=True):
            right = self._queries.num_right(one.task, one.batches, row)
            shares.append(sum(right) / sum(map(len, one.batches)))
        return float(np.mean(shares))
