"""Task inference on a GPU, among states that stay on the GPU.

One-shot inference needs, for each query, the state with the smallest product with the query's
evidence (see bits/evidence.py). All products are first computed with small errors (bfloat16 values,
sums in float32). The errors are bounded, so only states whose product is close to the smallest
product can be the answer. The CANDIDATES states with the smallest products are compared again by
exact products in float64. If more than CANDIDATES states are close to the smallest product, the
exact products of all states are computed.

The host waits for the GPU only once per batch, when it copies the answers.

Shape letters: Q queries, K inputs of a query, T states, F bits of a packed row, C candidates.
"""

import sys
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from supsup_core.engines.bits import keeps_alone
from supsup_core.engines.plain import PlainEngine
from supsup_core.inference.algorithms import AlphaGradient, Options
from supsup_core.inference.answers import NO_TASK, Best, Inference, not_finite, two_smallest
from supsup_core.inference.backward import backward_factors
from supsup_core.inference.objectives import Objective
from supsup_core.inference.slopes import GainSlopes, MLPSlopes
from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.kernels.gpu.memory import free_and_warn, free_bytes
from supsup_core.kernels.gpu.packed_plain import Layer
from supsup_core.kernels.gpu.replay import Replays
from supsup_core.names import RANKED
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.layout import StateLayout
from supsup_core.states.resident import FEW_VECTORS, PART_BYTES, ResidentStates

# Number of states per query whose products are computed in float64, at least 2.
CANDIDATES = 8
# With this number of queries, matrix products use nearly all of a GPU's speed.
_QUERIES = 512
# Inference of one query may take this many numbers of 4 bytes per gain: superposition, effective
# weights, their gradients, the flat gradients, and the limbs (parts of a number, in bfloat16).
_NUMBERS_PER_GAIN = 12
# Fraction of the free memory for the queries that are inferred together. Other actors of the same
# GPU need the rest.
_SHARE = 0.25
# bfloat16 has fewer digits for values near the ends of its range. If the sum of absolute values of
# a query's evidence is outside these limits, all products of the query are computed in float64.
_LEAST, _MOST = 2.0**-40, 2.0**60
_OPEN_TOGETHER = 16  # number of such queries that are computed together
_LIMBS = 2  # each value of the evidence is the sum of this many bfloat16 numbers
_MARGIN = 1.01  # covers the rounding of the sum of absolute values


