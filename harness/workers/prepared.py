"""The masks of a checkpoint, prepared for inference and kept for its other units."""

import numpy as np
import torch

from harness.run.spec import RunSpec
from supsup_core.bits.counts import ones_fused
from supsup_core.bits.infer import BitInference
from supsup_core.bits.threads import Threads
from supsup_core.networks.mlp import fixed_weights
from supsup_core.states.bits import PackedMasks
from supsup_core.states.distractors import Distractors


class PreparedMasks:
    """A checkpoint's masks, and what inference on bits makes of them once it is needed.

    Args:
        spec: of the run.
        rows: packed, (T, R).
        before: masks that these begin with, taken over.
    """

    def __init__(self, spec: RunSpec, rows: np.ndarray, before: BitInference | None = None) -> None:
        self.rows = rows
        self._spec, self._bits = spec, before

    def __len__(self) -> int:
        return len(self.rows)

    def bits(self) -> BitInference:
        """For inference on bits."""
        if self._bits is None:
            spec = self._spec
            weights = fixed_weights(spec.network, spec.config.seed)
            self._bits = BitInference(weights, spec.layout, self.rows, spec.num_classes)
        elif len(self._bits) < len(self.rows):
            self._bits.grow(self.rows)
        return self._bits

    def grown(self, rows: np.ndarray) -> "PreparedMasks":
        """The masks of a later checkpoint."""
        return PreparedMasks(self._spec, rows, self._bits)

    def packed(self, device: torch.device) -> PackedMasks:
        """For inference by matrix products."""
        return PackedMasks(self._spec.layout, self.rows, device)


class CheckpointMasks:
    """Prepares the masks of the checkpoint at hand, and keeps them for its other units.

    Args:
        spec: of the run.
    """

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._num_distractors = 0
        self._now: PreparedMasks | None = None

    def of(self, rows: np.ndarray, num_distractors: int = 0) -> PreparedMasks:
        """Masks of the run, and so many distractors behind them."""
        now, wanted = self._now, len(rows) + num_distractors
        same = now is not None and self._num_distractors == num_distractors
        if now is None or not same or len(now) > wanted or (num_distractors and len(now) < wanted):
            self._now = None  # both may be large
            now = PreparedMasks(self._spec, with_distractors(self._spec, rows, num_distractors))
        elif len(now) < wanted:
            now = now.grown(rows)
        self._now, self._num_distractors = now, num_distractors
        return now


def with_distractors(spec: RunSpec, rows: np.ndarray, num_distractors: int) -> np.ndarray:
    """Rows (k, R), and behind them distractors drawn from their densities."""
    if not num_distractors:
        return rows
    both = np.empty((len(rows) + num_distractors, rows.shape[1]), np.uint8)
    both[: len(rows)] = rows
    distractors_like(spec, rows).draw(0, both[len(rows) :])
    return both


def distractors_like(spec: RunSpec, rows: np.ndarray) -> Distractors:
    """Draws masks as dense as those in rows (k, R)."""
    counts = ones_fused(rows, np.arange(len(rows)), Threads(1))
    return Distractors(counts, len(rows), spec.config.seed)
