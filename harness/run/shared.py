"""The shared arrays of a run: arrays that its tasks train together, or pass on to later tasks.

The mask store has copies of these arrays as they were after some tasks; see
harness/storage/shared.py.
"""

from harness.config.checks import must_be
from harness.config.kinds import as_typed
from harness.config.names import AUTO
from harness.config.schema import Config
from harness.run.spec import RunSpec
from harness.storage.shared import SharedSpec
from harness.storage.store import MaskStore


def shared_arrays(spec: RunSpec) -> SharedSpec:
    """Describe the shared arrays of a run, and the tasks after which the store keeps a copy."""
    if not spec.carried_shapes:
        return SharedSpec()
    bits = spec.method.shared_bits(spec.network)
    if spec.capabilities.order == "after_first":
        return SharedSpec(spec.carried_shapes, (0,), bits)
    ends = {*spec.config.evaluate.checkpoints, spec.config.tasks}
    return SharedSpec(spec.carried_shapes, tuple(sorted(k - 1 for k in ends)), bits)


def weights_after(spec: RunSpec, num_tasks: int) -> int:
    """Return the task whose trained weights are used at a checkpoint.

    Args:
        spec: the specification of a run that trains weights.
        num_tasks: k, the checkpoint.
    """
    return 0 if spec.capabilities.order == "after_first" else num_tasks - 1


def weights_rule(spec: RunSpec) -> str:
    """Return a text that says which weights replace the fixed weights, for readers of the store."""
    if spec.capabilities.order == "after_first":
        return "shared/<source>[0], if it exists, replaces weights/<source>"
    return (
        "at checkpoint k, shared/<source>[i] with after_task[i] = k - 1 replaces weights/<source>"
    )


def kept_checkpoints(
    spec: RunSpec, store: MaskStore, config: Config, checkpoints: list[int]
) -> list[int]:
    """Return those of the checkpoints for which the store keeps the trained weights.

    Raises:
        UserError: there is no such checkpoint, or the user asked for another checkpoint.
    """
    kept = [k for k in checkpoints if store.shared.keeps(weights_after(spec, k))]
    if not kept or (kept != checkpoints and config.evaluate.checkpoints != AUTO):
        known = [k for k in spec.config.evaluate.checkpoints if k <= max(checkpoints)]
        raise must_be(
            "evaluate.checkpoints",
            f"among the checkpoints with which the run began, because method={config.method} "
            f"keeps its weights only there: {known}",
            config.evaluate.checkpoints,
            f"evaluate.checkpoints={as_typed(known or spec.config.evaluate.checkpoints)}",
        )
    return kept
