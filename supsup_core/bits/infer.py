"""Infer tasks on packed bits on the CPU: a faster form of the algorithms of inference/.

A gradient with respect to all coefficients needs two steps: one backward pass through the
superposition (evidence.py), and one scan over the bits of the weights that have evidence (scan.py,
ranked.py). Counts of ones give the superposition of any chosen masks (counts.py). Tests compare
the algorithms with those of inference/.

Shape letters: Q queries, K images of a query, P pixels, T stored tasks, C chosen tasks, R bytes and
F = 8 R bits of a packed row.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from torch import Tensor

from supsup_core.bits.counts import OnesCounter, ones_fused
from supsup_core.bits.evidence import Evidence, backward
from supsup_core.bits.ranked import RankedScan
from supsup_core.bits.scan import Scan, Smallest
from supsup_core.bits.threads import Threads
from supsup_core.bits.transposed import TransposedMasks
from supsup_core.inference.algorithms import Options, num_kept
from supsup_core.inference.answers import Inference
from supsup_core.inference.objectives import Objective
from supsup_core.states.bits import superpose_counted
from supsup_core.states.layout import StateLayout


class BitInference:
    """Task inference among T packed masks, on the CPU.

    Args:
        weights: for each layer, the fixed weights (outputs, inputs). Each weight of a layer is +c
            or -c.
        layout: layout of the rows. It must have one plane of bits per layer, and no floats.
        rows: (T, R) packed masks, at least one. The array is not copied, so it must not change.
        num_real: number of outputs that belong to a class.
        threads: number of threads that divide the work.
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
        """Add masks.

        Args:
            rows: all packed masks: first the earlier masks in the same order, then the new masks.

        Raises:
            ValueError: `rows` has fewer masks than this object already has.
        """
        if len(rows) < len(self):
            raise ValueError(
                f"rows must contain at least the {len(self)} earlier masks, got {len(rows)}: "
                "pass the earlier masks and the new masks together"
            )
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
        """Bytes of memory of this object, not counting the packed rows and working memory."""
        held = (self._counter.counts, *(weight.numpy() for weight in self._all_together))
        return self._masks.num_bytes + sum(array.nbytes for array in held)

    @property
    def counts(self) -> Int32[np.ndarray, " F"]:
        """(8 R,) for each bit of a packed row, how many of this object's masks have a one."""
        return self._counter.counts

    def superpose(self, counts: Int32[np.ndarray, " F"], num_masks: int) -> None:
        """Replace the superposition of this object's masks by a superposition of more masks.

        Args:
            counts: for each bit of a packed row, the number of masks that have a one, among all
                masks of the larger superposition. These include this object's masks.
            num_masks: number of masks of the larger superposition.
        """
        self._all_together = self._superposed(counts, num_masks)

    def leaders(self, queries: Sequence[Evidence], *, ranked: bool = False) -> list[Smallest]:
        """Find, for each query, the task whose mask has the smallest product with the evidence.

        Args:
            queries: the evidence of each query.
            ranked: if false, the answers are exact. If true, the scan reads the largest evidence
                first and stops early. In rare cases, its answer differs from the exact answer.

        Returns:
            The task found for each query, in the order of `queries`.
        """
        scan = self._ranked if ranked else self._scan
        return self._threads.map(scan.smallest, queries)

    def products(
        self, evidence: Evidence, tasks: Int64[np.ndarray, " C"]
    ) -> Float64[np.ndarray, " C"]:
        """Compute the product of one query's evidence and the mask of each task, in float64."""
        return self._scan.exact(evidence, tasks)

    def evidence(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> list[Evidence]:
        """Compute the evidence of each query by a pass through the superposition.

        Args:
            images: (Q, K, P) normalised images: Q queries, and each query has K images of P pixels.
            objective: the objective. Its derivatives give the evidence.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        return self._backward(self._all_together, images, objective)

    def one_shot(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """Infer the task of each query, with the same answers as `algorithms.one_shot`.

        If slopes are equal, the lowest task number wins.

        Args:
            images: (Q, K, P) normalised images: Q queries, and each query has K images of P pixels.
            objective: the objective. The task with the smallest slope of the objective is inferred.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        return _gathered(self.leaders(self.evidence(images, objective)))

    def one_shot_ranked(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """Infer the task of each query by one-shot, but read the largest evidence first.

        The scan stops early, so it reads fewer bits than `one_shot`. In rare cases, its answer
        differs from the answer of `one_shot`.

        Args:
            images: (Q, K, P) normalised images: Q queries, and each query has K images of P pixels.
            objective: the objective. The task with the smallest slope of the objective is inferred.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        return _gathered(self.leaders(self.evidence(images, objective), ranked=True))

    def binary(
        self, images: Float32[Tensor, "Q K P"], objective: Objective, log_base: int = 2
    ) -> Inference:
        """Infer the task of each query by the algorithm binary: drop tasks round by round.

        If slopes are equal, the lower task number is kept.

        Args:
            images: (Q, K, P) normalised images: Q queries, and each query has K images of P pixels.
            objective: the objective. Each round keeps the tasks with the smallest slopes.
            log_base: each round keeps about 1 / log_base of the candidate tasks, until one task is
                left.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        found = self._threads.map(
            lambda pair: self._halve(*pair, objective, log_base),
            list(zip(self.evidence(images, objective), images[:, None], strict=True)),
        )
        smallest, rounds = zip(*found, strict=True)
        return _gathered(smallest, max(rounds))

    def _halve(
        self,
        evidence: Evidence,
        query: Float32[Tensor, "1 K P"],
        objective: Objective,
        log_base: int,
    ) -> tuple[Smallest, int]:
        """Drop candidate tasks of one query, round by round, until one task is left.

        Returns:
            The task that is left and the best task that the last round dropped, and the number of
            rounds. Each round needs one gradient.
        """
        candidates, rounds = np.arange(len(self)), 0
        while True:
            if rounds:
                counts = ones_fused(self._rows, candidates, self._threads)
                effective = self._superposed(counts, len(candidates))
                (evidence,) = self._backward(effective, query, objective)
            kept = num_kept(len(candidates), log_base)
            if kept == 1:
                last = self._scan.smallest_of(evidence, candidates)
                return last, rounds + (len(candidates) > 1)
            candidates = self._scan.smaller_part(evidence, candidates, kept)
            rounds += 1

    def _backward(
        self, effective: Sequence[Tensor], images: Tensor, objective: Objective
    ) -> list[Evidence]:
        return backward(self._weights, effective, self._firsts, images, objective, self._num_real)

    def _superposed(self, counts: np.ndarray, num_masks: int) -> list[Tensor]:
        shares = superpose_counted(self._layout, counts, num_masks).values()
        return [weight * share for weight, share in zip(self._weights, shares, strict=True)]


def _gathered(found: Sequence[Smallest], num_gradients: int = 1) -> Inference:
    return Inference(
        torch.tensor([one.task for one in found]),
        torch.tensor([one.runner_up for one in found]),
        torch.tensor([one.margin for one in found], dtype=torch.float64),
        num_gradients,
        bits_read_fraction=float(np.mean([one.bits_read_fraction for one in found])),
    )


# The keys are the names that configurations and tables use. Every algorithm here needs an
# objective.
BIT_ALGORITHMS: dict[str, Callable[[BitInference, Tensor, Objective, Options], Inference]] = {
    "one_shot": lambda bits, images, objective, _: bits.one_shot(images, objective),
    "one_shot_ranked": lambda bits, images, objective, _: bits.one_shot_ranked(images, objective),
    "binary": lambda bits, images, objective, options: bits.binary(
        images, objective, options.log_base
    ),
}
