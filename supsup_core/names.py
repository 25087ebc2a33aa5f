"""The names that a configuration may use. This module does not import torch.

A name stands for an object of this package. The object is written as "module:object", and is
imported only when it is used. To add a finder, a network, a family or an engine, add its file and
one entry in this module.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# Functions (input_shape, num_outputs, **options) -> a network (networks/protocol.py) or a
# torch.nn.Module, which networks/module.py converts into a network.
NETWORKS: Mapping[str, str] = {
    "lenet_300_100": "supsup_core.networks.mlp:lenet_300_100",
    "fc_1024_1024": "supsup_core.networks.mlp:fc_1024_1024",
    "mlp": "supsup_core.networks.mlp:mlp",
    "units": "supsup_core.networks.units:units",
    "small_conv": "supsup_core.networks.conv:small_conv",
    "conv4": "supsup_core.networks.conv:conv4",
    "conv6": "supsup_core.networks.conv:conv6",
    "resnet18_slim": "supsup_core.networks.resnet:resnet18_slim",
    "resnet18": "supsup_core.networks.resnet:resnet18",
    "resnet50": "supsup_core.networks.resnet:resnet50",
}

# Distributions of the fixed weights of a layer; see draw_weights in networks/mlp.py.
SIGNED_CONSTANT = "signed_constant"
KAIMING_INITS = (SIGNED_CONSTANT, "kaiming_normal", "kaiming_uniform")  # variance 2 / fan_in
XAVIER_NORMAL = "xavier_normal"
INITS = (*KAIMING_INITS, XAVIER_NORMAL)

# Classes in methods/ and baselines/. Their arguments are the options of the run.
METHODS: Mapping[str, str] = {
    "threshold": "supsup_core.methods.threshold:Threshold",
    "edge_popup": "supsup_core.methods.edge_popup:EdgePopup",
    "signed": "supsup_core.methods.signed:Signed",
    "multicoated": "supsup_core.methods.multicoated:Multicoated",
    "n_of_m": "supsup_core.methods.n_of_m:NOfM",
    "biprop": "supsup_core.methods.biprop:Biprop",
    "recycling": "supsup_core.methods.recycling:Recycling",
    "iterand": "supsup_core.methods.iterand:IteRand",
    "random_search": "supsup_core.methods.random_search:RandomSearch",
    "exssnet": "supsup_core.methods.exssnet:ExSSNeT",
    "wsn": "supsup_core.methods.wsn:WSN",
    "jackpots": "supsup_core.methods.jackpots:Jackpots",
    "batche": "supsup_core.baselines.batche:BatchE",
    "heads": "supsup_core.baselines.own_weights:Heads",
    "upper_bound": "supsup_core.baselines.own_weights:UpperBound",
    "lower_bound": "supsup_core.baselines.lower_bound:LowerBound",
    "psp": "supsup_core.baselines.psp:PSP",
}

# Functions or classes in tasks/. Their arguments are the options of the run.
FAMILIES: Mapping[str, str] = {
    "permuted": "supsup_core.tasks.permuted:Permuted",
    "rotated": "supsup_core.tasks.rotated:Rotated",
    "permuted_rotated": "supsup_core.tasks.rotated:permuted_rotated",
    "split": "supsup_core.tasks.split:Split",
}

# Engines in order of preference. An actor uses the first engine that supports the network, the
# states and the actor's device.
ENGINES: Mapping[str, str] = {
    "floats": "supsup_core.engines.floats:FloatEngine",
    "device": "supsup_core.engines.device:DeviceEngine",
    "bits": "supsup_core.engines.bits:BitsEngine",
    "mlp": "supsup_core.engines.mlp:MLPEngine",
    "plain": "supsup_core.engines.plain:PlainEngine",
}

# Inference algorithms that use gradients of an objective with respect to the coefficients.
GRADIENT_ALGORITHMS = ("one_shot", "binary", "gradient_descent", "frank_wolfe")
# Inference algorithms that compute a forward pass with each mask, and need no objective.
FORWARD_ALGORITHMS = ("min_entropy", "max_logit")
# The inference algorithm that only the engines "bits" and "device" have.
RANKED = "one_shot_ranked"
INFERENCE_ALGORITHMS = (
    *("one_shot", RANKED, "binary", "gradient_descent", "frank_wolfe"),
    *FORWARD_ALGORITHMS,
)
# No inference: each batch gets the state of its own task. No engine is needed.
GIVEN = "given"
# Algorithms without an objective.
WITHOUT_OBJECTIVE = (*FORWARD_ALGORITHMS, GIVEN)
# All values of evaluate.algorithms.
ALGORITHMS = (*INFERENCE_ALGORITHMS, GIVEN)
# Inference algorithms that need only one gradient. If each of several actors has a part of the
# masks, the actors can compute this gradient together.
SHARDED_ALGORITHMS = ("one_shot", RANKED)

OBJECTIVES = ("H", "G", "H_first_layer", "G_first_layer")
# Objectives that need superfluous neurons.
SUPERFLUOUS_OBJECTIVES = ("G", "G_first_layer")

OPTIMIZERS = ("rmsprop", "adam", "sgd")
DECAYS = ("none", "linear", "cosine")
# Random changes of training images; see training/augment.py.
NO_CHANGE = "none"
AUGMENTS = (NO_CHANGE, "crop", "crop_flip")
# Ways in which the first scores of a task use earlier tasks; see training/transfer.py.
NO_TRANSFER, MEAN_SCORES = "none", "mean_scores"
TRANSFERS = (NO_TRANSFER, "mean", MEAN_SCORES, "similar", "knn", "last", "random")

# Kinds of reservoirs: objects in reservoirs/rules.py or in another file of reservoirs/.
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
    """Import the object that a name stands for.

    Args:
        kind: kind of the object, such as "network", for the error message.
        known: a mapping of this module, from name to "module:object".
        name: a key of `known`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in known:
        raise ValueError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)
