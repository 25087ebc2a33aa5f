"""Compute the slopes d objective / d alpha_i. alpha_i is a coefficient of a superposition.

A superposition has the gains sum_i alpha_i gain_i, so

    d objective / d alpha_i = sum over tensors <d objective / d gain, gain_i>.

This identity saves work. All slopes need only one backward pass through the superposition, and then
one product of d objective / d gain and each state. Without the identity, autograd must compute a
backward pass through every state.

`AutogradSlopes` does not use the identity. It is a simple form for tests. `GainSlopes` uses the
identity for any network and any states. `MLPSlopes` uses it for an MLP, and needs autograd only for
the pre-activations. If an objective uses only the first layer, the sum has only the term of the
first tensor.

Shape letters: Q queries, K inputs of a query, T states, A coefficient vectors (1 if all queries
share one vector, otherwise Q), O outputs and I inputs of a layer.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.objectives import Objective
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import DenseStates
from supsup_core.states.protocol import States


class Slopes:
    """The base class of three ways to compute slopes. Each of them is an AlphaGradient.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's fixed weights, on the device of the
            states.
        states: the stored states of T tasks.
        inputs: (Q, K, *shape) normalised inputs of Q queries. The K inputs of a query belong to one
            task.
        objective: the objective. The objective of a query is the mean over the query's inputs.
        num_real: number of outputs that belong to a class.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        states: States,
        inputs: Float[Tensor, "Q K ..."],
        objective: Objective,
        num_real: int,
    ) -> None:
        self._network, self._weights, self._states = network, weights, states
        self._inputs, self._objective, self._num_real = inputs, objective, num_real
        self._logits = network.on_inputs(weights, inputs)
        self.num_queries, self.num_tasks = len(inputs), len(states)
        self.device = states.device

    @property
    def _first(self) -> str:
        return self._network.tensors[0].name


class AutogradSlopes(Slopes):
    """Slopes that autograd computes directly, as derivatives for the coefficients. This is slow.

    The states must be DenseStates, because no other class of states has a differentiable `combine`.
    """

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Compute the slopes (Q, T) by one backward pass per query, through all states."""
        assert isinstance(self._states, DenseStates)
        gradients = []
        for query, alpha in zip(self._inputs, alphas.expand(len(self._inputs), -1), strict=True):
            leaf = alpha.clone().requires_grad_()
            gains = {name: gain[0] for name, gain in self._states.combine(leaf[None]).items()}
            if self._objective.first_layer_only:
                gains = {n: g if n == self._first else g.detach() for n, g in gains.items()}
            logits = self._network.logits(self._weights, gains, query)
            value = self._objective(logits, self._num_real).mean()
            gradients.append(torch.autograd.grad(value, leaf)[0])
        return torch.stack(gradients)


class GainSlopes(Slopes):
    """Slopes of any network and any states, from the derivative with respect to the gains.

    The slope of coefficient i is the sum over tensors of <d objective / d gain, gain_i>. (<a, b> is
    the sum of the products of the elements of a and b.)
    """

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Compute the slopes (Q, T) by one backward pass, and then one pass over the states."""
        gains = {
            name: gain.expand(self.num_queries, *gain.shape[1:]).clone().requires_grad_()
            for name, gain in self._states.combine(alphas).items()
        }
        value = self._objective(self._logits(gains), self._num_real).mean(dim=1).sum()
        slopes = torch.autograd.grad(value, list(gains.values()))
        return self._states.dot(self._counted(dict(zip(gains, slopes, strict=True))))

    def _counted(self, slopes: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """If the objective uses only the first layer, set the slopes of other tensors to zero.

        The tensors are changed in place. With another objective, nothing is changed.
        """
        if self._objective.first_layer_only:
            for name, slope in slopes.items():
                if name != self._first:
                    slope.zero_()
        return slopes


class MLPSlopes(GainSlopes):
    """Slopes of an MLP, from the derivative with respect to the gains, as in GainSlopes.

    Autograd does not compute this derivative. The derivative is the outer product of two factors,
    times the weights. The factors are a layer's inputs, and the derivative with respect to the
    layer's pre-activations.
    """

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Compute the slopes (Q, T) by one backward pass, and then one pass over the states."""
        assert isinstance(self._network, MLP)
        tensors = self._network.tensors
        weights = [self._weights[tensor.source] for tensor in tensors]
        combined = self._states.combine(alphas)
        effective = [w * combined[t.name] for w, t in zip(weights, tensors, strict=True)]
        gradients = self._weight_gradients(effective)
        slopes = {
            tensor.name: gradient.mul_(weight)
            for tensor, gradient, weight in zip(tensors, gradients, weights, strict=True)
        }
        return self._states.dot(self._counted(slopes))

    def _weight_gradients(
        self, effective: Sequence[Float[Tensor, "A _ _"]]
    ) -> list[Float[Tensor, "Q _ _"]]:
        """Compute the derivative of each query's objective with respect to the effective weights.

        Autograd computes only the derivatives with respect to the pre-activations, which are small.
        Their outer product with the layer's inputs is the derivative with respect to the weights.

        Args:
            effective: for each layer, the effective weights of A superpositions.

        Returns:
            For each layer, the derivatives (Q, outputs, inputs) of Q queries.
        """
        received, sent = [self._inputs.flatten(2)], []
        for i, weight in enumerate(effective):
            z = received[-1] @ weight.transpose(1, 2)
            sent.append(z.requires_grad_() if i == 0 else z)
            if i < len(effective) - 1:
                received.append(torch.relu(z))
        value = self._objective(sent[-1], self._num_real).mean(dim=1).sum()
        deltas = torch.autograd.grad(value, sent)
        return [
            delta.transpose(1, 2) @ x.detach() for delta, x in zip(deltas, received, strict=True)
        ]
