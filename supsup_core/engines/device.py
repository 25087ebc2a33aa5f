"""Task inference on a GPU, among states that stay on the GPU.

One-shot inference needs, for each query, the state with the smallest product with the query's
evidence (see bits/evidence.py). All products are first computed with small errors (bfloat16 values,
sums in float32). The errors are bounded, so only states whose product is close to the smallest
product can be the answer. The exact products of the CANDIDATES smallest are then computed in
float64, and decide. If more states are close to the smallest, all states are computed in float64.

The host waits for the GPU only once per batch, when it copies the answers.

Shape letters: Q queries, K inputs of a query, T states, F bits of a packed row, C candidates.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from supsup_core.engines.bits import keeps_alone
from supsup_core.engines.plain import PlainEngine
from supsup_core.inference.algorithms import AlphaGradient, Inference, Options, not_finite
from supsup_core.inference.backward import Factors, backward_factors
from supsup_core.inference.objectives import Objective
from supsup_core.inference.slopes import GainSlopes, MLPSlopes
from supsup_core.names import RANKED
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.layout import StateLayout
from supsup_core.states.resident import PART_BYTES, ResidentStates, free_bytes

# Number of states per query whose products are computed in float64.
CANDIDATES = 8
# With this number of queries, matrix products use nearly all of a GPU's speed.
_QUERIES = 512
# Inference of one query may take this many numbers of 4 bytes per gain: superposition, effective
# weights, their gradients, the flat gradients and limbs.
_NUMBERS_PER_GAIN = 12
# Share of the free memory for the queries that are inferred together.
_SHARE = 0.5
# bfloat16 has fewer digits for values near the end of its range. If the largest evidence of a query
# is outside this range, all products of the query are computed in float64.
_LEAST, _MOST = 2.0**-60, 2.0**60
_LIMBS = 2
_MARGIN = 1.01


class DeviceEngine(PlainEngine):
    """An engine for all networks and states on a GPU. For the arguments, see Engine.

    The algorithm one_shot_ranked gives the answers of one_shot, because reading fewer bits would
    save no time here. On the CPU the engine computes the same, as a plain form for tests.
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

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether the device is not the CPU. Every network and layout is supported."""
        return device.type != "cpu"

    def queries_together(self, num_inputs: int) -> int:
        """Return how many queries fit a share of the free memory, at most _QUERIES; see Engine."""
        gains, activations = num_gains(self._network), self._network.num_activations
        # A forward pass keeps the activations of all inputs for each state of a part.
        states = max(1, PART_BYTES // (4 * self._resident.layout.row_bits))
        numbers = max(_NUMBERS_PER_GAIN * gains, 2 * states * num_inputs * activations)
        fitting = int(_SHARE * free_bytes(self.device)) // (4 * numbers)
        return max(1, min(_QUERIES, fitting))

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
        """Infer the task of each query; see Engine.infer."""
        if algorithm not in ("one_shot", RANKED):
            return super().infer(inputs, algorithm, objective, options)
        assert objective is not None
        if self._is_mlp and keeps_alone(self._resident.layout):
            return self._one_shot(inputs.flatten(2), objective)
        return super().infer(inputs, "one_shot", objective, options)

    @torch.no_grad()
    def _one_shot(self, images: Float32[Tensor, "Q K P"], objective: Objective) -> Inference:
        """Infer the task with the smallest product of state and evidence, exactly.

        If products are equal, the lowest task number wins.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        states, num_tasks = self._resident, len(self._resident)
        factors = backward_factors(self._superposition(), images, objective, self._num_real)
        if objective.first_layer_only:
            factors = factors[:1]
        evidence = self._laid_out(factors)
        total, largest = self._size(factors)
        if num_tasks <= CANDIDATES:
            tasks = self._decided(evidence, None)
            is_open = torch.zeros_like(tasks)
        else:
            products = states.products(evidence, num_limbs=_LIMBS)
            least, order = products.topk(CANDIDATES, dim=1, largest=False)
            # Both the smallest product and another product may be wrong by the bound.
            limit = least[:, :1] + 2 * states.products_error * total[:, None]
            num_close = (products <= limit).sum(dim=1)
            tasks = self._decided(evidence, order.sort(dim=1).values)
            is_open = (num_close > CANDIDATES) | (largest < _LEAST) | (largest > _MOST)
        # This copy is the only wait for the GPU, unless queries are open.
        told = torch.stack([tasks, is_open.long(), torch.isfinite(total).long()]).cpu()
        if not told[2].all():
            raise not_finite(num_tasks)
        tasks, open_queries = told[0], told[1].nonzero().flatten()
        if len(open_queries):
            some = evidence.index_select(0, open_queries.to(self.device))
            tasks[open_queries] = self._decided(some, None).cpu()
        return Inference(tasks, num_gradients=1)

    def _superposition(self) -> list[Float32[Tensor, "O I"]]:
        """Return the effective weights of each layer if all states have equal coefficients."""
        if self._effective is None:
            shares = self._resident.ones / len(self._resident)
            gains = self._resident.layout.unflatten(shares[None])
            self._effective = [
                self._weights[tensor.source] * gains[tensor.name][0]
                for tensor in self._network.tensors
            ]
        return self._effective

    def _laid_out(self, factors: Sequence[Factors]) -> Float32[Tensor, "Q F"]:
        """Compute the evidence of each query, in the order of the bits of a packed row."""
        layout, num_queries = self._resident.layout, len(factors[0].deltas)
        flat = torch.zeros((num_queries, layout.row_bits), device=self.device)
        for plane, (deltas, received) in zip(layout.planes, factors, strict=False):
            weight = self._weights[_source(self._network, plane.tensor)]
            out = flat[:, plane.bits].unflatten(1, plane.shape)
            if deltas.shape[1] == 1:
                torch.mul(deltas.transpose(1, 2), received, out=out)
                out.mul_(weight)
            else:
                torch.mul(deltas.transpose(1, 2) @ received, weight, out=out)
        return flat

    def _size(
        self, factors: Sequence[Factors]
    ) -> tuple[Float32[Tensor, " Q"], Float32[Tensor, " Q"]]:
        """Bound the sum of absolute values of each query's evidence, and the largest of them.

        The bounds are computed from the factors, because the evidence is much larger. They are NaN
        or infinite if the evidence is not finite.
        """
        totals, peaks = [], []
        for tensor, (deltas, received) in zip(self._network.tensors, factors, strict=False):
            # All weights of a layer have the same magnitude.
            constant = self._weights[tensor.source][0, 0].abs()
            sums = deltas.abs().sum(dim=2) * received.abs().sum(dim=2)
            most = deltas.abs().amax(dim=2) * received.abs().amax(dim=2)
            totals.append(constant * sums.sum(dim=1))
            peaks.append(constant * most.sum(dim=1))
        # The factor covers the rounding of these sums.
        return _MARGIN * torch.stack(totals).sum(dim=0), torch.stack(peaks).amax(dim=0)

    def _decided(
        self, evidence: Float32[Tensor, "Q F"], candidates: Int64[Tensor, "Q C"] | None
    ) -> Int64[Tensor, " Q"]:
        """Return the candidate with the smallest product in float64. None: all tasks.

        `candidates` has the lowest task numbers first, so that the lowest wins.
        """
        if candidates is None:
            every = torch.arange(len(self._resident), device=self.device)
            candidates = every.expand(len(evidence), -1)
        products = self._resident.exact_products(evidence, candidates)
        return candidates.gather(1, products.argmin(dim=1, keepdim=True))[:, 0]


def _source(network: Network, tensor: str) -> str:
    return next(one.source for one in network.tensors if one.name == tensor)
