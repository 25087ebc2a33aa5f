"""Layers of a block whose steps are one or two passes over memory, on the CPU.

There is one class for each rule of methods/rules.py. Tests compare their steps with the steps of
BlockLayer, which computes the same with torch.

Shape letters: B tasks of the block, N images of a batch, O outputs and I inputs of a layer.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.kernels.means import means_of_kept
from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.rules import AboveZero, FastRule, SignedAbove, TopOfGroups, TopShares
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.layers import BlockLayer
from supsup_core.training.magnitude_steps import MagnitudeStep, TopOfGroupsStep, TopShareStep
from supsup_core.training.optimizers import FusedStep, Optimizer

Step = FusedStep | MagnitudeStep
R = TypeVar("R", bound=FastRule)


class FusedBlockLayer(BlockLayer, Generic[R]):
    """A BlockLayer on the CPU for a rule that has a fast step.

    Memory, not arithmetic, limits the speed of a step. Therefore, if the tasks share the layer's
    inputs, a step handles one task after another. The gradient of one task stays in the cache. Then
    the step reads and writes only the scores, the optimiser's state and the masked signs in memory.
    With RMSprop and float32, these take at most 12 bytes per weight. The tasks share the inputs of
    the first layer, which has three quarters of LeNet's weights.

    Attributes:
        by_task: whether a step must handle each task separately in any case.
    """

    by_task: ClassVar[bool] = False
    _means = staticmethod(means_of_kept)

    @cached_property
    def _rule(self) -> R:
        rule = self._method.fast_rule(self._tensor)
        assert rule is not None, "layer_form must choose this class only for a finder with a rule"
        return rule  # type: ignore[return-value]  # of the class to which FUSED maps the rule

    @cached_property
    def _by_task(self) -> tuple[Tensor, list[Step]]:
        gradient = torch.empty_like(self.masked[0])
        return gradient, self._each(gradient.expand_as(self.masked))

    @cached_property
    def _at_once(self) -> tuple[Tensor, list[Step]]:
        gradients = torch.empty_like(self.masked)
        if self.by_task:
            return gradients, self._each(gradients)
        return gradients, [self._of_part(self._scores, self._state, gradients, self.masked)]

    def _each(self, gradients: Tensor) -> list[Step]:
        """Make one object per task of the block. It takes the steps of the optimiser."""
        tasks = zip(
            self._scores, zip(*self._state, strict=True), gradients, self.masked, strict=True
        )
        return [self._of_part(*parts) for parts in tasks]

    def _of_part(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        """Make the object that takes the steps for one task, or for all tasks together."""
        return FusedStep(self._optimizer, scores, state, gradients, masked)

    def _move(self, delta: Tensor, x: Tensor, learning_rate: float) -> None:
        if x.dim() == 2:
            gradient, steps = self._by_task
            for b, (received, step) in enumerate(zip(delta, steps, strict=True)):
                torch.mm(received, x.t(), out=gradient)
                if self._magnitudes is not None:
                    gradient.mul_(self._magnitudes[b])
                step.step(learning_rate, self._count)
        else:
            gradients, steps = self._at_once
            torch.bmm(delta, x.transpose(1, 2), out=gradients)
            self._step_all(gradients, steps, learning_rate)

    def _move_by(self, gradients: Tensor, learning_rate: float) -> None:
        own, steps = self._at_once
        own.copy_(gradients)
        self._step_all(own, steps, learning_rate)

    def _step_all(self, gradients: Tensor, steps: list[Step], learning_rate: float) -> None:
        if self._magnitudes is not None:
            gradients.mul_(self._magnitudes)
        for step in steps:
            step.step(learning_rate, self._count)


class FusedThresholdLayer(FusedBlockLayer[AboveZero]):
    """A layer for the threshold rule."""


class FusedSignedLayer(FusedBlockLayer[SignedAbove]):
    """A layer for signed masks."""

    def _of_part(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        given = self._optimizer, scores, state, gradients, masked
        return FusedStep(*given, tau=self._rule.tau)


class FusedMagnitudeLayer(FusedBlockLayer[R]):
    """A layer for a rule by |score|. It stores magnitudes of scores (magnitude_steps.py)."""

    def __init__(
        self,
        tensor: MaskedTensor,
        scores: Float[np.ndarray, "B O ..."],
        signs: np.ndarray,
        method: PlaneMethod,
        optimizer: Optimizer,
        dtype: torch.dtype,
        device: torch.device,
        magnitudes: Float[np.ndarray, "_ O I"] | None = None,
    ) -> None:
        given = method, optimizer, dtype, device, magnitudes
        super().__init__(tensor, np.abs(scores), signs, *given)


class FusedTopShareLayer(FusedMagnitudeLayer[TopShares]):
    """A layer for coats of the largest |score|, which are found for each task separately."""

    by_task = True

    def _of_part(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        coats = list(zip(self._rule.num_kept, self._rule.gains, strict=True))
        given = self._optimizer, scores, state, gradients, masked
        return TopShareStep(*given, coats, self._rule.slope)


class FusedGroupsLayer(FusedMagnitudeLayer[TopOfGroups]):
    """A layer for N:M sparsity, with scores (B, O, I)."""

    def _of_part(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        rule, given = self._rule, (self._optimizer, scores, state, gradients, masked)
        return TopOfGroupsStep(*given, n=rule.n, m=rule.m, last=rule.last, decay=rule.decay)


# The layer class of each rule.
FUSED: Mapping[type[FastRule], Callable[..., BlockLayer]] = {
    AboveZero: FusedThresholdLayer,
    SignedAbove: FusedSignedLayer,
    TopShares: FusedTopShareLayer,
    TopOfGroups: FusedGroupsLayer,
}


def layer_form(
    method: PlaneMethod, tensor: MaskedTensor, device: torch.device
) -> Callable[..., BlockLayer]:
    """Return the class of the layer of a masked tensor, for a finder and a device.

    On the CPU, this is the class in FUSED for the finder's rule, or BlockLayer if no fast form of
    the rule exists. On a GPU, it is BlockLayer. (ResidentTrainer, the trainer for GPUs, has layers
    of its own.)
    """
    rule = method.fast_rule(tensor)
    return BlockLayer if rule is None or device.type != "cpu" else FUSED[type(rule)]
