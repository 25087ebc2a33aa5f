"""Contexts of parameter superposition: random linear maps on the inputs of a layer.

Shape letters: O outputs and I inputs of a layer. For a convolution, the inputs of an output are all
values that one filter reads: I = channels * rows * columns of the filter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """A kind of context.

    Attributes:
        draw: a function that draws the context of one layer, from I and a generator. The result is
            in float64, on the CPU.
        apply: a function from weights (O, I) and a context to the weights (O, I) in this context.
        rule: the context of one layer and its use in words, for readers of a store. `g` is the
            generator, `w` are the weights (O, I).
    """

    draw: Callable[[int, np.random.Generator], Tensor]
    apply: Callable[[Float[Tensor, "O I"], Tensor], Float[Tensor, "O I"]]
    rule: str


def random_signs(num_inputs: int, generator: np.random.Generator) -> Float[Tensor, " I"]:
    """Draw one random sign for each input: +1 or -1, each with probability 1/2."""
    return torch.from_numpy(generator.choice([-1.0, 1.0], num_inputs))


def random_rotation(num_inputs: int, generator: np.random.Generator) -> Float[Tensor, "I I"]:
    """Draw an orthogonal matrix from the uniform distribution, the Haar measure.

    The matrix is the factor Q of a QR decomposition of a matrix of normal draws. The columns of Q
    get the signs of the diagonal of R. Otherwise, the distribution would not be uniform (Mezzadri
    2007, arXiv:math-ph/0609050).

    Cost: time grows with the third power of I. The matrix takes 8 I^2 bytes.
    """
    # torch and not numpy or scipy: the workers of a run set torch to one thread, and the last bits
    # of a decomposition may depend on the number of threads. float64 hides most of these bits when
    # the matrix is rounded to float32.
    draws = torch.from_numpy(generator.standard_normal((num_inputs, num_inputs)))
    q, r = torch.linalg.qr(draws)
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


# Value of method_options.context -> kind of context. Every store holds the rule of its context, and
# every start compares it with the text here. After any change of the words, existing runs would be
# refused.
CONTEXTS: Mapping[str, Context] = {
    "rotation": Context(
        random_rotation,
        torch.matmul,
        "w @ (q * sign(diagonal(r))) with q, r = qr(g.standard_normal((I, I)))",
    ),
    "binary": Context(random_signs, torch.mul, "w * g.choice([-1.0, 1.0], I)"),
}
