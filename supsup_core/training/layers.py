"""The layers of a block in training: forward pass, backward pass, and steps of the scores.

The block computes with masked signs m = mask * sign instead of masked weights. The weights of a
layer are +c or -c. With L layers and ReLU between them, the logits for an input x are therefore
C m_L relu(... relu(m_1 x)), and C is the product of the layers' constants c. The masked signs are
0, +1 and -1, which are exact in bfloat16. Activations have the shape (B, units, N).

If tasks have the same images, they share each batch. If the tasks are permutations, the columns of
the first layer are permuted instead of the images. The first layer of the whole block is then a
single matrix product.

Shape letters: B tasks of the block, N images of a batch, O outputs and I inputs of a layer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from supsup_core.kernels.cross_entropy import logit_gradient_for
from supsup_core.methods.protocol import FastRule, KeepMethod
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.optimizers import FusedStep, Optimizer
from supsup_core.training.top_share_step import TopShareStep

Step = FusedStep | TopShareStep


def _product(masked: Float[Tensor, "B O I"], x: Tensor) -> Float[Tensor, "B O N"]:
    """Compute masked @ x for B tasks. If the tasks share x (I, N), this is one matrix product."""
    if x.dim() == 2:
        return (masked.flatten(0, 1) @ x).view(*masked.shape[:2], -1)
    return torch.bmm(masked, x)


def _weight_gradient(delta: Float[Tensor, "B O N"], x: Tensor) -> Float[Tensor, "B O I"]:
    """Compute delta @ x^T for B tasks. If the tasks share x (I, N), this is one matrix product."""
    if x.dim() == 2:
        return (delta.flatten(0, 1) @ x.t()).view(*delta.shape[:2], -1)
    return torch.bmm(delta, x.transpose(1, 2))


def backpropagate(
    masked: Sequence[Float[Tensor, "B _ _"]],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    scale: float,
) -> Iterator[tuple[int, Float[Tensor, "B O N"], Tensor]]:
    """Run the forward pass of B tasks, then yield gradients layer by layer, the last layer first.

    Args:
        masked: for each layer, the masked signs (B, outputs, inputs).
        x: the inputs of the first layer for N images: (inputs, N) if the tasks share the images,
            otherwise (B, inputs, N).
        labels: (B, N) classes of the images.
        scale: the factor of the logits: the product of the layers' constants, divided by the
            temperature.

    Yields:
        For each layer: the layer's index, the gradient (B, outputs, N) and the layer's inputs. The
        gradient is that of the mean cross-entropy with respect to the layer's outputs before ReLU.
        After a layer is yielded, its masked signs may be changed, because this function does not
        read them again.
    """
    activations = [x]
    for i, layer in enumerate(masked):
        z = _product(layer, activations[-1])
        if i < len(masked) - 1:
            activations.append(z.relu_())
    delta = logit_gradient_for(z.dtype, z.device)(z, labels, scale)
    for i in reversed(range(len(masked))):
        received = delta
        if i:
            delta = torch.bmm(masked[i].transpose(1, 2), received)
            delta = torch.ops.aten.threshold_backward(delta, activations[i], 0)  # of ReLU
        yield i, received, activations[i]


def sign_mask_gradients(
    masked: Sequence[Float[Tensor, "B _ _"]],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    scale: float,
) -> list[Float[Tensor, "B _ _"]]:
    """Compute the gradients of the mean cross-entropy with respect to all masked signs.

    The arguments are those of `backpropagate`.

    Returns:
        One gradient per layer, (B, outputs, inputs). The first layer comes first.
    """
    passed = backpropagate(masked, x, labels, scale)
    return [_weight_gradient(delta, inputs) for _, delta, inputs in passed][::-1]


def score_gradients(
    method: KeepMethod, tensor: MaskedTensor, scores: Tensor, gradients: Tensor, signs: Tensor
) -> Tensor:
    """Compute d loss / d score from d loss / d masked sign, and add the finder's decay.

    Args:
        method: the finder.
        tensor: the masked tensor.
        scores: (B, O, ...) the scores of B tasks.
        gradients: d loss / d masked sign, in the shape of the scores.
        signs: signs of the weights, +1 and -1, in the shape of the scores.
    """
    own = gradients.to(scores.dtype) * signs * method.slope(tensor, scores)
    decay = method.decay(tensor, scores)
    return own if decay is None else own + decay


class BlockLayer:
    """One layer of a block of B tasks: the scores, and the masked signs computed from the scores.

    Args:
        tensor: the masked tensor.
        scores: (B, O, I) the first scores; O and I are the layer's numbers of outputs and inputs.
            If the caller uses only `learn_from`, the layer may also have other axes after O.
        signs: signs of the weights, +1 and -1, in the shape of the scores.
        method: the finder, which computes a mask from scores.
        optimizer: the optimiser of the scores.
        dtype: dtype of the masked signs and of the matrix products. The dtype of the scores is
            float32 or more precise.
        device: device of all tensors.

    Attributes:
        masked: masked signs, sign * mask, in the shape of the scores.
    """

    def __init__(
        self,
        tensor: MaskedTensor,
        scores: Float[np.ndarray, "B O ..."],
        signs: np.ndarray,
        method: KeepMethod,
        optimizer: Optimizer,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        accurate = torch.promote_types(dtype, torch.float32)
        self._tensor, self._method = tensor, method
        self._optimizer, self._count = optimizer, 0
        self._scores = torch.tensor(scores, dtype=accurate, device=device)
        of_weights = torch.tensor(signs, dtype=accurate, device=device)
        self._state = optimizer.begin(of_weights)
        self.masked = (of_weights * method.mask(tensor, self._scores)).to(dtype)

    def learn(self, delta: Float[Tensor, "B O N"], x: Tensor, learning_rate: float) -> None:
        """Take one step of the optimiser: change the scores and the masked signs.

        Args:
            delta: (B, O, N) gradient with respect to the layer's outputs, from `backpropagate`.
            x: the layer's inputs, from `backpropagate`.
            learning_rate: the learning rate of the step.
        """
        self._count += 1
        self._move(delta, x, learning_rate)

    def learn_from(self, gradients: Float[Tensor, "B O ..."], learning_rate: float) -> None:
        """Take one step of the optimiser: change the scores and the masked signs.

        Args:
            gradients: d loss / d masked sign.
            learning_rate: the learning rate of the step.
        """
        self._count += 1
        self._move_by(gradients, learning_rate)

    def _move(self, delta: Tensor, x: Tensor, learning_rate: float) -> None:
        self._move_by(_weight_gradient(delta, x), learning_rate)

    def _move_by(self, gradients: Tensor, learning_rate: float) -> None:
        self._step(gradients, self._optimizer.constants(learning_rate, self._count))

    def _step(self, gradients: Tensor, constants: Iterable[Any]) -> None:
        self._advance(self._scores, self._state, gradients, self.masked, constants)

    def _advance(
        self,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
        constants: Iterable[Any],
    ) -> None:
        """Take one step of the optimiser with torch, in the dtype of the scores.

        Args:
            scores: the scores, changed in place.
            state: the optimiser's state, changed in place.
            gradients: d loss / d masked sign.
            masked: the masked signs, overwritten.
            constants: the optimiser's constants for this step: numbers or 0-dimensional tensors.
        """
        signs = self._optimizer.signs(state)
        own = score_gradients(self._method, self._tensor, scores, gradients, signs)
        self._optimizer.move(scores, state, own, constants)
        masked.copy_(signs * self._method.mask(self._tensor, scores))

    def masks(self) -> Bool[np.ndarray, "B O ..."]:
        """Compute the masks of all tasks from the current scores."""
        return self._method.mask(self._tensor, self._scores).cpu().numpy()


class FusedBlockLayer(BlockLayer):
    """A BlockLayer for the threshold rule on the CPU: a step is one pass over memory.

    Memory, not arithmetic, limits the speed of a step. Therefore, if the tasks share the layer's
    inputs, a step handles one task after another. The gradient of one task stays in the cache. Then
    the step reads and writes only the scores, the optimiser's state and the masked signs in memory.
    With RMSprop and float32, these take at most 12 bytes per weight. The tasks share the inputs of
    the first layer, which has three quarters of LeNet's weights.
    """

    @cached_property
    def _by_task(self) -> tuple[Tensor, list[Step]]:
        gradient = torch.empty_like(self.masked[0])
        return gradient, self._each(gradient.expand_as(self.masked))

    @cached_property
    def _at_once(self) -> tuple[Tensor, list[Step]]:
        gradients = torch.empty_like(self.masked)
        step = FusedStep(self._optimizer, self._scores, self._state, gradients, self.masked)
        return gradients, [step]

    def _each(self, gradients: Tensor) -> list[Step]:
        """Make one object per task of the block. It takes the steps of the optimiser."""
        tasks = zip(
            self._scores, zip(*self._state, strict=True), gradients, self.masked, strict=True
        )
        return [self._of_task(*parts) for parts in tasks]

    def _of_task(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        return FusedStep(self._optimizer, scores, state, gradients, masked)

    def _move(self, delta: Tensor, x: Tensor, learning_rate: float) -> None:
        if x.dim() == 2:
            gradient, steps = self._by_task
            for received, step in zip(delta, steps, strict=True):
                torch.mm(received, x.t(), out=gradient)
                step.step(learning_rate, self._count)
        else:
            gradients, steps = self._at_once
            torch.bmm(delta, x.transpose(1, 2), out=gradients)
            for step in steps:
                step.step(learning_rate, self._count)

    def _move_by(self, gradients: Tensor, learning_rate: float) -> None:
        own, steps = self._at_once
        own.copy_(gradients)
        for step in steps:
            step.step(learning_rate, self._count)


class FusedTopShareLayer(FusedBlockLayer):
    """A FusedBlockLayer for edge-popup. The layer stores magnitudes of scores (top_share_step.py).

    A step always handles one task after another, because the largest scores must be found for each
    task separately.
    """

    def __init__(
        self,
        tensor: MaskedTensor,
        scores: Float[np.ndarray, "B O ..."],
        signs: np.ndarray,
        method: KeepMethod,
        optimizer: Optimizer,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(tensor, np.abs(scores), signs, method, optimizer, dtype, device)
        num_kept = method.num_kept(tensor)
        assert num_kept is not None, "a finder with the rule top_share must fix this number"
        self._num_kept = num_kept

    @cached_property
    def _at_once(self) -> tuple[Tensor, list[Step]]:
        gradients = torch.empty_like(self.masked)
        return gradients, self._each(gradients)

    def _of_task(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        optimizer, num_kept = self._optimizer, self._num_kept
        return TopShareStep(optimizer, scores, state, gradients, masked, num_kept)


# Rules that have a layer class of their own, in which a step is one pass over memory.
FUSED: Mapping[FastRule, Callable[..., BlockLayer]] = {
    "threshold": FusedBlockLayer,
    "top_share": FusedTopShareLayer,
}


def layer_form(method: KeepMethod, device: torch.device) -> Callable[..., BlockLayer]:
    """Return the class of the layers of a block, for a finder and a device.

    On the CPU, this is the class in FUSED for the finder's rule, or BlockLayer if no fast form of
    the rule exists. On a GPU, it is BlockLayer. (ResidentTrainer, the trainer for GPUs, has layers
    of its own.)
    """
    rule = method.fast_rule
    return BlockLayer if rule is None or device.type != "cpu" else FUSED[rule]
