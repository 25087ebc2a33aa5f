"""Lottery Jackpots: masks that are found in a trained dense network, whose weights stay fixed.

Task 0 first trains all weights of the network, without a mask. The result is the dense base. Then
each task, also task 0, searches a mask in the base, and changes no weight. The search starts from
the weights with the largest magnitudes: the first score of a weight is its magnitude |w|. The
gradient of a score is the gradient of the gain.

Weights and scores may have different learning rates: train.first_learning_rate is for the base, and
train.learning_rate is for the search. Warm-up and decay of the learning rate follow the recipe once
for the base, and once for the search.

The mask follows the scores slowly, which is called short restriction. After a step of the
optimiser, let S be the number of weights that the largest scores would bring into the mask. Of
these S weights, only the ceil(share * S) weights with the largest scores enter the mask, and as
many weights with the smallest scores leave it. The share falls from 1 to 0:

    share = (1 - finished fraction of the search) ** restriction

When to use: if a trained network exists anyway, and tasks are to be pruned forms of this network.

Source: Zhang et al. 2021, arXiv:2104.08700, and the authors' code. Their scores start at 1 for kept
and at 0.99 for dropped weights, and SGD changes them in proportion to |w|. Adam and RMSprop change
all scores equally fast, and would soon lose the order of the magnitudes. Their share has the power
4 (CIFAR), but the code rounds it up to 1, so that it restricts nothing. They keep the last layer
dense. Here, a mask keeps the same fraction of all layers. Their base is a network that was trained
before; here, task 0 trains it.

Shape letters: B tasks of a block.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.first_scores import Values, mixed, uniform_bound
from supsup_core.methods.phases import Phase
from supsup_core.methods.planes import kept_count, top_share
from supsup_core.methods.protocol import Method, Progress, Scores, Shared, of_one_task
from supsup_core.methods.trained_weights import WEIGHTS, as_shared, first_weights
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState
from supsup_core.streams import Role, stream

_TIE = 1e-6  # magnitudes whose ratio is nearer to 1 are ordered at random


@dataclass(frozen=True)
class Jackpots(Method):
    """The finder that searches masks in a trained dense network, whose weights stay fixed.

    The scores have three kinds of entries: the scores of each masked tensor, the present mask of
    each masked tensor, and in task 0 the weights of each layer.

    Raises:
        ValueError: an option is out of range.
    """

    density: Annotated[
        float, Knob("Fraction of each tensor's weights that a mask keeps.", above=0, at_most=1)
    ] = 0.1
    base_share: Annotated[
        float,
        Knob(
            "Fraction of the steps of task 0 that train the dense base. The later steps search the "
            "mask. With 1, the mask of task 0 keeps the largest weights. With 0, the base is the "
            "fixed random weights.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.5
    restriction: Annotated[
        float,
        Knob(
            "Power of the short restriction. A step makes the share (1 - finished fraction of the "
            "search) ** restriction of the changes of the mask that the scores ask for. With 0, it "
            "makes all of them.",
            at_least=0,
        ),
    ] = 4.0

    def __post_init__(self) -> None:
        check_knobs(Jackpots, vars(self))

    @property
    def order(self) -> Literal["any", "after_first"]:
        """See Method.order. Later tasks need the base that task 0 trains."""
        return "after_first" if self.has_base else "any"

    @property
    def has_base(self) -> bool:
        """Whether task 0 trains a base; see Method.has_base."""
        return self.base_share > 0

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane. Its bits are the gains.

        Raises:
            ValueError: the tensor has gains over units.
        """
        if tensor.over != "weights":
            raise ValueError(
                "network must have gains over weights for this method, got gains over units of "
                f"{tensor.name}"
            )
        return (PlaneSpec("keep"),)

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the weights of the base, if task 0 trains it."""
        return {tensor.source: tensor.shape for tensor in network.tensors if self.has_base}

    def num_kept(self, tensor: MaskedTensor) -> int:
        """Return how many gains of a tensor are 1 in a mask."""
        return kept_count(self.density, tensor.num_gains)

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Make the first scores and the first mask from the base; see Method.begin.

        Until the base is trained, task 0 has a mask of ones, and random scores.
        """
        earlier = shared or {}
        drawn = first_weights(network, dict.fromkeys(t.source for t in network.tensors), seed)
        base = {name: earlier.get(name, weights) for name, weights in drawn.items()}
        trains = self.has_base and not earlier.keys() & base.keys()
        found: dict[str, np.ndarray] = {}
        for i, tensor in enumerate(network.tensors):
            own = stream(seed, Role.SCORES, task_id, i)
            scores = own.random(tensor.shape, dtype=np.float32)
            kept = np.ones(tensor.shape, np.bool_)
            if not trains:
                sizes = _sizes(torch.from_numpy(base[tensor.source].copy()), torch.tensor(scores))
                kept = of_one_task(top_share(sizes[None], self.num_kept(tensor))).numpy()
                scores = sizes.float().numpy()
            found |= {tensor.name: scores, _mask_of(tensor.name): kept}
        return found | ({WEIGHTS + n: w.copy() for n, w in base.items()} if trains else {})

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from the mean mask; see Method.scores_from. A kept weight counts as b.

        Own scores have a small weight, because a magnitude |w| may be several times b.
        """
        return mixed(uniform_bound(tensor) * gains, drawn, num_states, own_share=0.1)

    def untrained_from(self, tensor: MaskedTensor, gains: Values) -> Mapping[str, np.ndarray]:
        """Make the first mask: it keeps the weights that most earlier states keep."""
        kept = top_share(torch.from_numpy(gains)[None], self.num_kept(tensor))
        return {_mask_of(tensor.name): of_one_task(kept).numpy()}

    def trained_names(
        self, network: Network, names: Collection[str], step: int, steps: int
    ) -> Collection[str]:
        """Return the names of the weights while the base is trained, then those of the scores."""
        if self.phase(names, step, steps).for_later_tasks:
            return [name for name in names if name.startswith(WEIGHTS)]
        return [tensor.name for tensor in network.tensors]

    def phase(self, names: Collection[str], step: int, steps: int) -> Phase:
        """Return the training of the base, or the search of the mask; see Method.phase."""
        trains = any(name.startswith(WEIGHTS) for name in names)
        before = self._base_steps(steps) if trains else 0
        if step < before:
            return Phase(0, before)
        return Phase(before, steps - before, for_later_tasks=False)

    def trained_weights(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the weights of the base, if the task trains them; see Method.trained_weights.

        Raises:
            ValueError: the scores have a base, and are those of several tasks.
        """
        names = {tensor.source: WEIGHTS + tensor.source for tensor in network.tensors}
        return {n: of_one_task(scores[entry]) for n, entry in names.items() if entry in scores}

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the mask of each tensor. In the backward pass, d gain / d score is 1."""
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            kept = scores[_mask_of(tensor.name)].to(score.dtype)
            found[tensor.name] = kept + (score - score.detach())
        return found

    def after_step(
        self, network: Network, scores: Scores, shared: Shared | None, progress: Progress
    ) -> None:
        """Choose the first mask when the base is trained, then change it; see Method.after_step."""
        search = self.phase(scores.keys(), progress.step, progress.steps)
        if search.for_later_tasks:
            return
        # A mask that follows a stream may be trained for more steps. It then stays as it is.
        left = max(0, progress.steps - progress.step) / max(1, search.steps)
        for tensor in network.tensors:
            score, kept = scores[tensor.name], scores[_mask_of(tensor.name)]
            if progress.step == search.first:
                sizes = _sizes(scores[WEIGHTS + tensor.source], score)
                kept.copy_(top_share(sizes, self.num_kept(tensor)))
                score.copy_(sizes)
            else:
                swap(kept, score, self.num_kept(tensor), left**self.restriction)

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the weights of the base after task 0, in float32."""
        return as_shared(self.trained_weights(network, scores))

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks from their masks: one plane per masked tensor."""
        masks = [scores[_mask_of(tensor.name)].cpu().numpy() for tensor in network.tensors]
        return [TaskState(tuple(kept.copy() for kept in own)) for own in zip(*masks, strict=True)]

    def _base_steps(self, steps: int) -> int:
        """Return the number of steps that train the base, at least 1."""
        return max(1, round(self.base_share * steps))


def _sizes(weights: Float[Tensor, "*shape"], draws: Float[Tensor, "*shape"]) -> Tensor:
    """Return magnitudes in float64. The draws, in [0, 1), order equal magnitudes at random."""
    return weights.detach().abs().double() * (1 - _TIE * draws.detach().double())


def swap(
    kept: Bool[Tensor, "B ..."], scores: Float[Tensor, "B ..."], num_kept: int, share: float
) -> None:
    """Change masks in place, towards the masks of the largest scores.

    S is the number of weights of a task that are not in its mask, although their scores are among
    the largest. The ceil(share * S) of these weights with the largest scores enter the mask. As
    many weights of the mask leave it: of those whose scores are not among the largest, the ones
    with the smallest scores.

    Args:
        kept: (B, *shape) the masks of B tasks. Each has `num_kept` ones, before and after.
        scores: (B, *shape) the scores of these tasks.
        num_kept: number of the largest scores.
        share: fraction of the changes that are made, in [0, 1].
    """
    if not share:
        return
    wanted = top_share(scores.detach(), num_kept)
    rows = (values.view(len(values), -1) for values in (kept, wanted, scores))
    for mask, largest, own in zip(*rows, strict=True):
        enter, leave = (largest & ~mask).nonzero()[:, 0], (mask & ~largest).nonzero()[:, 0]
        count = ceil(share * len(enter) - 1e-9)  # the last bits of a power depend on the machine
        mask[enter[own[enter].argsort(descending=True, stable=True)[:count]]] = True
        mask[leave[own[leave].argsort(stable=True)[:count]]] = False


def _mask_of(name: str) -> str:
    """Return the name of the entry of the scores that has the present mask of a tensor."""
    return f"{name}.kept"
