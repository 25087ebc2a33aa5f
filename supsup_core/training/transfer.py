"""Transfer: the first scores of a task start from the masks, or the scores, of earlier tasks.

For most ways of transfer, the finder makes the first scores from the gains of earlier states
(`Method.scores_from`). With `mean_scores`, the first scores are the mean of the last scores of all
earlier tasks.

Source: `mean` and `mean_scores` are from Wortsman et al. 2020. Their text describes the mean of all
earlier masks, and their code computes the mean of scores. `knn` is the transfer of Yadav & Bansal
(ExSSNeT), who choose an earlier mask by the nearest neighbours of the new task's features. With
`similar`, one-shot inference chooses the mask. `last` is after Kang et al. 2022 (WSN), who continue
with the scores of the previous task. Here the task starts from the mask of the previous task.

Shape letters: B tasks of the block, N images of a batch, K earlier states, R bytes of a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from supsup_core.bits.counts import ones_fused
from supsup_core.bits.threads import Threads
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.engines.protocol import Engine
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import Method, Scores, Shared, layout_of
from supsup_core.methods.trained_weights import trained_before
from supsup_core.names import MEAN_SCORES, NO_TRANSFER
from supsup_core.networks.protocol import Network
from supsup_core.states.bits import superpose_counted
from supsup_core.states.choose import stored_states
from supsup_core.streams import Role, stream
from supsup_core.training import neighbours
from supsup_core.training.recipe import Recipe

# The entry of `shared` with the packed rows of the states that `source_tasks` names, (K, R) uint8.
ROWS = "rows"

# A function (share, at_most) that returns the images of the first training steps of a block. These
# are N normalised images for each of B tasks, (B, N, *shape), and their labels (B, N). N is at
# least the smaller of two numbers: the fraction `share` of a task's training images, and `at_most`.
FirstImages = Callable[[float, int], tuple[Float[Tensor, "B N ..."], Integer[Tensor, "B N"]]]


def order_of(method: Method, recipe: Recipe) -> Literal["any", "after_first", "sequence"]:
    """Return which data from earlier tasks a task needs; see Method.order."""
    return method.order if recipe.transfer == NO_TRANSFER else "sequence"


def carried_shapes(network: Network, method: Method, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Describe the data for later tasks that cannot be computed from the states of earlier tasks.

    Returns:
        A mapping from name to the shape of a float32 array. `Trainer.stages` yields these arrays.
    """
    shapes = dict(method.shared_shapes(network))
    if recipe.transfer == MEAN_SCORES:
        shapes |= {_sum_of(tensor.name): tensor.shape for tensor in network.tensors}
    return shapes


def source_tasks(transfer: str, task_ids: Sequence[int], seed: int) -> list[int]:
    """Choose the earlier tasks from whose states the first scores of a block are made.

    Only tasks before the block are chosen.

    Args:
        transfer: the way of transfer, one of names.TRANSFERS.
        task_ids: the tasks of the block, in order.
        seed: the run's seed.

    Returns:
        The chosen tasks. Their packed rows, in this order, are the entry ROWS of `shared` for the
        block. With the transfer `random`, one task is chosen for each task of the block. Empty if
        the block needs no rows.
    """
    first = task_ids[0]
    if first == 0:
        return []
    match transfer:
        case "mean" | "similar" | "knn":
            return list(range(first))
        case "last":
            return [first - 1]
        case "random":
            return [int(stream(seed, Role.TRANSFER, i).integers(first)) for i in task_ids]
    return []


