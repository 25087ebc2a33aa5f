"""Prepare the masks of a checkpoint for inference, once for all units of the checkpoint."""

import numpy as np
import torch
from torch import Tensor

from harness.run.spec import RunSpec
from harness.workers.queries import State
from supsup_core.bits.counts import ones_fused
from supsup_core.bits.threads import Threads
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.engines.protocol import Engine
from supsup_core.states.distractors import Distractors

# A worker first infers among this number of copies of one mask, so that kernels are compiled or
# loaded. All copies have the same product with the evidence. So the kernels that decide between
# nearly equal products run too. The number is larger than _FEW in bits/ranked.py, so that the
# ranked scan does not end after its first slice.
COPIES = 12


class PreparedMasks:
    """The masks of a checkpoint, and the engine that infers tasks among them.

    Args:
        rows: (T, R) T packed masks of R bytes each.
        engine: the engine that was made with these masks.

    Attributes:
        warm: pairs of an algorithm and an objective with which a first inference among the masks
            was done.
    """

    def __init__(self, rows: np.ndarray, engine: Engine) -> None:
        self.rows, self.engine = rows, engine
        self.warm: set[tuple[str, str | None]] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def state(self, task: int) -> State:
        """Return the state of one task, on the device of the engine."""
        return State.of(self.engine.stored, task)


class CheckpointMasks:
    """The prepared masks of the current checkpoint. They are kept for all units of the checkpoint.

    Args:
        spec: the run's specification.
        weights: a mapping from name to the network's fixed weights, on the device.
        device: the device on which tasks are inferred.
    """

    def __init__(self, spec: RunSpec, weights: dict[str, Tensor], device: torch.device) -> None:
        self._spec, self._weights, self._device = spec, weights, device
        self._num_distractors = 0
        self._now: PreparedMasks | None = None

    def of(self, rows: np.ndarray, num_distractors: int = 0) -> PreparedMasks:
        """Prepare masks and distractors for inference, or return them if they are prepared already.

        Args:
            rows: (k, R) the k packed masks of the checkpoint, R bytes each.
            num_distractors: the number of distractors to add after the k masks.
        """
        now, wanted = self._now, len(rows) + num_distractors
        same = now is not None and self._num_distractors == num_distractors
        if now is None or not same or len(now) > wanted or (num_distractors and len(now) < wanted):
            self._now = None  # free the old masks first, because old and new masks may be large
            now = self._prepared(with_distractors(self._spec, rows, num_distractors))
        elif len(now) < wanted:
            now = PreparedMasks(rows, now.engine.grown(rows))
        self._now, self._num_distractors = now, num_distractors
        return now

    def copies(self, row: np.ndarray) -> PreparedMasks:
        """Prepare COPIES copies of one packed mask. The masks of the checkpoint stay prepared.

        Args:
            row: (1, R) the packed mask of R bytes.
        """
        return self._prepared(row.repeat(COPIES, axis=0))

    def _prepared(self, rows: np.ndarray) -> PreparedMasks:
        spec = self._spec
        trained = bool(spec.trained_weights)
        states = states_for(spec.network, spec.layout, rows, self._device, trained=trained)
        engine = engine_for(spec.network, self._weights, states, spec.num_real, trained=trained)
        return PreparedMasks(rows, engine)


def with_distractors(spec: RunSpec, rows: np.ndarray, num_distractors: int) -> np.ndarray:
    """Append distractors (untrained random masks) to packed masks.

    A distractor keeps each weight with a probability: the fraction of the masks in `rows` that keep
    this weight.

    Args:
        spec: the run's specification, which gives the seed.
        rows: (k, R) k packed masks of R bytes each.
        num_distractors: the number of distractors.

    Returns:
        (k + num_distractors, R) the masks and then the distractors.
    """
    if not num_distractors:
        return rows
    both = np.empty((len(rows) + num_distractors, rows.shape[1]), np.uint8)
    both[: len(rows)] = rows
    distractors_like(spec, rows).draw(0, both[len(rows) :])
    return both


def distractors_like(spec: RunSpec, rows: np.ndarray) -> Distractors:
    """Make an object that draws distractors (untrained random masks).

    A distractor keeps each weight with a probability: the fraction of the masks in `rows` that keep
    this weight.

    Args:
        spec: the run's specification, which gives the seed.
        rows: (k, R) k packed masks of R bytes each.
    """
    counts = ones_fused(rows, np.arange(len(rows)), Threads(1))
    return Distractors(counts, len(rows), spec.config.seed)
