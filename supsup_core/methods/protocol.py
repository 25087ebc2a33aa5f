"""The base class of mask finders.

Training changes scores, which are real numbers. A finder computes the gains of a task from the
scores of the task. The gains determine the effective weights. The stored state of a task has planes
of bits, and may have floats.

Shape letters: B tasks of a block.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from supsup_core.methods.first_scores import Values, mixed, uniform_bound, uniform_scores
from supsup_core.methods.phases import Phase
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network, Weights
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState
from supsup_core.streams import Role, stream

# A mapping from name to scores (B, ...). Most finders have one entry per masked tensor, with the
# name of the tensor. A finder may have other entries.
Scores = Mapping[str, Tensor]

# The data that a task gets from earlier tasks: a mapping from name to array.
Shared = Mapping[str, np.ndarray]

# A function from the weights that all tasks share to the weights of one task.
WeightsOfTask = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Progress:
    """The progress of the training of a block of tasks.

    Attributes:
        step: number of finished steps, from 1.
        steps: number of steps of the whole training. If a mask trains for longer, because it
            follows a stream, `step` exceeds this number.
        task_ids: numbers of the B tasks of the block.
        seed: the run's seed.
    """

    step: int
    steps: int
    task_ids: Sequence[int]
    seed: int


class Method(ABC):
    """A mask finder: it draws first scores, computes gains from scores, and makes states.

    Attributes:
        zero_units: whether the first scores of gains over units are zeros.
    """

    zero_units: bool = False

    @property
    def order(self) -> Literal["any", "after_first", "sequence"]:
        """Which data from earlier tasks a task needs.

        "any": none. "after_first": the result of `pass_on` after the first task. "sequence": the
        result of `pass_on` after the previous task. A subclass may have a class attribute instead.
        """
        return "any"

    @property
    def weights_rule(self) -> str:
        """The rule of `weights_of_task` in words, for readers of a store; "" for no change."""
        return ""

    @abstractmethod
    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Describe the planes that a state stores for a masked tensor.

        Most finders have one plane or more. If a tensor has no plane, its gains are 1.

        Raises:
            ValueError: the finder cannot mask this tensor with the given options.
        """

    def float_specs(self, network: Network) -> Sequence[FloatSpec]:
        """Describe the arrays of floats that the finder stores with each task."""
        return ()

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Describe the data for later tasks: a mapping from name to the shape of an array.

        If a name is the name of a tensor of weights, the array replaces these weights, and tasks
        are evaluated with the new weights. Most finders have no data for later tasks.
        """
        return {}

    def shared_bits(self, network: Network) -> frozenset[str]:
        """Name the arrays of `shared_shapes` that are arrays of bool. All others are float32.

        The store keeps an array of bool with one bit per value.
        """
        return frozenset()

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first scores of one task.

        Args:
            network: the fixed network.
            task_id: number of the task.
            seed: the run's seed.
            shared: data from earlier tasks. None for the first task, and for every task if the
                finder's `order` is "any".

        Returns:
            A mapping from name to float32 scores of this task. Most finders have one entry per
            masked tensor.
        """
        return {
            tensor.name: self.first_scores(tensor, stream(seed, Role.SCORES, task_id, i))
            for i, tensor in enumerate(network.tensors)
        }

    def first_scores(self, tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
        """Draw the first scores of one tensor, in float32.

        The distribution is uniform in (-b, b) with b = 1 / sqrt(fan_in). This is Kaiming uniform
        with a = sqrt(5). If `zero_units` is true, the scores of gains over units are zeros.
        """
        if tensor.over == "units" and self.zero_units:
            return np.zeros(tensor.shape, np.float32)
        return uniform_scores(tensor, generator)

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make the first scores of one tensor from the mean gains of earlier states.

        The random first scores of the task (`drawn`) have the same weight as one earlier state:

            score = (k b gain + drawn) / (k + 1)

        b is `uniform_bound(tensor)`, the largest magnitude of random first scores. Where the
        earlier states disagree, `drawn` decides.

        Args:
            tensor: the masked tensor.
            gains: (*shape) the mean gains of the states, without scales.
            num_states: k, the number of the states.
            drawn: (*shape) the first scores that `begin` drew for this task.
        """
        return mixed(uniform_bound(tensor) * gains, drawn, num_states)

    def untrained_from(self, tensor: MaskedTensor, gains: Values) -> Mapping[str, np.ndarray]:
        """Make the scores that are not trained from the mean gains of earlier states.

        Args:
            tensor: the masked tensor that the scores belong to.
            gains: (*shape) the mean gains of the states, without scales.

        Returns:
            A mapping from name to scores, which replace those that `begin` made. Most finders train
            all scores.
        """
        return {}

    @property
    def only_planes(self) -> bool:
        """Whether three methods of PlaneMethod, `choose`, `slope` and `decay`, are the whole rule.

        The fast trainers call no other method of a finder in a training step.
        """
        return False

    @property
    def searches(self) -> bool:
        """Whether the finder draws candidates, of which the trainer keeps the best.

        The scores of such a finder are not trained. SearchTrainer computes the loss of one
        candidate per step.
        """
        return False

    def candidate(
        self, network: Network, task_id: int, seed: int, number: int
    ) -> dict[str, np.ndarray]:
        """Draw the scores of one candidate of a finder that searches.

        Args:
            network: the fixed network.
            task_id: number of the task.
            seed: the run's seed.
            number: number of the candidate, from 0. Candidate 0 has the scores of `begin`.

        Returns:
            A mapping from name to float32 scores, as `begin` returns it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define candidate() to search")

    @property
    def has_equal_steps(self) -> bool:
        """Whether a GPU can record one training step and repeat the recording.

        Then every step must train the same scores (`trained_names`), in one phase. Only the values
        of the scores may differ between the steps, and neither `gains` nor `decay` may read a
        value on the host. `after_step` is not recorded, so it may do anything.

        If a finder overrides `trained_names`, `phase` or `after_step`, the default is False. Such
        a finder may override this property too.
        """
        return self.keeps_methods(Method, "trained_names", "phase", "after_step")

    @property
    def draws_uniformly(self) -> bool:
        """Whether `uniform_scores` draws the first scores of every tensor with gains over weights.

        If so, a GPU can draw these scores itself.
        """
        return self.keeps_methods(Method, "begin", "first_scores")

    def keeps_methods(self, base: type, *names: str) -> bool:
        """Return whether the finder's class overrides none of the named methods of a base class."""
        return all(getattr(type(self), name) is getattr(base, name) for name in names)

    @abstractmethod
    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains from the scores of all tensors.

        The gains must pass a gradient to the scores. The true derivative of the rule is usually
        zero, so the finder defines another gradient ("straight-through").

        Args:
            network: the fixed network.
            scores: a mapping from name to the scores of B tasks, (B, ...).

        Returns:
            A mapping from the name of each masked tensor to its gains, (B, *shape).
        """

    def decay(self, tensor: MaskedTensor, scores: Tensor) -> Tensor | None:
        """Return what the finder adds to the gradient of the loss, such as a decay of some scores.

        Args:
            tensor: the masked tensor.
            scores: (B, *shape) the tensor's scores, for B tasks.

        Returns:
            (B, *shape) the values to add to d loss / d score. None adds nothing.
        """
        return None

    def trained_weights(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the weights that the finder trains, as a mapping from name to tensor.

        They replace the network's fixed weights of the same names in the forward pass, and have
        their shapes. A task that trains weights is trained alone. If a task trains no weights, but
        earlier tasks have trained some, the forward pass uses the weights from earlier tasks.

        Args:
            network: the network.
            scores: a mapping from name to the scores of one task, (1, ...).
        """
        return {}

    def weights_of_task(self, network: Network, task_id: int, seed: int) -> WeightsOfTask:
        """Return the function from trained weights to the weights with which one task runs.

        Most finders use the trained weights unchanged in all tasks. A finder with another function
        describes it in `weights_rule`.

        Args:
            network: the network.
            task_id: number of the task.
            seed: the run's seed.

        Returns:
            A function of a mapping from name to trained weights, on any device and in any float
            dtype. It returns new weights of the same names, and is differentiable.
        """
        return lambda weights: weights

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Make the data for later tasks. The names and shapes are those of `shared_shapes`.

        Args:
            network: the fixed network.
            scores: a mapping from name to the scores of one task, (1, ...), after its last step.
            shared: data from earlier tasks, as for `begin`.
        """
        return {}

    def free_share(self, shared: Shared) -> float | None:
        """Return the fraction of the trained weights that later tasks may still change.

        Args:
            shared: the data for later tasks, from `pass_on`.

        Returns:
            A fraction in [0, 1]. None if the finder protects no weights.
        """
        return None

    @property
    def has_base(self) -> bool:
        """Whether the weights that tasks share are a trained dense network, the base of all masks.

        The accuracy of the base is then measured too, without a mask.
        """
        return False

    def trained_names(
        self, network: Network, names: Collection[str], step: int, steps: int
    ) -> Collection[str]:
        """Return the names of the scores that one step of the optimiser changes.

        Most finders change all scores in each step. AutogradTrainer computes no gradients of the
        other scores, and does not change them. If the gains depend on no score in training,
        AutogradTrainer computes them once, so `after_step` must not change these scores.

        Args:
            network: the network.
            names: the names of all scores.
            step: number of finished steps, from 0 to `steps` - 1.
            steps: number of steps of the whole training.
        """
        return names

    def phase(self, names: Collection[str], step: int, steps: int) -> Phase:
        """Return the phase of the training that a step belongs to. Most finders have one phase.

        The learning rate follows the recipe once in each phase. A trainer other than
        AutogradTrainer has one phase.

        Args:
            names: the names of all scores.
            step: number of finished steps, from 0. It may exceed `steps`; see Progress.
            steps: number of steps of the whole training.
        """
        return Phase(0, steps)

    def after_step(  # noqa: B027
        self, network: Network, scores: Scores, shared: Shared | None, progress: Progress
    ) -> None:
        """Change the scores in place after a step of the optimiser. Most finders change nothing.

        Args:
            network: the fixed network.
            scores: a mapping from name to the scores of B tasks, (B, ...).
            shared: data from earlier tasks, as for `begin`.
            progress: the number of finished steps, and the tasks of the block.
        """

    @abstractmethod
    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks from their scores. The trainer adds the network's floats."""


def layout_of(network: Network, method: Method) -> StateLayout:
    """Make the layout of the states that a finder stores for a network."""
    planes = [(tensor, method.planes(tensor)) for tensor in network.tensors]
    return StateLayout.of(planes, (*network.float_specs(), *method.float_specs(network)))


def of_one_task(scores: Tensor) -> Tensor:
    """Remove the axis of tasks from the scores of one task.

    A finder that trains weights calls this function, because all tasks share the weights.

    Args:
        scores: (1, *shape) the scores of one task.

    Returns:
        (*shape) a view of the scores.

    Raises:
        ValueError: the scores are those of several tasks.
    """
    if len(scores) != 1:
        raise ValueError(f"a block must have 1 task with trained weights, got {len(scores)}")
    return scores[0]
