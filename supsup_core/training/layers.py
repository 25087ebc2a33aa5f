"""The layers of a block in training: forward pass, backward pass, and steps of the scores.

The block computes with masked signs m = gain * sign instead of masked weights. The weights of a
layer are +c or -c. With L layers and ReLU between them, the logits for an input x are therefore
C m_L relu(... relu(m_1 x)), and C is the product of the layers' constants c. With gains of 0 and 1,
the masked signs are 0, +1 and -1, which are exact in bfloat16. Activations have the shape
(B, units, N). fused_layers.py has faster forms of the steps for some finders.

If the kept weights of a layer have a scale g (methods/rules.py: Scaling), m has no scale, and C has
the factor g: relu(g z) is g relu(z), because g is positive. So the gradient with respect to the
gains of g and 0 is the gradient with respect to m, divided by g.

If tasks have the same images, they share each batch. If the tasks are permutations, the columns of
the first layer are permuted instead of the images. The first layer of the whole block is then a
single matrix product.

Shape letters: B tasks of the block, N images of a batch, O outputs and I inputs of a layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from supsup_core.kernels.cross_entropy import logit_gradient_for
from supsup_core.kernels.means import means_of_kept_plain
from supsup_core.methods.planes import PlaneMethod
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.optimizers import Optimizer


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
    scales: Float64[Tensor, " B"],
) -> Iterator[tuple[int, Float[Tensor, "B O N"], Tensor]]:
    """Run the forward pass of B tasks, then yield gradients layer by layer, the last layer first.

    Args:
        masked: for each layer, the masked signs (B, outputs, inputs).
        x: the inputs of the first layer for N images: (inputs, N) if the tasks share the images,
            otherwise (B, inputs, N).
        labels: (B, N) classes of the images.
        scales: (B,) the factor of each task's logits; see layer_gradients.

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
    delta = logit_gradient_for(z.dtype, z.device)(z, labels, scales)
    for i in reversed(range(len(masked))):
        received = delta
        if i:
            delta = torch.bmm(masked[i].transpose(1, 2), received)
            delta = torch.ops.aten.threshold_backward(delta, activations[i], 0)  # of ReLU
        yield i, received, activations[i]


def score_gradients(
    method: PlaneMethod, tensor: MaskedTensor, scores: Tensor, gradients: Tensor, signs: Tensor
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


def layer_gradients(
    layers: Sequence["BlockLayer"],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    constant: float,
) -> Iterator[tuple[int, Float[Tensor, "B O N"], Tensor]]:
    """Run `backpropagate` for the layers of a block.

    The factor of a task's logits is the constant, times the scales of the task in all layers.

    Args:
        layers: all layers of the block.
        x: see backpropagate.
        labels: see backpropagate.
        constant: the product of the layers' constants, divided by the recipe's temperature.
    """
    masked = [layer.masked for layer in layers]
    scales = torch.full((len(labels),), constant, dtype=torch.float64, device=x.device)
    for layer in layers:
        if layer.scale is not None:
            scales *= layer.scale
    return backpropagate(masked, x, labels, scales)


class BlockLayer:
    """One layer of a block of B tasks: the scores, and the masked signs computed from the scores.

    Args:
        tensor: the masked tensor.
        scores: (B, O, I) the first scores; O and I are the layer's numbers of outputs and inputs.
            If the caller uses only `learn_from`, the layer may also have other axes after O.
        signs: signs of the weights, +1 and -1, in the shape of the scores.
        method: the finder, which computes gains from scores.
        optimizer: the optimiser of the scores.
        dtype: dtype of the masked signs and of the matrix products. The dtype of the scores is
            float32 or more precise.
        device: device of all tensors.
        magnitudes: (B or 1, O, I) the magnitudes of the weights, if the kept weights have a scale.

    Attributes:
        masked: masked signs, sign * gain, in the shape of the scores. They have no scale.
        scale: (B,) the scale of each task's kept weights; None without magnitudes.
    """

    _means = staticmethod(means_of_kept_plain)

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
        accurate = torch.promote_types(dtype, torch.float32)
        self._tensor, self._method = tensor, method
        self._optimizer, self._count = optimizer, 0
        self._scores = torch.tensor(scores, dtype=accurate, device=device)
        of_weights = torch.tensor(signs, dtype=accurate, device=device)
        self._state = optimizer.begin(of_weights)
        self.masked = (of_weights * method.gain_of(tensor, self._scores)).to(dtype)
        self._magnitudes: Tensor | None = None
        if magnitudes is not None:
            own = torch.tensor(magnitudes, dtype=accurate, device=device)
            self._magnitudes = own.expand(self._scores.shape)
        self.scale = self._mean_magnitude()

    def learn(self, delta: Float[Tensor, "B O N"], x: Tensor, learning_rate: float) -> None:
        """Take one step of the optimiser: change the scores and the masked signs.

        Args:
            delta: (B, O, N) gradient with respect to the layer's outputs, from `layer_gradients`.
            x: the layer's inputs, from `layer_gradients`.
            learning_rate: the learning rate of the step.
        """
        self._count += 1
        self._move(self._of_gains(delta), x, learning_rate)
        self.scale = self._mean_magnitude()

    def learn_from(self, gradients: Float[Tensor, "B O ..."], learning_rate: float) -> None:
        """Take one step of the optimiser: change the scores and the masked signs.

        Args:
            gradients: d loss / d masked sign.
            learning_rate: the learning rate of the step.
        """
        self._count += 1
        self._move_by(self._of_gains(gradients), learning_rate)
        self.scale = self._mean_magnitude()

    def _of_gains(self, gradients: Tensor) -> Tensor:
        """Divide gradients (B, O, ...) by the scales of the tasks."""
        if self.scale is None:
            return gradients
        scale = self.scale.view(-1, *(1 for _ in gradients.shape[1:]))
        return (gradients / scale.to(self._scores.dtype)).to(gradients.dtype)

    def _mean_magnitude(self) -> Float64[Tensor, " B"] | None:
        """Compute the scale of each task: the mean magnitude of the kept weights."""
        if self._magnitudes is None:
            return None
        return self._means(self._magnitudes, self.masked)

    def _move(self, delta: Tensor, x: Tensor, learning_rate: float) -> None:
        self._move_by(_weight_gradient(delta, x), learning_rate)

    def _move_by(self, gradients: Tensor, learning_rate: float) -> None:
        if self._magnitudes is not None:
            gradients = (gradients * self._magnitudes).to(gradients.dtype)
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
        masked.copy_(signs * self._method.gain_of(self._tensor, scores))

    def planes(self) -> list[Bool[np.ndarray, "B O ..."]]:
        """Compute the planes of all tasks from the current scores; see PlaneMethod.choose."""
        return [bits.cpu().numpy() for bits in self._method.choose(self._tensor, self._scores)]
