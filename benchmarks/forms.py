"""Make the forms of task inference that benchmarks/inference.py compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from masks import Masks

from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.bits.threads import Threads
from supsup_core.inference.algorithms import Options, one_shot
from supsup_core.inference.objectives import OBJECTIVES, Objective
from supsup_core.inference.slopes import AutogradSlopes
from supsup_core.states.bits import BitStates, DenseStates

BATCH = 128


@dataclass(frozen=True)
class Form:
    """One way to infer tasks, and how to measure it.

    Attributes:
        infer: function that gets Q queries of one image with P pixels, (Q, 1, P). It returns the
            inferred tasks, and the fraction of the masks' bits that it read.
        extra_bytes: memory that the form needs in addition to the packed masks, in bytes.
        queries_a_round: number of queries in one round.
        together: number of queries in one call of `infer`.
        torch_threads: number of torch's threads for matrix products. Inference on packed bits
            starts its own threads.
        answers_all: whether the form is fast enough to infer the tasks of all queries, so that
            its task accuracy can be measured.
    """

    infer: Callable[[torch.Tensor], tuple[list[int], float]]
    extra_bytes: int
    queries_a_round: int
    together: int = 1
    torch_threads: int = 1
    answers_all: bool = False


@numba.njit(nogil=True)
def _sum(words: np.ndarray) -> int:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


def reading(rows: np.ndarray, threads: Threads) -> Form:
    """Make the form that reads all packed bits once, and infers no task."""
    words = rows.view(np.uint64).reshape(-1)

    def read(queries: torch.Tensor) -> tuple[list[int], float]:
        threads.split(lambda start, end: _sum(words[start:end]), len(words))
        return [], 1.0

    return Form(read, 0, 20)


def by_bits(bits: BitInference, name: str, objective: str, number: int, together: int = 1) -> Form:
    """Make the form of an algorithm on packed bits.

    Args:
        bits: the inference on packed bits.
        name: a key of BIT_ALGORITHMS.
        objective: a key of OBJECTIVES.
        number: number of queries in one round.
        together: number of queries in one call.
    """

    def infer(queries: torch.Tensor) -> tuple[list[int], float]:
        found = BIT_ALGORITHMS[name](bits, queries, OBJECTIVES[objective], Options())
        return found.tasks.tolist(), found.bits_read_fraction

    return Form(infer, bits.extra_bytes, number, together, answers_all=name != "binary")


def authors_gradient(
    weights: Sequence[torch.Tensor],
    layers: Sequence[torch.Tensor],
    images: torch.Tensor,
    objective: Objective,
    num_real: int,
) -> torch.Tensor:
    """Compute the slopes of T tasks in the same way as the authors' code.

    Returns:
        The slopes d objective / d alpha, of shape (T, 1, 1).
    """
    num_tasks = len(layers[0])
    alphas = torch.full((num_tasks, 1, 1), 1 / num_tasks, requires_grad=True)
    x = images
    for i, (weight, masks) in enumerate(zip(weights, layers, strict=True)):
        chosen = (alphas > 0).flatten()
        effective = weight * (alphas[chosen] * masks[chosen]).sum(dim=0)
        x = (torch.relu(x) if i else x) @ effective.t()
    value = objective(x, num_real).mean()
    return torch.autograd.grad(value, alphas)[0]


def dense_forms(masks: Masks, objective: str, torch_threads: int) -> dict[str, Form]:
    """Make the forms that store masks as floats and use autograd: a mapping from name to form."""
    spec = masks.spec
    stored = BitStates(spec.layout, masks.rows, torch.device("cpu"))
    parts = [gains for gains, _ in stored.unpacked()]
    stack = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    layers, states = list(stack.values()), DenseStates(stack, {})
    weights, num_real = masks.weights(), spec.num_classes
    minimised = OBJECTIVES[objective]

    def authors(queries: torch.Tensor) -> tuple[list[int], float]:
        slopes = authors_gradient(weights, layers, queries[0], minimised, num_real)
        return [int(slopes.argmin())], 1.0

    def product(queries: torch.Tensor) -> tuple[list[int], float]:
        shown = queries.unflatten(2, spec.input_shape)
        arguments = (spec.network, spec.weights(), states, shown, minimised, num_real)
        return one_shot(AutogradSlopes(*arguments)).tasks.tolist(), 1.0

    floats = 4 * sum(layer.numel() for layer in layers)
    return {
        "dense": Form(authors, 3 * floats - masks.rows.nbytes, 1, torch_threads=torch_threads),
        "dense_product": Form(product, floats - masks.rows.nbytes, 2, torch_threads=torch_threads),
    }
