"""Make the content of a run's store from the configuration, the code and the data set."""

from collections.abc import Iterable

from harness.data.dataset import Dataset
from harness.plan.resolve import most_masks
from harness.run.dataset import content_digest
from harness.run.provenance import config_hash, run_id, versions
from harness.run.same_tasks import family_errors
from harness.run.shared import shared_arrays, weights_rule
from harness.run.spec import RunSpec, lazy_inputs
from harness.storage.content import StoreContent

# An attribute of the store, for readers without this code.
_RENUMBERED = "the label of a class is its position in the task's row of inputs/classes"


def store_content(spec: RunSpec, data: Dataset) -> StoreContent:
    """Make the content of a run's store, except the masks.

    The store has one row of inputs per task, such as a permutation. They are made later, when
    they are read.

    Raises:
        UserError: the family cannot make the first task.
    """
    with family_errors(spec.config.family):
        inputs = lazy_inputs(spec)
    weights = {name: weight.numpy() for name, weight in spec.weights().items()}
    return StoreContent(
        layout=spec.layout,
        weights=weights,
        inputs=inputs,
        capacity=most_masks(spec.config),
        attributes=_attributes(spec, data, weights, inputs),
        shared=shared_arrays(spec),
    )


def _attributes(
    spec: RunSpec, data: Dataset, weights: Iterable[str], inputs: Iterable[str]
) -> dict[str, object]:
    """Make the attributes of the store.

    Args:
        spec: the run's specification.
        data: the run's data set.
        weights: names of the arrays of weights.
        inputs: names of the arrays with the inputs that define each task.
    """
    config, first = spec.config, spec.task(0)
    return {
        "network": config.network,
        "network_options": config.network_options,
        "activation": spec.network.activation,
        "normalisation": {"mean": data.train.mean, "std": data.train.std},
        "data": config.data,
        "family": config.family,
        "family_options": config.family_options,
        "num_classes": data.num_classes,
        "input_shape": list(spec.input_shape),
        "seed": config.seed,
        "method": config.method,
        "method_options": config.method_options,
        "config_hash": config_hash(config),
        "run_id": run_id(config),
        "weights": list(weights),
        "inputs": list(inputs),
        "versions": versions(),
        **({"code": digests} if (digests := spec.code.digests) else {}),
        **({"data_sha256": digest} if (digest := content_digest(data)) else {}),
        **({"images": first.change.rule} if first.change else {}),
        **({"labels": _RENUMBERED} if first.renumbers else {}),
        **({"trained_weights": weights_rule(spec)} if spec.trained_weights else {}),
        **({"task_weights": rule} if (rule := spec.method.weights_rule) else {}),
    }
