"""Reservoirs: memories for masks. Their size does not depend on the number of stored masks."""

from supsup_core.reservoirs.blocks import Blocks
from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import Hebb, Perceptron, Projection, Quadratic, Storkey
from supsup_core.reservoirs.random_features import RandomFeatures
from supsup_core.reservoirs.stacked import StackedBlocks
from supsup_core.reservoirs.variants import Centred, Quantised

__all__ = [
    "Blocks",
    "Centred",
    "Hebb",
    "Perceptron",
    "Projection",
    "Quadratic",
    "Quantised",
    "RandomFeatures",
    "Reservoir",
    "StackedBlocks",
    "Storkey",
]
