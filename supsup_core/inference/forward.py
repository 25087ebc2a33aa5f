"""Infer the task by a forward pass with every state, without gradients.

If the network normalises, it uses the running statistics that are stored in a state. If the states
store no statistics, the network normalises over the inputs of a query. The algorithms that use
gradients are in algorithms.py.

Shape letters: T states, C states of one part, Q queries, K inputs of a query, S outputs.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.answers import Evidence, Inference, two_smallest
from supsup_core.inference.objectives import entropy
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.protocol import States


def state_entropies(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Float[Tensor, "T Q"]:
    """Compute the entropy of the outputs of each state, as a mean over the inputs of a query.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's fixed weights, on the device of the
            states.
        states: the stored states of T tasks.
        inputs: (Q, K, *shape) normalised inputs of Q queries. The K inputs of a query belong to one
            task.
        num_real: number of outputs that belong to a class.
    """
    every = _logits_by_state(network, weights, states, inputs)
    return torch.cat([entropy(z, num_real).mean(dim=2) for z in every])


def state_logits(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Float[Tensor, "T Q"]:
    """Compute the largest logit of each state, as a mean over the inputs of a query.

    Only outputs that belong to a class count. The arguments are those of state_entropies.
    """
    every = _logits_by_state(network, weights, states, inputs)
    return torch.cat([z[..., :num_real].amax(dim=3).mean(dim=2) for z in every])


def min_entropy(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Inference:
    """Infer the task whose state gives the outputs with the lowest entropy; see state_entropies.

    Raises:
        FloatingPointError: a logit is not finite.

    Cost: T forward passes and no gradient.
    """
    entropies = state_entropies(network, weights, states, inputs, num_real)
    evidence = Evidence()
    evidence.see(entropies, len(states))
    return evidence.answer(two_smallest(entropies.T), num_gradients=0)


def max_logit(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Inference:
    """Infer the task whose state gives the largest logits; see state_logits.

    Raises:
        FloatingPointError: a logit is not finite.

    Cost: T forward passes and no gradient.
    """
    largest = state_logits(network, weights, states, inputs, num_real)
    evidence = Evidence()
    evidence.see(largest, len(states))
    return evidence.answer(two_smallest(-largest.T), num_gradients=0)


def _logits_by_state(
    network: Network, weights: Weights, states: States, inputs: Float[Tensor, "Q K ..."]
) -> Iterator[Float[Tensor, "C Q K S"]]:
    """Compute the logits of all states, some states at a time.

    Yields:
        (C, Q, K, S) logits of the next C states.
    """
    num_queries, num_inputs = inputs.shape[:2]
    with torch.no_grad():
        for gains, floats in states.unpacked():
            if network.normalises and not floats:
                # The network normalises over the K inputs of one query, not over all queries.
                every = [network.logits(weights, gains, query) for query in inputs]
                yield torch.stack(every, dim=1)
                continue
            logits = network.logits(weights, gains, inputs.flatten(0, 1), floats or None)
            yield logits.unflatten(1, (num_queries, num_inputs))


ForwardAlgorithm = Callable[[Network, Weights, States, Tensor, int], Inference]

# The keys are the names in names.FORWARD_ALGORITHMS.
BY_FORWARD: Mapping[str, ForwardAlgorithm] = {"min_entropy": min_entropy, "max_logit": max_logit}

# The values that decide in each algorithm. A task is more likely if its value is small.
SCORES_BY_FORWARD: Mapping[str, Callable[[Network, Weights, States, Tensor, int], Tensor]] = {
    "min_entropy": state_entropies,
    "max_logit": lambda *arguments: -state_logits(*arguments),
}
