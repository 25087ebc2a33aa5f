"""Store masks in reservoirs one by one, and recall some masks. Evaluation actors do this work.

An actor keeps the last reservoir that it filled. If the next checkpoint has the same rule, the
actor stores only the new masks in this reservoir. Otherwise it fills an empty reservoir with all
masks. Both ways give the same reservoir, so the rows of the table `reservoir` depend on the masks
only.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch

from harness.config.names import CUES
from harness.plan.device import device_name
from harness.plan.reservoirs import recall_settings
from harness.plan.units import ReservoirUnit
from harness.run.spec import RunSpec
from harness.tables.reservoirs import RESERVOIR
from harness.workers.queries import Queries, TaskQueries
from supsup_core.reservoirs import Blocks, Centred, Perceptron, StackedBlocks
from supsup_core.reservoirs.patterns import gains, patterns, rows_of
from supsup_core.reservoirs.quadratic import PATTERNS_TOGETHER
from supsup_core.reservoirs.recall import Recalled, erased, flipped, packed, recall, score, unpacked
from supsup_core.reservoirs.rules import named_rule
from supsup_core.reservoirs.seeking import seek
from supsup_core.states.density import density
from supsup_core.streams import Role, stream

OnShare = Callable[[float], None]  # gets the fraction of a unit that is done, from 0 to 1

_NOISES = {"flipped": flipped, "erased": erased}
REHEARSALS = 200  # largest number of passes over all stored patterns
_TOGETHER = 8  # number of tasks whose batches go through the network together
# Largest number of values in the cues that are recalled together: 128 MB as float32. Recall itself
# needs a few times as much.
_NUMBERS = 2**25


@dataclass
class _Filled:
    """A reservoir, and the patterns that are stored in it.

    Attributes:
        rule: the name of the rule that stores masks.
        blocks: the reservoirs, one per block of bits.
        centred: an object around `blocks` that subtracts the mean from patterns before they are
            stored.
        stored: all stored patterns, packed.
        seconds: the time spent on storing, in seconds.
    """

    rule: str
    blocks: Blocks | StackedBlocks
    centred: Centred
    stored: list[bytes] = field(default_factory=list)
    seconds: float = 0.0

    def recalled_from(self) -> Centred:
        """Return the reservoir for recall; some rules round its weights."""
        return self.centred.over(named_rule(self.rule).recalled_from(self.blocks))

    def perceptrons(self) -> list[tuple[Perceptron, slice]]:
        """Return the perceptrons among the blocks. Each comes with the range of its units."""
        if not isinstance(self.blocks, Blocks):
            return []
        places = zip(self.blocks.parts, self.blocks.spans, strict=True)
        return [(part, slice(*span)) for part, span in places if isinstance(part, Perceptron)]


class ReservoirWorker:
    """A worker that stores masks in reservoirs and recalls them.

    Args:
        spec: the run's specification.
        queries: makes the test batches of each task, and counts right labels.
    """

    def __init__(self, spec: RunSpec, queries: Queries) -> None:
        self._spec, self._queries, self._device = spec, queries, queries.device
        self._layout = spec.layout
        self._now: _Filled | None = None

    def run(self, unit: ReservoirUnit, rows: np.ndarray, on_share: OnShare) -> pa.Table:
        """Store the masks of a checkpoint, and recall the masks of the unit's tasks.

        Args:
            unit: the recall units, which all use the same reservoir.
            rows: (k, R) the k packed masks of the checkpoint, R bytes each.
            on_share: a function that is called with the fraction of the unit that is done.

        Returns:
            Rows of the table `reservoir`: one row per recall unit, in the order of these units.
        """
        first, num_cues = unit.recalls[0], len(unit.recalls)
        filled = self._filled(first.rule, rows, lambda share: on_share(share / 2))
        reservoir, stored = filled.recalled_from(), set(filled.stored)
        asked = [self._queries.of(i) for i in first.task_ids]
        given = self._accuracy(asked, rows[list(first.task_ids)])
        size = max(1, _NUMBERS // self._layout.num_bits)
        groups = [asked[i : i + size] for i in range(0, len(asked), size)]
        columns: dict[str, list[object]] = defaultdict(list)
        for place, cue in enumerate(one.cue for one in unit.recalls):
            told = []
            for i, group in enumerate(groups):
                on_share((1 + (place + i / len(groups)) / num_cues) / 2)
                told.append(self._told(reservoir, cue, group, rows, stored))
            columns["cue"].append(cue)
            for name, value in recall_settings(self._spec.config, cue, first.num_tasks).items():
                columns[name].append(value)
            for name in told[0]:
                values = [one[name] for one in told]
                columns[name].append(float(np.average(values, weights=list(map(len, groups)))))
        # The smallest reservoir is full first.
        dim = min(end - first for first, end in filled.blocks.spans)
        same = {
            "rule": first.rule,
            "dim": dim,
            "num_blocks": len(filled.blocks.spans),
            "num_tasks": first.num_tasks,
            "accuracy_gg": given,
            "capacity": named_rule(first.rule).capacity(dim),
            "reservoir_bytes": reservoir.num_bytes,
            "store_bytes": self._layout.row_bytes * first.num_tasks,
            "store_seconds": filled.seconds / first.num_tasks,
            "device": device_name(self._device),
        }
        columns |= {name: [value] * num_cues for name, value in same.items()}
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
        """Recall the masks of some tasks from cues of one kind.

        Returns:
            A mapping from the name of each result column to the mean of its values over the cues.
        """
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
        """Return a reservoir in which all masks of `rows` are stored: k packed rows of R bytes."""
        now = self._now
        # A reservoir of perceptrons is never kept: its weights would depend on the patterns that it
        # rehearsed at earlier checkpoints.
        kept = now is not None and not now.perceptrons()
        if now is None or not kept or now.rule != rule or len(now.stored) > len(rows):
            self._now = None  # free the old reservoir first, because both may be large
            now = self._empty(rule, float(density(self._layout, rows[:1])[0]))
        started = time.perf_counter()
        for first, end in self._groups(len(now.stored), len(rows)):
            some = patterns(self._layout, rows[first:end])
            now.centred.store_all(some.to(self._device))
            now.stored += packed(some)
            on_share(end / len(rows))
        self._rehearse(now)
        now.seconds += time.perf_counter() - started
        self._now = now
        return now

    def _groups(self, first: int, end: int) -> list[tuple[int, int]]:
        """Divide masks into groups that are stored together: (first, end) of each group.

        The group of a mask does not depend on the checkpoints at which an actor stores masks. So
        rounding errors do not depend on the actor either.
        """
        if first == end:
            return []
        bounds = {*range(0, end, PATTERNS_TOGETHER), *self._spec.config.evaluate.checkpoints}
        inner = sorted(bound for bound in bounds if first < bound < end)
        return list(pairwise([first, *inner, end]))

    def _empty(self, rule: str, expected_density: float) -> _Filled:
        num_bits = self._layout.num_bits
        size = int(self._spec.config.reservoir.block)  # resolved: no longer auto
        kind = named_rule(rule)
        blocks = kind.blocks(num_bits, size, self._device)
        # The first mask may have only ones or only zeros, but the expected density must lie between
        # 0 and 1.
        expected = min(max(expected_density, 0.01), 0.99)
        # Trained masks have more bits in common than random masks. So for most rules, the mean must
        # be subtracted.
        centred = Centred(blocks, expected, self._device, kind.needs_centring)
        return _Filled(rule, blocks, centred)

    def _rehearse(self, filled: _Filled) -> None:
        """If the rule is the perceptron rule, learn all stored patterns again.

        The theory of perceptrons assumes that patterns are learned repeatedly. Every other rule
        stores a mask once, in O(D²) operations for masks of D bits.
        """
        for part, units in filled.perceptrons():
            own = unpacked(filled.stored, units.start, units.stop).to(self._device)
            part.rehearse(filled.centred.centred(own, units), REHEARSALS)

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
        # All bits change at once, so the generator draws no order.
        return recall(reservoir, torch.cat(cues), most_steps, torch.Generator())

    def _sought(
        self, reservoir: Centred, asked: Sequence[TaskQueries], most_steps: int
    ) -> Recalled:
        """Seek the mask of each task. The cue is the task's first test batch, without labels."""
        size = min(len(one.batches[0]) for one in asked)
        images = torch.stack(
            [self._queries.shown(one.task, one.batches[0][:size]) for one in asked]
        )
        logits = self._spec.network.on_inputs(self._queries.weights, images)
        return seek(
            reservoir, lambda states: logits(gains(self._layout, states)), len(asked), most_steps
        )

    def _accuracy(self, asked: Sequence[TaskQueries], rows: np.ndarray) -> float:
        """Return the fraction of right labels, as a mean over tasks.

        Args:
            asked: the test batches of some tasks.
            rows: one packed mask for each of these tasks.
        """
        shares = []
        for one, row in zip(asked, rows, strict=True):
            right = self._queries.num_right(one.task, one.batches, self._queries.state(row))
            shares.append(sum(right) / sum(map(len, one.batches)))
        return float(np.mean(shares))