@dataclass(frozen=True)
class Transfer:
    """The object that makes the first scores of a block, and the data for later tasks.

    Attributes:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training, with the way of transfer.
        seed: the run's seed.
        device: the device that chooses an earlier state for the transfers `similar` and `knn`.
    """

    network: Network
    method: Method
    recipe: Recipe
    seed: int
    device: torch.device

    def starts(
        self,
        task_ids: Sequence[int],
        shared: Shared | None,
        first_images: FirstImages,
    ) -> list[dict[str, np.ndarray]]:
        """Make the first scores of each task of a block.

        Args:
            task_ids: the tasks of the block, in order.
            shared: data from earlier tasks; None for the tasks of the first block.
            first_images: a function that returns the images of the first training steps. It is
                called for the transfers `similar` and `knn`.

        Returns:
            For each task, a mapping from name to float32 scores.
        """
        drawn = [self.method.begin(self.network, i, self.seed, shared) for i in task_ids]
        if not shared or self.recipe.transfer == NO_TRANSFER:
            return drawn
        if self.recipe.transfer == MEAN_SCORES:
            names = [tensor.name for tensor in self.network.tensors]
            means = {n: shared[_sum_of(n)] / np.float32(task_ids[0]) for n in names}
            return [own | means for own in drawn]
        rows = shared[ROWS]
        places: list[np.ndarray | None]
        if self.recipe.transfer == "mean":
            places = [np.arange(len(rows))] * len(drawn)
        else:
            chosen = self._chosen(shared, len(drawn), first_images)
            places = [None if i is None else np.array([i]) for i in chosen]
        return [
            own if some is None else self._from(rows, some, own)
            for some, own in zip(places, drawn, strict=True)
        ]

    def _chosen(
        self, shared: Shared, num_tasks: int, first_images: FirstImages
    ) -> Sequence[int | None]:
        """Choose one of the rows for each task of the block; None if no row is good enough."""
        rows, way = shared[ROWS], self.recipe.transfer
        if way == "random":
            return range(num_tasks)
        if way == "knn":
            return self._by_neighbours(shared, first_images)
        if len(rows) == 1:
            return [0] * num_tasks
        batch, _ = first_images(0.0, 0)
        batch = batch.to(self.device, torch.float32)
        found = self._engine(shared).infer(batch, "one_shot", OBJECTIVES["H"], Options())
        return [int(task) for task in found.tasks]

    def _engine(self, shared: Shared) -> Engine:
        """Make the engine that infers a task among the rows."""
        network, layout = self.network, layout_of(self.network, self.method)
        num_outputs = network.num_outputs  # the objective H does not need the real neurons
        weights = self._weights(shared)
        trained = bool(self.method.shared_shapes(network).keys() & weights.keys())
        states = states_for(network, layout, shared[ROWS], self.device, trained=trained)
        return engine_for(network, weights, states, num_outputs, trained=trained)

    def _by_neighbours(self, shared: Shared, first_images: FirstImages) -> list[int | None]:
        """Choose for each task the row with the best features, by nearest neighbours."""
        layout, weights = layout_of(self.network, self.method), self._weights(shared)
        states = stored_states(layout, shared[ROWS], self.device)
        images, labels = first_images(neighbours.SHARE, neighbours.MOST_IMAGES)
        return [
            neighbours.best_by_neighbours(self.network, weights, states, shown, classes)
            for shown, classes in zip(
                images.to(self.device, torch.float32), labels.to(self.device), strict=True
            )
        ]

    def _weights(self, shared: Shared) -> dict[str, Tensor]:
        """Return the weights after the earlier tasks: the fixed weights, if no task trains them."""
        weights = {n: w.to(self.device) for n, w in self.network.weights(self.seed).items()}
        return weights | trained_before(shared, weights)

    def _from(
        self, rows: UInt8[np.ndarray, "K R"], places: np.ndarray, drawn: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Make first scores from the mean gains of some rows."""
        counts = ones_fused(rows, places, Threads(1))
        gains = superpose_counted(layout_of(self.network, self.method), counts, len(places))
        scores = dict(drawn)
        for tensor in self.network.tensors:
            own, gain = drawn[tensor.name], gains[tensor.name].numpy()
            scores[tensor.name] = self.method.scores_from(tensor, gain, len(places), own)
            scores |= self.method.untrained_from(tensor, gain)
        return scores

    def pass_on(self, task_ids: Sequence[int], scores: Scores, shared: Shared | None) -> Shared:
        """Make the data for later tasks, whose names are those of `carried_shapes`.

        Args:
            task_ids: the B tasks of the block, in order.
            scores: a mapping from name to the scores of the tasks, (B, ...).
            shared: data from earlier tasks, as for `starts`.

        Returns:
            A mapping from name to array. It is empty if no later task needs the data of this block.
        """
        order = order_of(self.method, self.recipe)
        if order == "any" or (order == "after_first" and task_ids[0]):
            return {}
        data = dict(self.method.pass_on(self.network, scores, shared))
        if self.recipe.transfer == MEAN_SCORES:
            for name in (tensor.name for tensor in self.network.tensors):
                own = scores[name].detach().to("cpu", torch.float32).sum(dim=0).numpy()
                data[_sum_of(name)] = own + (shared[_sum_of(name)] if shared else np.float32(0))
        return data


def _sum_of(name: str) -> str:
    """Name the entry of `shared` that has the sum of the scores of all earlier tasks."""
    return f"sum of scores {name}"