class DeviceEngine(PlainEngine):
    """An engine for all networks and states on a GPU. For the arguments, see Engine.

    The algorithm one_shot_ranked gives the answers of one_shot, because reading fewer bits would
    save no time here. Tests run the engine on the CPU, where it computes the same.
    """

    supports: ClassVar[frozenset[str]] = PlainEngine.supports | {RANKED}
    states: ClassVar[type[Any]] = ResidentStates

    def __init__(
        self, network: Network, weights: Weights, states: ResidentStates, num_real: int
    ) -> None:
        super().__init__(network, weights, states, num_real)
        self._resident = states
        self._is_mlp = type(network) is MLP
        self._effective: list[Tensor] | None = None
        # Largest number of queries at a time. It is set if the memory was too small.
        self._limit = sys.maxsize
        # Starting the kernels of a few queries takes the host longer than the kernels take.
        self._replays = Replays(most_inputs=FEW_VECTORS)

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether the device is not the CPU. Every network and layout is supported."""
        return device.type != "cpu"

    def queries_together(self, num_inputs: int) -> int:
        """Return how many queries fit into the fraction _SHARE of the free memory; see Engine.

        The result is at most _QUERIES, and less if memory has been too small for as many queries.
        """
        gains, activations = num_gains(self._network), self._network.num_activations
        # A forward pass keeps the activations of all inputs for each state of a part.
        fitting = max(1, PART_BYTES // (4 * self._resident.layout.row_bits))
        states = min(len(self._resident), fitting)
        numbers = max(_NUMBERS_PER_GAIN * gains, 2 * states * num_inputs * activations)
        return max(
            1, min(_QUERIES, self._limit, int(_SHARE * free_bytes(self.device)) // (4 * numbers))
        )

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make a function that computes the slopes d objective / d alpha; see Engine.gradient."""
        form: type[GainSlopes] = MLPSlopes if self._is_mlp else GainSlopes
        return form(self._network, self._weights, self._states, inputs, objective, self._num_real)

    def infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        """Infer the task of each query; see Engine.infer.

        If the memory of the device is too small, fewer queries are inferred at a time.
        """
        if len(inputs) <= self._limit:
            try:
                return self._infer(inputs, algorithm, objective, options)
            except torch.OutOfMemoryError:
                if len(inputs) == 1:
                    raise
            num, self._limit = len(inputs), len(inputs) // 2
            free_and_warn(f"{num} queries", f"inference continues with {self._limit} at a time")
        parts = [
            self.infer(part, algorithm, objective, options) for part in inputs.split(self._limit)
        ]
        return Inference.joined(parts)

    def _infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        if algorithm not in ("one_shot", RANKED):
            return super().infer(inputs, algorithm, objective, options)
        assert objective is not None
        if self._is_mlp and keeps_alone(self._resident.layout):
            return self._one_shot(inputs.flatten(2), objective)
        return super().infer(inputs, "one_shot", objective, options)

    @torch.no_grad()
    def _one_shot(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """Infer, for each query, the task with the smallest product of state and evidence.

        The answer is exact. If products are equal, the lowest task number wins. If no other product
        is close to the smallest product, the runner-up and the margin come from products with small
        errors.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        found: _Found = self._replays(self._scan, images, objective)
        told = found.told.cpu()  # the only wait, unless queries are open
        num_close, absolute = told[3:]
        if not absolute.isfinite().all():
            raise not_finite(len(self._resident))
        is_open = num_close > CANDIDATES
        if len(self._resident) > CANDIDATES:
            is_open |= (absolute < _LEAST) | (absolute > _MOST)
        open_queries = is_open.nonzero().flatten()
        for start in range(0, len(open_queries), _OPEN_TOGETHER):
            some = open_queries[start : start + _OPEN_TOGETHER]
            evidence = found.evidence.index_select(0, some.to(self.device))
            told[:3, some] = _stacked(self._decided(evidence, None)).cpu()
        return Inference(told[0].long(), told[1].long(), told[2], num_gradients=1)

    def _scan(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> "_Found":
        """Start the search for the queries' tasks on the device. Do not wait for the device."""
        states, num_tasks = self._resident, len(self._resident)
        factors = backward_factors(self._superposition(), images, objective, self._num_real)
        layers = [
            Layer(deltas, received, self._weights[tensor.source], plane.bits.start)
            for (deltas, received), tensor, plane in zip(
                factors, self._network.tensors, states.layout.planes, strict=True
            )
        ]
        kernels, is_small = packed_kernels(self.device), num_tasks <= CANDIDATES
        evidence = kernels.lay_out(
            layers[:1] if objective.first_layer_only else layers,
            states.layout.row_bits,
            0 if is_small or states.reads_packed(len(images)) else _LIMBS,
            states.dtype,
        )
        if is_small:
            best = self._decided(evidence.flat, None)
            num_close = torch.zeros_like(best.tasks)
        else:
            products = states.products(evidence.flat, _LIMBS, evidence.limbs)
            least, order = products.topk(CANDIDATES, dim=1, largest=False)
            # Both the smallest product and another product may be wrong by the bound.
            bound = 2 * _MARGIN * states.products_error
            limit = torch.add(least[:, 0], evidence.absolute, alpha=bound)
            num_close = (products <= limit[:, None]).sum(dim=1)
            close = torch.where(least <= limit[:, None], order, -1)
            best = self._decided(evidence.flat, close.sort(dim=1).values)
            is_clear = best.runners_up == NO_TASK
            best = Best(
                best.tasks,
                torch.where(is_clear, order[:, 1], best.runners_up),
                torch.where(is_clear, (least[:, 1] - least[:, 0]).double(), best.margins),
            )
        others = torch.stack((num_close.double(), evidence.absolute.double()))
        return _Found(torch.cat((_stacked(best), others)), evidence.flat)

    def _superposition(self) -> list[Float32[Tensor, "O I"]]:
        """Return each layer's effective weights in the superposition with equal coefficients."""
        if self._effective is None:
            shares = self._resident.ones / len(self._resident)
            gains = self._resident.layout.unflatten(shares[None])
            self._effective = [
                self._weights[tensor.source] * gains[tensor.name][0]
                for tensor in self._network.tensors
            ]
        return self._effective

    def _decided(
        self, evidence: Float32[Tensor, "Q F"], candidates: Int64[Tensor, "Q C"] | None
    ) -> Best:
        """Return, for each query, the two candidates with the smallest products in float64.

        A query with one candidate has no runner-up.

        Args:
            evidence: the evidence of each query.
            candidates: task numbers in rising order, so that the lowest number wins if products are
                equal. Negative numbers stand for no candidate. None means all tasks.
        """
        if candidates is None:
            every = torch.arange(len(self._resident), device=self.device)
            candidates = every.expand(len(evidence), -1)
        products = self._resident.exact_products(evidence, candidates)
        best = two_smallest(products)
        second = candidates.gather(1, best.runners_up.clamp_min(0)[:, None])[:, 0]
        return Best(
            candidates.gather(1, best.tasks[:, None])[:, 0],
            torch.where(best.runners_up == NO_TASK, NO_TASK, second),
            best.margins,
        )


class _Found(NamedTuple):
    """The answers of a batch, on the device.

    Attributes:
        told: (5, Q) float64, five rows. Rows 0 to 2 have the task, the runner-up and the margin of
            each query. Row 3 has the number of states whose product may be the smallest. Row 4 has
            the sum of the absolute values of the query's evidence.
        evidence: (Q, F) the evidence of each query, in the order of the bits of a packed row.
    """

    told: Float64[Tensor, "5 Q"]
    evidence: Float32[Tensor, "Q F"]


def _stacked(best: Best) -> Float64[Tensor, "3 Q"]:
    """Return the answers as one array. Task numbers are exact in float64."""
    return torch.stack([part.double() for part in best])
