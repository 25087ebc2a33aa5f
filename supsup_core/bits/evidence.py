"""Compute the evidence of each query: one number per weight, from one backward pass.

Mask M_i has the coefficient alpha_i in the superposition. The slope of this coefficient is

    d objective / d alpha_i = sum over layers <(d objective / d W_eff) * W, M_i>

W are the fixed weights and W_eff the effective weights of the superposition. <A, B> is the sum of
the products of the elements of A and B. The first factor, (d objective / d W_eff) * W, is the
evidence. It is the same for all masks. So one backward pass is enough for all slopes. Each mask
then needs one product of the evidence and the mask's bits.

d objective / d W_eff is the outer product of a layer's deltas and the layer's inputs. (Deltas are
the derivatives of the objective with respect to the pre-activations.) The evidence is stored as
these two factors. A unit with a delta of zero has no evidence. For one image, about half of the
first layer's units have a delta of zero. A black pixel has no evidence either, after the ground b
is subtracted from the inputs x:

    x = b + (x - b),  so  <delta x W, M> = delta b <W, M> + <delta (x - b) W, M>

<W, M> does not depend on the query. For a query of one image, b is the darkest value of that
image, so the second term is zero wherever the image is black.

Shape letters: Q queries, K images of a query, P pixels, O outputs and I inputs of a layer,
U chosen units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from supsup_core.bits.transposed import UnitValues
from supsup_core.inference.backward import backward_factors
from supsup_core.inference.objectives import Objective


@dataclass(frozen=True)
class Size:
    """Statistics of an array of real values: how many are not zero, and how large they are.

    Attributes:
        count: number of values that are not zero.
        absolute: sum of the absolute values.
        squares: sum of the squares.
        largest: largest absolute value, 0 for an empty array.
    """

    count: int
    absolute: float
    squares: float
    largest: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Size":
        """Compute the statistics of an array."""
        absolute = np.abs(values)
        return cls(
            int(np.count_nonzero(values)),
            float(absolute.sum(dtype=np.float64)),
            float(np.vdot(values, values)),
            float(absolute.max(initial=0.0)),
        )

    def __mul__(self, other: "Size") -> "Size":
        """Return the statistics of the outer product of two arrays.

        `self` and `other` are the statistics of the two arrays.
        """
        return Size(
            self.count * other.count,
            self.absolute * other.absolute,
            self.squares * other.squares,
            self.largest * other.largest,
        )

    def __add__(self, other: "Size") -> "Size":
        """Return the statistics of all values of two arrays together.

        `self` and `other` are the statistics of the two arrays.
        """
        return Size(
            self.count + other.count,
            self.absolute + other.absolute,
            self.squares + other.squares,
            max(self.largest, other.largest),
        )


@dataclass(frozen=True)
class LayerEvidence:
    """The evidence of one query in one layer, stored as two factors.

    The query has K images, and the layer has I inputs and O outputs. The evidence (O, I) is
    (deltas^T @ received) * weights.

    Attributes:
        deltas: (K, O) derivatives of the objective with respect to the layer's pre-activations.
        received: (K, I) inputs of the layer.
        ground: a number that the method `values` subtracts from `received`. In the first layer, it
            is the darkest value of the query's image, if the query has one image. Otherwise 0.
        weights: (O, I) fixed weights, each +c or -c.
        first: index of the layer's first bit in a packed row.
    """

    deltas: Float32[np.ndarray, "K O"]
    received: Float32[np.ndarray, "K I"]
    ground: float
    weights: Float32[np.ndarray, "O I"]
    first: int

    @property
    def constant(self) -> float:
        """The number c: every weight of the layer is +c or -c."""
        return abs(float(self.weights[0, 0]))

    def live(self) -> Int64[np.ndarray, " U"]:
        """Return the indices of the units that have evidence (a delta that is not zero)."""
        return np.flatnonzero(self.deltas.any(axis=0))

    def values(self, units: Int64[np.ndarray, " U"]) -> UnitValues:
        """Return the evidence of some units, after the ground is subtracted from the inputs.

        Inputs without evidence are left out.

        Args:
            units: (U,) indices of the units.
        """
        received = self._above_ground()
        inputs = np.flatnonzero(received.any(axis=0))
        outer = self._outer(units, received[:, inputs])
        return UnitValues(outer, self.weights, units, inputs, self.first)

    def outer(self, units: Int64[np.ndarray, " U"]) -> Float32[np.ndarray, "U I"]:
        """Return the evidence of some units before it is multiplied by the weights.

        The ground is not subtracted.

        Args:
            units: (U,) indices of the units.

        Returns:
            (U, I) the rows of the matrix deltas^T @ received that belong to these units.
        """
        return self._outer(units, self.received)

    def size(self, values: UnitValues) -> Size:
        """Compute statistics of the layer's evidence, after the ground is subtracted.

        Args:
            values: the result of `self.values(self.live())`.
        """
        constant = Size(1, self.constant, self.constant**2, self.constant)
        if len(self.deltas) > 1:
            return constant * Size.of(values.outer)
        return constant * Size.of(self.deltas) * Size.of(self._above_ground())

    def energies(self) -> Float64[np.ndarray, " O"]:
        """Square the evidence of each weight, and sum the squares over the weights of each unit.

        The ground is not subtracted from the inputs.

        Returns:
            (O,) one sum for each of the layer's O units.
        """
        deltas = self.deltas.astype(np.float64)
        received = self.received.astype(np.float64)
        between = received @ received.T
        return np.asarray(self.constant**2 * (deltas * (between @ deltas)).sum(axis=0))

    def ground_factors(self, units: Int64[np.ndarray, " U"]) -> Float64[np.ndarray, " U"]:
        """Compute one factor per unit, for the part of the evidence that comes from the ground.

        A mask keeps some weights of a unit. The sum of the signs (+1 or -1) of these weights,
        times the unit's factor, is the number that the ground adds to the product of the evidence
        and the mask.

        Args:
            units: (U,) indices of the units.
        """
        return np.asarray(
            self.constant * self.ground * self.deltas[:, units].sum(axis=0, dtype=np.float64)
        )

    def _above_ground(self) -> Float32[np.ndarray, "K I"]:
        return self.received - np.float32(self.ground) if self.ground else self.received

    def _outer(self, units: np.ndarray, received: np.ndarray) -> np.ndarray:
        deltas = self.deltas[:, units]
        # Most queries have one image, and an outer product is faster than a matrix product.
        outer = deltas[0][:, None] * received if len(deltas) == 1 else deltas.T @ received
        return np.asarray(outer)


@dataclass(frozen=True)
class Evidence:
    """The evidence of one query.

    Attributes:
        layers: one entry for each layer that the objective uses, from input to output.
    """

    layers: tuple[LayerEvidence, ...]


def backward(
    weights: Sequence[Float32[Tensor, "_ _"]],
    effective: Sequence[Float32[Tensor, "_ _"]],
    firsts: Sequence[int],
    images: Float32[Tensor, "Q K P"],
    objective: Objective,
    num_real: int,
) -> list[Evidence]:
    """Compute the evidence of queries: one forward and one backward pass, on the CPU.

    Args:
        weights: for each layer, the fixed weights (O, I). Each weight of a layer is +c or -c.
        effective: for each layer, the effective weights (O, I) of the superposition.
        firsts: for each layer, the index of the layer's first bit in a packed row.
        images: (Q, K, P) normalised images: Q queries, and each query has K images of one task.
        objective: the objective. The objective of a query is the mean over the query's images.
        num_real: number of outputs that belong to a class.

    Returns:
        The evidence of each query, in the order of `images`.

    Raises:
        FloatingPointError: an image or a derivative contains NaN or infinity.
    """
    num_queries, num_images = images.shape[:2]
    factors = backward_factors(effective, images, objective, num_real)
    if not all(bool(torch.isfinite(part).all()) for part in (images, *(f.deltas for f in factors))):
        raise FloatingPointError(
            "evidence must be finite, got NaN or infinity: check the images and the weights"
        )
    num_layers = 1 if objective.first_layer_only else len(weights)
    sent = [layer.deltas.numpy() for layer in factors[:num_layers]]
    came = [layer.received.numpy() for layer in factors[:num_layers]]
    fixed = [weight.numpy() for weight in weights]
    found = []
    for q in range(num_queries):
        layers = []
        for i in range(num_layers):
            # A sum over several images is rounded, and subtracting the ground would change the
            # rounding. So only queries of one image have a ground.
            ground = float(came[i][q].min()) if i == 0 and num_images == 1 else 0.0
            layers.append(LayerEvidence(sent[i][q], came[i][q], ground, fixed[i], firsts[i]))
        found.append(Evidence(tuple(layers)))
    return found
