"""The steps of the optimisers in Triton, for `learn_kernel`. optimizers/ has the formulas.

Each function takes the scores, the two tensors of the optimiser's state, the signs of the weights,
the gradients of the scores, and a pointer to the constants of the step. It returns the new scores
and the new state. An optimiser without a second state tensor returns its argument `two` unchanged.
"""

from typing import Any, no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def rmsprop(score, one, two, sign, g, constants):  # pragma: no cover
    """Take a step of RMSprop: `one` has the signed squares, and `two` is not used."""
    rate, smoothing = tl.load(constants), tl.load(constants + 1)
    rest, epsilon = tl.load(constants + 2), tl.load(constants + 3)
    v = smoothing * tl.abs(one) + rest * g * g
    return score - rate * g / (tl.sqrt(v) + epsilon), v * sign, two


@triton.jit
@no_type_check
def adam(score, one, two, sign, g, constants):  # pragma: no cover
    """Take a step of Adam: `one` has the signed squares, and `two` the means of gradients."""
    size, momentum = tl.load(constants), tl.load(constants + 1)
    rest_momentum, smoothing = tl.load(constants + 2), tl.load(constants + 3)
    rest = tl.load(constants + 4)
    correction, epsilon = tl.load(constants + 5), tl.load(constants + 6)
    u = momentum * two + rest_momentum * g
    v = smoothing * tl.abs(one) + rest * g * g
    return score - size * u / (tl.sqrt(v) * correction + epsilon), v * sign, u


@triton.jit
@no_type_check
def sgd(score, one, two, sign, g, constants):  # pragma: no cover
    """Take a step of SGD: `one` has the signs of the weights, and `two` the sums of gradients."""
    rate, momentum = tl.load(constants), tl.load(constants + 1)
    u = momentum * two + g
    return score - rate * u, one, u


# The keys are the names in names.OPTIMIZERS.
MOVES: dict[str, Any] = {"rmsprop": rmsprop, "adam": adam, "sgd": sgd}
