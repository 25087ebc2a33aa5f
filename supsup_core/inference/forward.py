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


def negative_logits(
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Float[Tensor, "T Q"]:
    """Compute minus the largest logit of each state, as a mean over the inputs of a query.

    Only outputs that belong to a class count. The arguments are those of state_entropies.
    """
    every = _logits_by_state(network, weights, states, inputs)
    return -torch.cat([z[..., :num_real].amax(dim=3).mean(dim=2) for z in every])


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


# The keys are the names in names.FORWARD_ALGORITHMS. A task is more likely if its score is small.
FORWARD_SCORES: Mapping[str, Callable[[Network, Weights, States, Tensor, int], Tensor]] = {
    "min_entropy": state_entropies,
    "max_logit": negative_logits,
}


def infer_by_forward(
    algorithm: str,
    network: Network,
    weights: Weights,
    states: States,
    inputs: Float[Tensor, "Q K ..."],
    num_real: int,
) -> Inference:
    """Infer the task whose state gives the smallest score.

    Args:
        algorithm: name of the algorithm, a key of FORWARD_SCORES.
        network: the fixed network. For this and the next arguments, see state_entropies.
        weights: the fixed weights.
        states: the stored states.
        inputs: the inputs of the queries.
        num_real: number of outputs that belong to a class.

    Raises:
        FloatingPointError: a score is not finite.

    Cost: T forward passes and no gradient.
    """
    scores = FORWARD_SCORES[algorithm](network, weights, states, inputs, num_real)
    evidence = Evidence()
    evidence.see(scores, len(states))
    return evidence.answer(two_smallest(scores.T), num_gradients=0)
