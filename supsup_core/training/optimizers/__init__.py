"""Optimisers of scores, one per file.

The step of each optimiser is written three times: with torch for any device, as a Numba kernel for
the CPU, and in Triton for GPUs (training/triton_moves.py).
"""

from supsup_core.names import OPTIMIZERS
from supsup_core.training.optimizers.adam import Adam
from supsup_core.training.optimizers.protocol import FusedStep, Optimizer
from supsup_core.training.optimizers.rmsprop import RMSprop
from supsup_core.training.optimizers.sgd import SGD


def make_optimizer(
    name: str, *, smoothing: float, momentum: float, weight_decay: float = 0.0
) -> Optimizer:
    """Make an optimiser of scores.

    Args:
        name: one of OPTIMIZERS.
        smoothing: for rmsprop and adam, the decay per step of the running mean of squares. sgd does
            not use this value.
        momentum: for adam, the decay per step of the running mean of gradients. For sgd, the decay
            per step of the running sum of gradients. For rmsprop, it must be 0.
        weight_decay: weight_decay * score is added to the gradient of each score.

    Raises:
        ValueError: the name is unknown, or the momentum is not 0 for rmsprop.
    """
    match name:
        case "rmsprop":
            if momentum:
                raise ValueError(
                    f"momentum must be 0 with rmsprop, got {momentum}: try momentum 0, or the "
                    "optimizer adam or sgd"
                )
            return RMSprop(smoothing, weight_decay)
        case "adam":
            return Adam(momentum, smoothing, weight_decay)
        case "sgd":
            return SGD(momentum, weight_decay)
        case _:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


__all__ = ["SGD", "Adam", "FusedStep", "Optimizer", "RMSprop", "make_optimizer"]
