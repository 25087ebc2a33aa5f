"""The matrix products of a block's training step, without the rest of the step.

Shape letters: O outputs and I inputs of a layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch


@dataclass(frozen=True)
class Product:
    """A matrix product.

    Attributes:
        compute: a function without arguments that computes the product.
        operations: number of multiplications and additions.
    """

    compute: Callable[[], object]
    operations: int


def step_products(
    widths: Sequence[int],
    block: int,
    num_images: int,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> list[Product]:
    """Make the matrix products of a block's training step, with matrices of ones.

    The products are the forward pass, the gradient of the weights and the gradient of the
    activations. All tasks share the images of the first layer; see layers.py.

    Args:
        widths: number of units in each layer, from the inputs to the outputs.
        block: number of tasks in the block.
        num_images: number of images in a batch.
        dtype: dtype of the matrices.
        device: device of the matrices; None means the CPU.
    """

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=dtype, device=device)

    layers = list(pairwise(widths))
    images = ones(widths[0], num_images)
    # The activations of a layer, and the gradients in them, have the same shape.
    x = [ones(block, width, num_images) for width in widths[1:]]
    w = [ones(block, o, i) for i, o in layers]
    flat_w, flat_delta = w[0].flatten(0, 1), x[0].flatten(0, 1)
    found = [
        (0, partial(torch.mm, flat_w, images)),
        (0, partial(torch.mm, flat_delta, images.t())),
    ]
    for i in range(1, len(layers)):
        found += [
            (i, partial(torch.bmm, w[i], x[i - 1])),
            (i, partial(torch.bmm, x[i], x[i - 1].transpose(1, 2))),
            (i, partial(torch.bmm, w[i].transpose(1, 2), x[i])),
        ]
    return [Product(one, 2 * w[i].numel() * num_images) for i, one in found]
