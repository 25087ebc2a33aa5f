"""Train the scores of B tasks with autograd and torch.optim, one batch at a time.

Shape letters: B tasks, N images of a batch, S outputs.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from supsup_core.methods.protocol import Method, Progress, Shared
from supsup_core.methods.trained_weights import trained_before
from supsup_core.networks.protocol import Gains, Network, Weights
from supsup_core.states.layout import TaskState
from supsup_core.training.recipe import Recipe


class Descent:
    """The training of the scores of B tasks, for any network, finder and device.

    Args:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training.
        weights: a mapping from name to the fixed weights, on the device and in the dtype of the
            matrix products.
        starts: for each task, a mapping from name to float32 first scores.
        shared: data from earlier tasks; see Trainer.stages.
        task_ids: numbers of the B tasks.
        seed: the run's seed.

    Attributes:
        scores: a mapping from name to the scores of all tasks, (B, ...). Scores that are floats are
            in float32 or float64.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        recipe: Recipe,
        weights: Weights,
        starts: Sequence[Mapping[str, np.ndarray]],
        shared: Shared | None = None,
        *,
        task_ids: Sequence[int],
        seed: int,
    ) -> None:
        self._network, self._method, self._recipe = network, method, recipe
        self._weights, self._shared = weights, shared
        self._task_ids, self._seed = task_ids, seed
        self._before = trained_before(shared, weights)
        # A block of several tasks trains no weights, so all its tasks have the same weights.
        self._of_task = method.weights_of_task(network, task_ids[0], seed)
        some = next(iter(weights.values()))
        self._dtype = some.dtype
        accurate = torch.promote_types(some.dtype, torch.float32)
        self.scores = stacked_scores(starts, accurate, some.device)
        self._floats = first_statistics(network, len(starts), accurate, some.device)
        self._optimizer = recipe.torch_optimizer(list(self.scores.values()))
        self._fixed_gains: Gains | None = None

    def step(
        self, step: int, images: Float[Tensor, "B N ..."], labels: Int64[Tensor, "B N"]
    ) -> None:
        """Take one step of the optimiser.

        Args:
            step: number of the step, from 0.
            images: (B, N, *shape) normalised images of each task, in the dtype of the weights.
            labels: (B, N) their labels.
        """
        method, steps = self._method, self._recipe.steps
        phase = method.phase(self.scores.keys(), step, steps)
        recipe = self._recipe.in_phase(phase, self._task_ids[0])
        self._optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step - phase.first)
        self._optimizer.zero_grad()  # the optimiser changes no tensor that has no gradient
        self._train_only(method.trained_names(self._network, self.scores.keys(), step, steps))
        self._loss(images, labels).backward()
        self._add_decay()
        self._optimizer.step()
        with torch.no_grad():
            progress = Progress(step + 1, steps, self._task_ids, self._seed)
            method.after_step(self._network, self.scores, self._shared, progress)

    def states(self) -> list[TaskState]:
        """Make the states of the B tasks from their scores, with the floats of the network."""
        return with_floats(self._method.end(self._network, self.scores), self._floats)

    def _add_decay(self) -> None:
        """Add the finder's decay to the gradients of the scores."""
        for tensor in self._network.tensors:
            score = self.scores.get(tensor.name)
            if score is None or score.grad is None:
                continue
            decay = self._method.decay(tensor, score.detach())
            if decay is not None:
                score.grad += decay

    def _train_only(self, names: Collection[str]) -> None:
        """Compute gradients of these scores only."""
        for name, score in self.scores.items():
            if score.requires_grad != (name in names):
                score.requires_grad_(name in names)
                self._fixed_gains = None

    def _gains(self) -> Gains:
        """Compute the gains. If they depend on no trained score, they are computed once."""
        if self._fixed_gains is not None:
            return self._fixed_gains
        found = self._method.gains(self._network, self.scores)
        gains = {name: gain.to(self._dtype) for name, gain in found.items()}
        # On LeNet-300-100, edge-popup's gains take half of the time of a step.
        if not any(gain.requires_grad for gain in gains.values()):
            self._fixed_gains = gains
        return gains

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch; see tracked_loss."""
        gains, temperature = self._gains(), self._recipe.temperature
        return tracked_loss(
            self._network, self._now(), gains, self._floats, images, labels, temperature
        )

    def _now(self) -> dict[str, Tensor]:
        """Return the weights of the forward pass.

        Weights that the tasks train come from the scores, and weights that earlier tasks have
        trained come from `shared`. All other weights are fixed.
        """
        trained: Weights = {
            **self._before,
            **self._method.trained_weights(self._network, self.scores),
        }
        changed = self._of_task(trained)
        return {**self._weights, **{n: weight.to(self._dtype) for n, weight in changed.items()}}


def tracked_loss(
    network: Network,
    weights: Weights,
    gains: Gains,
    floats: Mapping[str, Tensor],
    images: Float[Tensor, "B N ..."],
    labels: Int64[Tensor, "B N"],
    temperature: float,
) -> Tensor:
    """Compute the mean cross-entropy of each of B tasks, and sum it over the tasks.

    Because the losses are summed, each task gets the same gradient as in a training of its own.

    Args:
        network: the fixed network.
        weights: a mapping from name to the weights of the forward pass.
        gains: a mapping from name to the gains of the tasks.
        floats: a mapping from name to the network's floats, (B, *shape). They are moved towards
            the statistics of the batch, in place.
        images: normalised images of each task.
        labels: their labels.
        temperature: the logits are divided by this number.
    """
    logits = network.logits(weights, gains, images, floats or None, track=bool(floats))
    accurate = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.to(accurate).flatten(0, 1) / temperature
    loss = torch.nn.functional.cross_entropy(flat, labels.flatten(), reduction="sum")
    return loss / labels.shape[1]


def stacked_scores(
    starts: Sequence[Mapping[str, np.ndarray]], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Stack the scores of B tasks to (B, ...). Scores that are floats get the given dtype."""
    stacked = {n: torch.from_numpy(np.stack([s[n] for s in starts])) for n in starts[0]}
    return {
        name: values.to(device, dtype if values.is_floating_point() else None)
        for name, values in stacked.items()
    }


def first_statistics(
    network: Network, num_tasks: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Make the values that the network's floats have before the first step.

    Returns:
        A mapping from name to the values of all B tasks, (B, *shape).
    """
    return {
        spec.name: torch.full((num_tasks, *spec.shape), spec.initial, dtype=dtype, device=device)
        for spec in network.float_specs()
    }


def with_floats(states: Sequence[TaskState], floats: Mapping[str, Tensor]) -> list[TaskState]:
    """Add the network's floats to the B states of a block.

    Args:
        states: the states, without the network's floats.
        floats: a mapping from name to the values of all tasks, (B, *shape).
    """
    stored = {name: values.detach().cpu().numpy() for name, values in floats.items()}
    return [
        TaskState(
            state.planes, {**state.floats, **{name: v[b, ...].copy() for name, v in stored.items()}}
        )
        for b, state in enumerate(states)
    ]
