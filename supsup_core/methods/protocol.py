"""What a mask finder has to say. Shape letters: O and I as in a layer."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from supsup_core.networks.mlp import Layer


@runtime_checkable  # so that the tests can check annotations
class Method(Protocol):
    """A rule that turns scores into masks, and the scores it starts from."""

    def initial_scores(
        self, layer: Layer, generator: np.random.Generator
    ) -> Float[np.ndarray, "O I"]:
        """Draw one task's scores of one layer, float32."""
        ...

    def mask(self, scores: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Choose the weights that stay."""
        ...
