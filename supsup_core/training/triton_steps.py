"""The parts of a training step of many tasks as Triton kernels; see triton_kernels.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from supsup_core.methods.rules import AboveZero, SignedAbove, TopShares
from supsup_core.states.layout import PlaneSpec
from supsup_core.training.resident_steps import Feed, PlainSteps, ResidentLayer
from supsup_core.training.triton_draw import draw_kernel
from supsup_core.training.triton_kernels import (
    back_kernel,
    forward_kernel,
    learn_kernel,
    logit_gradient_kernel,
    pick_kernel,
)
from supsup_core.training.triton_moves import MOVES

# The sizes of the tiles that one program computes: outputs, inputs, and images. For float32, the
# dimension that is summed is halved, so that the tiles fit into the shared memory of small GPUs.
_FORWARD_TILE = (64, 64, 128)
_FORWARD_TILE_FLOAT32 = (64, 32, 128)
_LEARN_TILE = (64, 64, 64)
_LEARN_TILE_FLOAT32 = (64, 64, 32)
_OUTPUTS_AT_ONCE, _IMAGES_AT_ONCE = 128, 64  # tile of logit_gradient_kernel
_PIXELS_AT_ONCE = 1024
_MOST_INT8 = 127


@dataclass(frozen=True)
class _Rule:
    """The work of learn_kernel for a rule of finders.

    Attributes:
        masks: whether the kernel writes the masked signs: the sign of the weight if the score is
            not negative, otherwise 0. If not, they are computed with torch after the kernel.
        by_magnitude: whether the gradient of a score is multiplied by the score's sign.
        slope: the magnitude of d gain / d score.
    """

    masks: bool = False
    by_magnitude: bool = False
    slope: float = 1.0


class TritonSteps(PlainSteps):
    """The parts of a training step as Triton kernels; see PlainSteps for the methods.

    The tensors are float32 or bfloat16. Masked signs that are whole numbers are stored in one byte.
    Finders that have no kernel, and recipes with weight decay, take the step of the optimiser with
    torch.
    """

    def masked_dtype(self, dtype: torch.dtype, planes: Sequence[PlaneSpec]) -> torch.dtype:
        """Return int8 if all masked signs are small whole numbers; see PlainSteps."""
        coefficients = [plane.coefficient for plane in planes]
        is_whole = all(float(each).is_integer() for each in coefficients)
        return torch.int8 if is_whole and sum(map(abs, coefficients)) <= _MOST_INT8 else dtype

    def scratch_bytes(self, layer: ResidentLayer) -> int:
        """Return 0 if a kernel uses each gradient without storing it; see PlainSteps."""
        if _rule_of(layer) is not None:
            return 0
        return layer.masked.numel() * layer.scores.element_size()

    def pick(self, feed: Feed, out: Tensor) -> None:
        """Write the normalised images of the current step; see PlainSteps.pick."""
        num_groups, num_images, num_values = out.shape
        scale, shift = 1 / (255 * feed.std), feed.mean / feed.std
        grid = (num_groups * num_images, triton.cdiv(num_values, _PIXELS_AT_ONCE))
        sources = feed.images if feed.sources is None else feed.sources
        pick_kernel[grid](
            feed.images,
            feed.table,
            feed.step,
            sources,
            out,
            scale,
            shift,
            PIXELS=feed.images.shape[1],
            VALUES=num_values,
            IMAGES=num_images,
            CHOOSES=feed.sources is not None,
            BLOCK=_PIXELS_AT_ONCE,
        )

    def forward(self, masked: Tensor, x: Tensor, out: Tensor, *, relu: bool) -> None:
        """Write the outputs of a layer; see PlainSteps.forward."""
        num_tasks, num_outputs, num_inputs = masked.shape
        num_images = x.shape[2]
        o, i, n = _FORWARD_TILE_FLOAT32 if x.dtype == torch.float32 else _FORWARD_TILE
        grid = (num_tasks * triton.cdiv(num_outputs, o) * triton.cdiv(num_images, n),)
        forward_kernel[grid](
            masked,
            x,
            out,
            num_tasks // len(x),
            x.stride(0),
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=num_images,
            x_input=x.stride(1),
            x_image=x.stride(2),
            RELU=relu,
            PRECISION=_precision(x),
            BO=o,
            BI=i,
            BN=n,
        )

    def logit_gradient(self, logits: Tensor, feed: Feed, scale: float) -> None:
        """Replace the logits by the gradient of the loss; see PlainSteps.logit_gradient."""
        num_tasks, num_outputs, num_images = logits.shape
        num_groups = feed.table.shape[1]
        grid = (num_tasks * triton.cdiv(num_images, _IMAGES_AT_ONCE),)
        logit_gradient_kernel[grid](
            logits,
            feed.labels,
            feed.table,
            feed.step,
            num_tasks // num_groups,
            num_groups,
            scale,
            OUTPUTS=num_outputs,
            IMAGES=num_images,
            BS=_OUTPUTS_AT_ONCE,
            BN=_IMAGES_AT_ONCE,
        )

    def back(self, masked: Tensor, delta: Tensor, active: Tensor, out: Tensor) -> None:
        """Write the gradient with respect to a layer's inputs; see PlainSteps.back."""
        num_tasks, num_outputs, num_inputs = masked.shape
        num_images = delta.shape[2]
        i, o, n = _FORWARD_TILE_FLOAT32 if delta.dtype == torch.float32 else _FORWARD_TILE
        grid = (num_tasks * triton.cdiv(num_inputs, i) * triton.cdiv(num_images, n),)
        back_kernel[grid](
            masked,
            delta,
            active,
            out,
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=num_images,
            PRECISION=_precision(delta),
            BO=o,
            BI=i,
            BN=n,
        )

    def learn(self, layer: ResidentLayer, delta: Tensor, x: Tensor, feed: Feed) -> None:
        """Take a step of the optimiser; see PlainSteps.learn."""
        rule = _rule_of(layer)
        if rule is None:
            super().learn(layer, delta, x, feed)
            return
        num_tasks, num_outputs, num_inputs = layer.masked.shape
        first, *others = layer.state
        o, i, n = _LEARN_TILE_FLOAT32 if x.dtype == torch.float32 else _LEARN_TILE
        grid = (num_tasks * triton.cdiv(num_outputs, o) * triton.cdiv(num_inputs, i),)
        learn_kernel[grid](
            delta,
            x,
            layer.scores,
            first,
            others[0] if others else first,
            layer.masked,
            feed.constants,
            feed.step,
            num_tasks // len(x),
            x.stride(0),
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=x.shape[2],
            x_input=x.stride(1),
            x_image=x.stride(2),
            MOVE=MOVES[layer.optimizer.name],
            NUM_CONSTANTS=feed.constants.shape[1],
            HAS_SECOND=bool(others),
            BY_MAGNITUDE=rule.by_magnitude,
            SLOPE=rule.slope,
            MASKS=rule.masks,
            PRECISION=_precision(x),
            BO=o,
            BI=i,
            BN=n,
        )
        if not rule.masks:
            layer.choose()

    def draw(self, keys: np.ndarray, bound: float, sources: Tensor | None, out: Tensor) -> None:
        """Draw the first scores on the device; see PlainSteps.draw."""
        num_tasks, num_outputs, num_inputs = out.shape
        block = 1024
        words = torch.from_numpy(keys.view(np.int64)).to(out.device)
        grid = (triton.cdiv(num_outputs * num_inputs, block), num_tasks)
        draw_kernel[grid](
            words,
            words if sources is None else sources,
            out,
            bound,
            VALUES=num_outputs * num_inputs,
            INPUTS=num_inputs,
            REORDERS=sources is not None,
            BLOCK=block,
        )


def _rule_of(layer: ResidentLayer) -> _Rule | None:
    """Return the work of learn_kernel for the finder of a layer; None if there is no kernel."""
    if layer.optimizer.weight_decay:
        return None
    match layer.method.fast_rule(layer.tensor):
        case AboveZero():
            return _Rule(masks=True)
        case SignedAbove():
            return _Rule()
        case TopShares() as rule:
            return _Rule(by_magnitude=True, slope=rule.slope)
    return None


def _precision(values: Tensor) -> str:
    # For bfloat16, the products of a dot are exact. For float32, "ieee" turns off TF32.
    return "ieee" if values.dtype == torch.float32 else "tf32"
