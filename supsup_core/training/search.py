"""Find masks by search: compute the loss of one candidate per step, and keep the best candidate.

The finder draws the candidates (Method.searches). Nothing is trained, so a step is a forward pass.
All candidates of a task are compared on the same images: those of the block's first batch.

Shape letters: B tasks of the block, N images of a batch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.methods.protocol import Shared
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.batches import Batch, block_batches
from supsup_core.training.descent import first_statistics, stacked_scores, with_floats
from supsup_core.training.protocol import OnStep


class SearchTrainer(AutogradTrainer):
    """A trainer for finders that choose among candidates; see BlockTrainer for the arguments."""

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Search among candidates; see Trainer.stages.

        After n steps, the best of the candidates 0 to n - 1 is yielded. The first scores of a task
        are its candidate 0. With transfer, they may come from earlier masks.
        """
        order = batches or block_batches(tasks, self._data, self._recipe, self._seed)
        images, labels = self._batch(next(order))
        best = candidate = self._stacked(self._starts(tasks, shared))
        least = torch.full((len(tasks),), float("inf"), device=self._device)
        ids, last = [task.task_id for task in tasks], max(after)
        for step in range(last + 1):
            if step in after:
                yield self._states(best, images), self._transfer.pass_on(ids, best, shared)
            if step == last:
                return
            if step:
                candidate = self._candidates(tasks, step)
            losses = self._losses(candidate, images, labels)
            is_better = losses < least
            least = torch.where(is_better, losses, least)
            best = {n: _chosen(is_better, candidate[n], scores) for n, scores in best.items()}
            if on_step is not None:
                on_step(step + 1)

    def _candidates(self, tasks: Sequence[Task], number: int) -> dict[str, Tensor]:
        """Draw the candidate with this number for each task, as scores (B, ...)."""
        method, network, seed = self._method, self._network, self._seed
        return self._stacked([method.candidate(network, t.task_id, seed, number) for t in tasks])

    def _stacked(self, starts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
        return stacked_scores(starts, self._accurate, self._device)

    @property
    def _accurate(self) -> torch.dtype:
        return torch.promote_types(self._dtype, torch.float32)

    @torch.no_grad()
    def _losses(
        self, scores: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Float[Tensor, " B"]:
        """Compute the mean cross-entropy of each task."""
        logits = self._network.logits(self._weights, self._gains(scores), images)
        flat = logits.to(self._accurate).transpose(1, 2) / self._recipe.temperature  # (B, S, N)
        return torch.nn.functional.cross_entropy(flat, labels, reduction="none").mean(dim=1)

    def _gains(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gains = self._method.gains(self._network, scores)
        return {name: gain.to(self._dtype) for name, gain in gains.items()}

    @torch.no_grad()
    def _states(self, scores: Mapping[str, Tensor], images: Tensor) -> list[TaskState]:
        """Make the states of the chosen candidates.

        If the network normalises, the running statistics of a state are those of the images. A
        tracked pass from old statistics s gives (1 - m) s + m t, with the momentum m and the
        statistics t of the images. So two passes, from s = 0 and from s = 1, determine t.
        """
        ended, passes = self._method.end(self._network, scores), []
        drawn = first_statistics(self._network, len(ended), self._accurate, self._device)
        for start in (0.0, 1.0):
            floats = {name: torch.full_like(v, start) for name, v in drawn.items()}
            if floats:
                gains = self._gains(scores)
                self._network.logits(self._weights, gains, images, floats, track=True)
            passes.append(floats)
        zero, one = passes
        return with_floats(ended, {n: v / (1 - (one[n] - v)) for n, v in zero.items()})


def _chosen(is_better: Tensor, candidate: Tensor, best: Tensor) -> Tensor:
    """Take the scores of the candidate for the tasks for which it is better."""
    return torch.where(is_better.reshape(-1, *(1 for _ in best.shape[1:])), candidate, best)
