"""Infer the task by running every state forward, for comparison with the gradient algorithms.

A state that stores statistics is run with its own statistics.

Shape letters: T states, C states of one part, Q queries, K inputs of a query, S outputs.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.algorithms import Inference, check_finite
from supsup_core.inference.objectives import entropy
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.protocol import States


def min_entropy(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Inference:
    """Infer the task whose state has the lowest entropy, averaged over a query's inputs.

    Args:
        network: the fixed network.
        weights: the network's weights by source, on the device of the states.
        states: the stored states.
        inputs: normalised inputs; the K inputs of a query belong to one task.
        num_real: number of outputs that have a label.

    Raises:
        FloatingPointError: a logit is not finite.

    Cost: T forward passes, no gradient.
    """
    every = _logits_by_state(network, weights, states, inputs)
    entropies = torch.cat([entropy(z, num_real).mean(dim=2) for z in every])
    check_finite(entropies, len(states))
    return Inference(entropies.argmin(dim=0), num_gradients=0)


def max_logit(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Inference:
    """Infer the task whose state has the highest largest real logit, averaged over inputs.

    A real logit is an output that has a label. The arguments are those of min_entropy.

    Raises:
        FloatingPointError: a logit is not finite.

    Cost: T forward passes, no gradient.
    """
    every = _logits_by_state(network, weights, states, inputs)
    largest = torch.cat([z[..., :num_real].amax(dim=3).mean(dim=2) for z in every])
    check_finite(largest, len(states))
    return Inference(largest.argmax(dim=0), num_gradients=0)


def _logits_by_state(
    network: Network, weights: Weights, states: States, inputs: Float[Tensor, "Q K ..."]
) -> Iterator[Float[Tensor, "C Q K S"]]:
    """Run all states forward in parts, and yield the logits (C, Q, K, S) of each part."""
    num_queries, num_inputs = inputs.shape[:2]
    with torch.no_grad():
        for gains, floats in states.unpacked():
            if network.normalises and not floats:
                # Normalise over the K inputs of one query, not over the inputs of all queries.
                every = [network.logits(weights, gains, query) for query in inputs]
                yield torch.stack(every, dim=1)
                continue
            logits = network.logits(weights, gains, inputs.flatten(0, 1), floats or None)
            yield logits.unflatten(1, (num_queries, num_inputs))


ForwardAlgorithm = Callable[[Network, Weights, States, Tensor, int], Inference]

# Keys are the names of names.FORWARD_ALGORITHMS.
BY_FORWARD: Mapping[str, ForwardAlgorithm] = {"min_entropy": min_entropy, "max_logit": max_logit}
