"""A block of tasks in training: its inputs, the pass forward and back, its scores.

The block works on sign masks: weights are +-c, so with m = mask * sign and ReLU
the logits are C m_L relu(... m_1 x) with C the product of the layers' constants.
Every product is then one of numbers 0, +1 and -1, exact in bfloat16. Activations
are feature-major, (B, units, N).

Tasks that see the same images share each batch. If they are permutations, the
permutation moves from the images to the columns of the first layer, whose
products for the whole block become a single one.

Shape letters: B tasks of the block, N images of a batch, P pixels, O and I as in
a layer, S outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from supsup_core.kernels.cross_entropy import logit_gradient_for
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import KeepMethod
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.optimizers import FusedStep, Optimizer
from supsup_core.training.top_share_step import TopShareStep

Step = FusedStep | TopShareStep


def _product(masked: Float[Tensor, "B O I"], x: Tensor) -> Float[Tensor, "B O N"]:
    """Masked @ x; one single product where x (I, N) is shared by the block."""
    if x.dim() == 2:
        return (masked.flatten(0, 1) @ x).view(*masked.shape[:2], -1)
    return torch.bmm(masked, x)


def _weight_gradient(delta: Float[Tensor, "B O N"], x: Tensor) -> Float[Tensor, "B O I"]:
    """Delta @ x^T, summed over images; one single product where x (I, N) is shared."""
    if x.dim() == 2:
        return (delta.flatten(0, 1) @ x.t()).view(*delta.shape[:2], -1)
    return torch.bmm(delta, x.transpose(1, 2))


def backpropagate(
    masked: Sequence[Float[Tensor, "B _ _"]],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    scale: float,
) -> Iterator[tuple[int, Float[Tensor, "B O N"], Tensor]]:
    """Run forward, then hand out what each layer needs to learn, the last layer first.

    Args:
        masked: sign * mask of each layer.
        x: (I, N) shared by the block, or (B, I, N).
        labels: the class of every image.
        scale: C, the product of the layers' constants.

    Yields:
        The layer's index, what the mean cross-entropy sends back to its outputs, and
        its inputs. `masked` of this layer is not read any more, and may change.
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
            delta = torch.ops.aten.threshold_backward(delta, activations[i], 0)  # ReLU's
        yield i, received, activations[i]


def sign_mask_gradients(
    masked: Sequence[Float[Tensor, "B _ _"]],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    scale: float,
) -> list[Float[Tensor, "B _ _"]]:
    """Gradients of the mean cross-entropy in the masked signs; arguments as above."""
    passed = backpropagate(masked, x, labels, scale)
    return [_weight_gradient(delta, inputs) for _, delta, inputs in passed][::-1]


class BlockLayer:
    """One layer's scores of every task of a block, and the masked signs that follow.

    Args:
        tensor: the masked tensor.
        scores: to start from, (B, O, I).
        signs: of the weights, +1 and -1, (B, O, I).
        method: the mask rule.
        optimizer: of the scores.
        dtype: of the products; scores are at least float32.
        device: where.

    Attributes:
        masked: sign * mask, in dtype.
    """

    def __init__(
        self,
        tensor: MaskedTensor,
        scores: Float[np.ndarray, "B O I"],
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
        """Step down the gradient delta @ x^T, x as in backpropagate."""
        self._count += 1
        self._move(delta, x, learning_rate)

    def _move(self, delta: Tensor, x: Tensor, learning_rate: float) -> None:
        constants = self._optimizer.constants(learning_rate, self._count)
        self._step(_weight_gradient(delta, x), constants)

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
        """Take one step in torch operations; arithmetic is in the scores' type.

        Args:
            scores: changed in place.
            state: the optimiser's, changed in place.
            gradients: d loss / d masked sign.
            masked: overwritten with the signs that stay.
            constants: of this step, numbers or tensors of no dimension.
        """
        signs = self._optimizer.signs(state)
        slope = self._method.slope(self._tensor, scores)
        self._optimizer.move(scores, state, gradients.to(scores.dtype) * signs * slope, constants)
        masked.copy_(signs * self._method.mask(self._tensor, scores))

    def masks(self) -> Bool[np.ndarray, "B O I"]:
        """The masks now."""
        return self._method.mask(self._tensor, self._scores).cpu().numpy()


class CompiledBlockLayer(BlockLayer):
    """The same for GPUs: torch.compile makes one kernel of the optimiser's step.

    The constants travel as tensors, since compiled code takes a number for a constant of
    its own and would be made anew for every learning rate. It is made for every shape:
    each layer's, in whole blocks and in the last one.
    """

    backend = "inductor"
    max_shapes = 64

    @cached_property
    def _compiled(self) -> Callable[..., None]:
        compiled: Callable[..., None] = torch.compile(  # type: ignore[call-overload]
            self._advance,
            fullgraph=True,
            dynamic=False,
            backend=self.backend,
            recompile_limit=self.max_shapes,
        )
        return compiled

    def _step(self, gradients: Tensor, constants: Iterable[Any]) -> None:
        numbers = torch.tensor(list(constants), dtype=self._scores.dtype, device=gradients.device)
        self._compiled(self._scores, self._state, gradients, self.masked, numbers.unbind())


class FusedBlockLayer(BlockLayer):
    """The same in one pass on the CPU, for the threshold rule.

    Where the block shares its inputs (the first layer, three quarters of LeNet's
    weights) it goes task by task: the gradient then lies in a buffer that stays in the
    cache, and scores, squares and masked signs are all the memory that a step moves.
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
        """Make a step for each task of the block."""
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


class FusedTopShareLayer(FusedBlockLayer):
    """The same for edge-popup: scores are stored as magnitudes (top_share_step.py).

    Each task keeps a share of its own scores, so every step is one task's.
    """

    def __init__(
        self,
        tensor: MaskedTensor,
        scores: Float[np.ndarray, "B O I"],
        signs: np.ndarray,
        method: EdgePopup,
        optimizer: Optimizer,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(tensor, np.abs(scores), signs, method, optimizer, dtype, device)
        self._num_kept = method.num_kept(tensor)

    @cached_property
    def _at_once(self) -> tuple[Tensor, list[Step]]:
        gradients = torch.empty_like(self.masked)
        return gradients, self._each(gradients)

    def _of_task(
        self, scores: Tensor, state: tuple[Tensor, ...], gradients: Tensor, masked: Tensor
    ) -> Step:
        optimizer, num_kept = self._optimizer, self._num_kept
        return TopShareStep(optimizer, scores, state, gradients, masked, num_kept)


# Finders with a step of their own in one pass; one that derives from them is another rule.
FUSED: Mapping[type[KeepMethod], Callable[..., BlockLayer]] = {
    Threshold: FusedBlockLayer,
    EdgePopup: FusedTopShareLayer,
}


def layer_form(method: KeepMethod, device: torch.device) -> Callable[..., BlockLayer]:
    """Choose: fused on the CPU where a finder has it, compiled on a GPU that can, else plain."""
    if device.type == "cpu":
        return FUSED.get(type(method), BlockLayer)
    if device.type == "cuda" and find_spec("triton"):
        return CompiledBlockLayer
    return BlockLayer
