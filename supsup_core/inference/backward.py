"""Compute the derivatives of an objective in an MLP: one forward and one backward pass.

d objective / d W_eff of a layer (W_eff: its effective weights) is the outer product of two factors:
the layer's deltas and the layer's inputs. Deltas are the derivatives of the objective with respect
to the pre-activations.

Shape letters: Q queries, K images of a query, P pixels, O outputs and I inputs of a layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float32
from torch import Tensor

from supsup_core.inference.objectives import Objective


class Factors(NamedTuple):
    """The two factors of d objective / d W_eff in one layer.

    Attributes:
        deltas: (Q, K, O) derivatives of the objective with respect to the pre-activations.
        received: (Q, K, I) inputs of the layer.
    """

    deltas: Float32[Tensor, "Q K O"]
    received: Float32[Tensor, "Q K I"]


def backward_factors(
    effective: Sequence[Float32[Tensor, "_ _"]],
    images: Float32[Tensor, "Q K P"],
    objective: Objective,
    num_real: int,
) -> list[Factors]:
    """Compute the two factors of d objective / d W_eff in each layer (W_eff: effective weights).

    The device of the weights computes them. The function does not wait for the device.

    Args:
        effective: for each layer, the effective weights (O, I) of the superposition.
        images: (Q, K, P) normalised images: Q queries, and each query has K images of one task.
        objective: the objective. The objective of a query is the mean over the query's images.
        num_real: number of outputs that belong to a class.

    Returns:
        The factors of every layer, from input to output. They may contain NaN or infinity.
    """
    received = [images.flatten(0, 1)]
    for weight in effective[:-1]:
        received.append((received[-1] @ weight.t()).relu_())
    delta = objective.gradient(received[-1] @ effective[-1].t(), num_real) / images.shape[1]
    deltas = [delta]
    for weight, x in zip(reversed(effective[1:]), reversed(received[1:]), strict=True):
        deltas.append((deltas[-1] @ weight).mul_(x > 0))
    deltas.reverse()
    shape = images.shape[:2]
    return [
        Factors(delta.unflatten(0, shape), x.unflatten(0, shape))
        for delta, x in zip(deltas, received, strict=True)
    ]
