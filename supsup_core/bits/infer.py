"""Task inference on packed bits, on the CPU: the algorithms of inference/, sooner.

The gradient in all coefficients is one backward pass through the superposition
(evidence.py) and one scan over the bits that it reaches (scan.py, ranked.py);
superpositions of chosen masks come from carry-save counters (counts.py). Tests hold each
algorithm to its plain form.

Shape letters: Q queries, K images of a query, P pixels, T stored tasks, C chosen ones.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int32, UInt8
from torch import Tensor

from supsup_core.bits.counts import OnesCounter, ones_fused
from supsup_core.bits.evidence import Evidence, backward
from supsup_core.bits.ranked import RankedScan
from supsup_core.bits.scan import Scan, Smallest
from supsup_core.bits.threads import Threads
from supsup_core.bits.transposed import TransposedMasks
from supsup_core.inference.algorithms import Inference, Options, num_kept
from supsup_core.inference.objectives import Objective
from supsup_core.states.bits import superpose_counted
from supsup_core.states.layout import StateLayout


class BitInference:
    """Infers tasks among packed masks.

    Args:
        weights: (O, I) of each layer, +-c, on the CPU.
        layout: of the rows: a plane of bits for each layer, and no floats.
        rows: packed masks (T, R), T >= 1; kept, not copied.
        num_real: outputs that have a label.
        threads: that share the work.
    """

    def __init__(
        self,
        weights: Sequence[Float32[Tensor, "_ _"]],
        layout: StateLayout,
        rows: UInt8[np.ndarray, "T R"],
        num_real: int,
        threads: int = 1,
    ) -> None:
        self._weights, self._layout = weights, layout
        self._num_real, self._threads = num_real, Threads(threads)
        self._firsts = [plane.bits.start for plane in layout.planes]
        self._num_weights = sum(weight.numel() for weight in weights)
        self._counter = OnesCounter(layout.row_bytes, self._threads)
        self._take(rows, before=None)

    def __len__(self) -> int:
        return len(self._rows)

    def grow(self, rows: UInt8[np.ndarray, "T R"]) -> None:
        """Take more masks in: the ones there are, in order, and those that came after them.

        Raises:
            ValueError: fewer masks than before.
        """
        if len(rows) < len(self):
            raise ValueError(f"rows must be at least the {len(self)} there are, got {len(rows)}")
        self._take(rows, before=self._masks)

    def _take(self, rows: UInt8[np.ndarray, "T R"], before: TransposedMasks | None) -> None:
        self._counter.add(rows[self._counter.num_tasks :])
        self._rows = rows
        signs = self._weights[0].sign().numpy()
        self._masks = TransposedMasks(self._layout, rows, signs, self._threads, before)
        self._all_together = self._superposed(self._counter.counts, len(rows))
        self._scan = Scan(self._masks, rows, self._num_weights, self._threads)
        self._ranked = RankedScan(self._scan)

    @property
    def extra_bytes(self) -> int:
        """What is held beyond the packed masks, but for working memory."""
        held = (self._counter.counts, *(weight.numpy() for weight in self._all_together))
        return self._masks.num_bytes + sum(array.nbytes for array in held)

    @property
    def counts(self) -> Int32[np.ndarray, " F"]:
        """How many of these masks have a one at each bit of a packed row."""
        return self._counter.counts

    def superpose(self, counts: Int32[np.ndarray, " F"], num_masks: int) -> None:
        """Stand in a larger superposition, of which these masks are a part.

        Args:
            counts: how many of all masks have a one at each bit of a packed row.
            num_masks: how many masks that are.
        """
        self._all_together = self._superposed(counts, num_masks)

    def leaders(self, queries: Sequence[Evidence], *, ranked: bool = False) -> list[Smallest]:
        """The task of each query, exact or from the strongest evidence first."""
        scan = self._ranked if ranked else self._scan
        return self._threads.map(scan.smallest, queries)

    def product(self, evidence: Evidence, task: int) -> float:
        """Of a query's evidence with one mask, in float64."""
        return float(self._scan.exact(evidence, np.array([task]))[0])

    def evidence(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> list[Evidence]:
        """What the superposition of all masks says about each query.

        Raises:
            FloatingPointError: evidence that is not finite.
        """
        return self._backward(self._all_together, images, objective)

    def one_shot(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """The exact answer of algorithms.one_shot; ties go to the lowest task.

        Raises:
            FloatingPointError: evidence that is not finite.
        """
        return _gathered(self.leaders(self.evidence(images, objective)))

    def one_shot_ranked(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """The same from the strongest evidence first, which may differ in rare cases.

        Raises:
            FloatingPointError: evidence that is not finite.
        """
        return _gathered(self.leaders(self.evidence(images, objective), ranked=True))

    def binary(
        self, images: Float32[Tensor, "Q K P"], objective: Objective, log_base: int = 2
    ) -> Inference:
        """Halve the candidates until one is left, as algorithms.binary does.

        Raises:
            FloatingPointError: evidence that is not finite.
        """
        found = self._threads.map(
            lambda pair: self._halve(*pair, objective, log_base),
            list(zip(self.evidence(images, objective), images[:, None], strict=True)),
        )
        tasks, rounds = zip(*found, strict=True)
        return Inference(torch.tensor(tasks), num_gradients=max(rounds))

    def _halve(
        self,
        evidence: Evidence,
        query: Float32[Tensor, "1 K P"],
        objective: Objective,
        log_base: int,
    ) -> tuple[int, int]:
        """The task that is left, and how many gradients that took."""
        candidates, rounds = np.arange(len(self)), 0
        while len(candidates) > 1:
            if rounds:
                counts = ones_fused(self._rows, candidates, self._threads)
                effective = self._superposed(counts, len(candidates))
                (evidence,) = self._backward(effective, query, objective)
            kept = num_kept(len(candidates), log_base)
            candidates = self._scan.smaller_part(evidence, candidates, kept)
            rounds += 1
        return int(candidates[0]), rounds

    def _backward(
        self, effective: Sequence[Tensor], images: Tensor, objective: Objective
    ) -> list[Evidence]:
        return backward(self._weights, effective, self._firsts, images, objective, self._num_real)

    def _superposed(self, counts: np.ndarray, num_masks: int) -> list[Tensor]:
        shares = superpose_counted(self._layout, counts, num_masks).values()
        return [weight * share for weight, share in zip(self._weights, shares, strict=True)]


def _gathered(found: Sequence[Smallest]) -> Inference:
    return Inference(
        torch.tensor([one.task for one in found]),
        num_gradients=1,
        bits_read_fraction=float(np.mean([one.bits_read_fraction for one in found])),
    )


# By the names that configurations and tables use; all need an objective.
BIT_ALGORITHMS: dict[str, Callable[[BitInference, Tensor, Objective, Options], Inference]] = {
    "one_shot": lambda bits, images, objective, _: bits.one_shot(images, objective),
    "one_shot_ranked": lambda bits, images, objective, _: bits.one_shot_ranked(images, objective),
    "binary": lambda bits, images, objective, options: bits.binary(
        images, objective, options.log_base
    ),
}
