"""Infer the task by running every state forward: a comparison for the gradient's algorithms.

A state is run with its own statistics, where it stores some.

Shape letters: T states, C states at a time, Q queries, K inputs of a query, S outputs.
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
    """Take the state with the lowest mean entropy.

    Args:
        network: the fixed network.
        weights: its weights, on the device of the states.
        states: the stored states.
        inputs: normalised; a query is K inputs of one task.
        num_real: number of outputs that have a label.

    Raises:
        FloatingPointError: logits that are not finite.

    Cost: T forwards, no gradient.
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
    """Take the state with the highest mean of the largest real logit; see min_entropy.

    Raises:
        FloatingPointError: logits that are not finite.

    Cost: T forwards, no gradient.
    """
    every = _logits_by_state(network, weights, states, inputs)
    largest = torch.cat([z[..., :num_real].amax(dim=3).mean(dim=2) for z in every])
    check_finite(largest, len(states))
    return Inference(largest.argmax(dim=0), num_gradients=0)


def _logits_by_state(
    network: Network, weights: Weights, states: States, inputs: Float[Tensor, "Q K ..."]
) -> Iterator[Float[Tensor, "C Q K S"]]:
    """Yield logits (C, Q, K, S) of C states at a time."""
    num_queries, num_inputs = inputs.shape[:2]
    with torch.no_grad():
        for gains, floats in states.unpacked():
            if network.normalises and not floats:
                # The statistics are those of a query's own inputs.
                every = [network.logits(weights, gains, query) for query in inputs]
                yield torch.stack(every, dim=1)
                continue
            logits = network.logits(weights, gains, inputs.flatten(0, 1), floats or None)
            yield logits.unflatten(1, (num_queries, num_inputs))


ForwardAlgorithm = Callable[[Network, Weights, States, Tensor, int], Inference]

# By the names of names.FORWARD_ALGORITHMS.
BY_FORWARD: Mapping[str, ForwardAlgorithm] = {"min_entropy": min_entropy, "max_logit": max_logit}
