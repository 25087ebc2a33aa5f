"""What one backward pass through a superposition says about every mask: the evidence.

    d objective / d alpha_i = sum over layers <(d objective / d W_eff) * W, M_i>

and d objective / d W_eff is the outer product of what a unit receives and the delta that
is sent back to it. So a query's evidence is kept as those factors: a unit whose delta is
zero has none (for one image about half of the first layer is dead), and neither has a pixel
that is black, once the images' ground is taken off:

    x = b + (x - b),  so  <delta x W, M> = delta b <W, M> + <delta (x - b) W, M>

where <W, M> does not depend on the query. With b the darkest value of a query of one image
the second term is zero wherever that image is black.

Shape letters: Q queries, K images of a query, P pixels, O and I outputs and inputs of a
layer, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from supsup_core.bits.transposed import UnitValues
from supsup_core.inference.objectives import Objective


@dataclass(frozen=True)
class Size:
    """How large real values are: their number, sums of absolutes and squares, the largest."""

    count: int
    absolute: float
    squares: float
    largest: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Size":
        """Of the values that are not zero."""
        absolute = np.abs(values)
        return cls(
            int(np.count_nonzero(values)),
            float(absolute.sum(dtype=np.float64)),
            float(np.vdot(values, values)),
            float(absolute.max(initial=0.0)),
        )

    def __mul__(self, other: "Size") -> "Size":
        """Of the outer product."""
        return Size(
            self.count * other.count,
            self.absolute * other.absolute,
            self.squares * other.squares,
            self.largest * other.largest,
        )

    def __add__(self, other: "Size") -> "Size":
        """Of both together."""
        return Size(
            self.count + other.count,
            self.absolute + other.absolute,
            self.squares + other.squares,
            max(self.largest, other.largest),
        )


@dataclass(frozen=True)
class LayerEvidence:
    """A query's evidence in one layer: values (O, I) = (deltas^T received) * weights.

    Attributes:
        deltas: d objective / d pre-activation, (K, O).
        received: by the layer, (K, I).
        ground: b above; 0 where there is none.
        weights: fixed, +-c, (O, I).
        first: where the layer's bits begin in a packed row.
    """

    deltas: Float32[np.ndarray, "K O"]
    received: Float32[np.ndarray, "K I"]
    ground: float
    weights: Float32[np.ndarray, "O I"]
    first: int

    @property
    def constant(self) -> float:
        """The magnitude of every weight."""
        return abs(float(self.weights[0, 0]))

    def live(self) -> Int64[np.ndarray, " U"]:
        """The units that have evidence."""
        return np.flatnonzero(self.deltas.any(axis=0))

    def values(self, units: Int64[np.ndarray, " U"]) -> UnitValues:
        """Evidence of some units, the ground and inputs without evidence left out."""
        received = self._above_ground()
        inputs = np.flatnonzero(received.any(axis=0))
        outer = self._outer(units, received[:, inputs])
        return UnitValues(outer, self.weights, units, inputs, self.first)

    def outer(self, units: Int64[np.ndarray, " U"]) -> Float32[np.ndarray, "U I"]:
        """What the weights of some units are multiplied by, all of it."""
        return self._outer(units, self.received)

    def size(self, values: UnitValues) -> Size:
        """Of the evidence that `values` gave for the live units."""
        constant = Size(1, self.constant, self.constant**2, self.constant)
        if len(self.deltas) > 1:
            return constant * Size.of(values.outer)
        return constant * Size.of(self.deltas) * Size.of(self._above_ground())

    def energies(self) -> Float64[np.ndarray, " O"]:
        """Sum of squares of each unit's evidence, all of it."""
        deltas = self.deltas.astype(np.float64)
        received = self.received.astype(np.float64)
        between = received @ received.T
        return np.asarray(self.constant**2 * (deltas * (between @ deltas)).sum(axis=0))

    def ground_factors(self, units: Int64[np.ndarray, " U"]) -> Float64[np.ndarray, " U"]:
        """What a unit's sum of signs counts for: the evidence of the ground."""
        return np.asarray(
            self.constant * self.ground * self.deltas[:, units].sum(axis=0, dtype=np.float64)
        )

    def _above_ground(self) -> Float32[np.ndarray, "K I"]:
        return self.received - np.float32(self.ground) if self.ground else self.received

    def _outer(self, units: np.ndarray, received: np.ndarray) -> np.ndarray:
        deltas = self.deltas[:, units]
        # One image is the rule, and an outer product sooner than a matrix product.
        outer = deltas[0][:, None] * received if len(deltas) == 1 else deltas.T @ received
        return np.asarray(outer)


@dataclass(frozen=True)
class Evidence:
    """A query's evidence; `layers` holds those that count, from the first on."""

    layers: tuple[LayerEvidence, ...]


def backward(
    weights: Sequence[Float32[Tensor, "_ _"]],
    effective: Sequence[Float32[Tensor, "_ _"]],
    firsts: Sequence[int],
    images: Float32[Tensor, "Q K P"],
    objective: Objective,
    num_real: int,
) -> list[Evidence]:
    """Take queries forward and back through a superposition, on the CPU.

    Args:
        weights: fixed, +-c in each layer, (O, I).
        effective: of the superposition, (O, I).
        firsts: where each layer's bits begin in a packed row.
        images: normalised; a query is K images of one task.
        objective: averaged over a query's images.
        num_real: outputs that have a label.

    Returns:
        the evidence of each query.

    Raises:
        FloatingPointError: a query whose evidence is not finite.
    """
    num_queries, num_images = images.shape[:2]
    received = [images.flatten(0, 1)]
    for weight in effective[:-1]:
        received.append((received[-1] @ weight.t()).relu_())
    delta = objective.gradient(received[-1] @ effective[-1].t(), num_real) / num_images
    deltas = [delta]
    for weight, x in zip(reversed(effective[1:]), reversed(received[1:]), strict=True):
        deltas.append((deltas[-1] @ weight).mul_(x > 0))
    deltas.reverse()
    if not all(bool(torch.isfinite(part).all()) for part in (images, *deltas)):
        raise FloatingPointError("evidence not finite: images or weights are not")
    num_layers = 1 if objective.first_layer_only else len(weights)
    shape = (num_queries, num_images, -1)
    sent = [part.numpy().reshape(shape) for part in deltas[:num_layers]]
    came = [part.numpy().reshape(shape) for part in received[:num_layers]]
    fixed = [weight.numpy() for weight in weights]
    found = []
    for q in range(num_queries):
        layers = []
        for i in range(num_layers):
            # Sums over several images round; without their ground they would round otherwise.
            ground = float(came[i][q].min()) if i == 0 and num_images == 1 else 0.0
            layers.append(LayerEvidence(sent[i][q], came[i][q], ground, fixed[i], firsts[i]))
        found.append(Evidence(tuple(layers)))
    return found
