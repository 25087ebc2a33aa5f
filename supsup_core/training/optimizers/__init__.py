"""Optimisers of scores, one a file: each in torch for any device and in one pass on the CPU."""

from supsup_core.names import OPTIMIZERS
from supsup_core.training.optimizers.adam import Adam
from supsup_core.training.optimizers.protocol import FusedStep, Optimizer
from supsup_core.training.optimizers.rmsprop import RMSprop
from supsup_core.training.optimizers.sgd import SGD


def make_optimizer(name: str, *, smoothing: float, momentum: float) -> Optimizer:
    """Make an optimiser.

    Args:
        name: one of OPTIMIZERS.
        smoothing: of the running mean of squares, which sgd has not.
        momentum: of the running mean or sum of gradients; must be 0 for rmsprop.

    Raises:
        ValueError: an unknown name, or a momentum that would have no effect.
    """
    match name:
        case "rmsprop":
            if momentum:
                raise ValueError(f"momentum goes with adam and sgd, got {momentum} with rmsprop")
            return RMSprop(smoothing)
        case "adam":
            return Adam(momentum, smoothing)
        case "sgd":
            return SGD(momentum)
        case _:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


__all__ = ["SGD", "Adam", "FusedStep", "Optimizer", "RMSprop", "make_optimizer"]
