"""The names that a configuration may say, without torch: what they stand for is loaded when used.

A name stands for an object of this package, written "module:object". To add a finder, a network,
a family or an engine is to add its file and one entry here.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# Functions (input_shape, num_outputs, **options) -> a network (networks/protocol.py) or a
# torch.nn.Module, which networks/module.py makes a network of.
NETWORKS: Mapping[str, str] = {
    "lenet_300_100": "supsup_core.networks.mlp:lenet_300_100",
    "fc_1024_1024": "supsup_core.networks.mlp:fc_1024_1024",
    "mlp": "supsup_core.networks.mlp:mlp",
    "units": "supsup_core.networks.units:units",
    "small_conv": "supsup_core.networks.conv:small_conv",
}

# Classes of methods/, made with the options of the run.
METHODS: Mapping[str, str] = {
    "threshold": "supsup_core.methods.threshold:Threshold",
    "edge_popup": "supsup_core.methods.edge_popup:EdgePopup",
    "signed": "supsup_core.methods.signed:Signed",
}

# Functions or classes of tasks/, made with the options of the run.
FAMILIES: Mapping[str, str] = {
    "permuted": "supsup_core.tasks.permuted:Permuted",
    "rotated": "supsup_core.tasks.rotated:Rotated",
    "permuted_rotated": "supsup_core.tasks.rotated:permuted_rotated",
    "split": "supsup_core.tasks.split:Split",
}

# In the order of preference: the first that fits a network and its states infers.
ENGINES: Mapping[str, str] = {
    "bits": "supsup_core.engines.bits:BitsEngine",
    "mlp": "supsup_core.engines.mlp:MLPEngine",
    "plain": "supsup_core.engines.plain:PlainEngine",
}

# Ways to infer a task. By gradient: they minimise an objective over the coefficients.
GRADIENT_ALGORITHMS = ("one_shot", "binary", "gradient_descent", "frank_wolfe")
# Those that run every mask forward, and minimise nothing.
FORWARD_ALGORITHMS = ("min_entropy", "max_logit")
# On packed bits alone.
RANKED = "one_shot_ranked"
ALGORITHMS = ("one_shot", RANKED, "binary", "gradient_descent", "frank_wolfe", *FORWARD_ALGORITHMS)
# Those that need one gradient, which several holders of masks can take together.
SHARDED_ALGORITHMS = ("one_shot", RANKED)

OBJECTIVES = ("H", "G", "H_first_layer", "G_first_layer")
# Objectives that read the outputs without a class.
SUPERFLUOUS_OBJECTIVES = ("G", "G_first_layer")

OPTIMIZERS = ("rmsprop", "adam", "sgd")
DECAYS = ("none", "linear")

# Kinds of reservoirs: objects of reservoirs/rules.py or of a file of reservoirs/.
RESERVOIR_RULES: Mapping[str, str] = {
    "hebb": "supsup_core.reservoirs.rules:HEBB",
    "storkey": "supsup_core.reservoirs.rules:STORKEY",
    "projection": "supsup_core.reservoirs.rules:PROJECTION",
    "projection_8bits": "supsup_core.reservoirs.rules:PROJECTION_8BITS",
    "projection_4bits": "supsup_core.reservoirs.rules:PROJECTION_4BITS",
    "perceptron": "supsup_core.reservoirs.rules:PERCEPTRON",
    "random_features": "supsup_core.reservoirs.rules:RANDOM_FEATURES",
}


def load(kind: str, known: Mapping[str, str], name: str) -> Any:
    """Import what a name stands for.

    Args:
        kind: what the name is of, for the error: "network", ...
        known: one of the mappings of this module.
        name: one of its keys.

    Raises:
        ValueError: an unknown name.
    """
    if name not in known:
        raise ValueError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
