"""Compute the memory of a GPU that the actors of a run take, for the plan in the log."""

from importlib.util import find_spec

import torch

from harness.run.spec import RunSpec
from supsup_core.methods.planes import PlaneMethod
from supsup_core.networks.mlp import MLP
from supsup_core.states.resident_storage import storage_bytes
from supsup_core.training.choose import trains_on_blocks
from supsup_core.training.resident_feed import needs_host
from supsup_core.training.resident_memory import training_memory
from supsup_core.training.resident_steps import PlainSteps


def training_bytes(spec: RunSpec, num_blocks: int) -> int | None:
    """Compute how much memory of its GPU an actor takes at most to train blocks side by side.

    The number leaves out the images of the data set, and the memory of CUDA itself.

    Args:
        spec: the run's specification, with every `auto` resolved.
        num_blocks: number of blocks that the actor trains at the same time.

    Returns:
        The number of bytes. None if another trainer than ResidentTrainer trains the run.
    """
    network, method = spec.network, spec.method
    one_channel = len(spec.input_shape) < 3 or spec.input_shape[0] == 1
    on_blocks = trains_on_blocks(network, method, spec.recipe) and one_channel
    if not on_blocks:
        return None
    assert isinstance(network, MLP)  # as trains_on_blocks says
    assert isinstance(method, PlaneMethod)
    config = spec.config
    try:
        block = [spec.task(i) for i in range(min(int(config.train.block), config.tasks))]
    except Exception:  # the training meets the same error, and reports it
        return None
    if any(map(needs_host, block)):
        return None
    dtype = getattr(torch, config.train.dtype)
    given = network, method, spec.recipe, dtype, _parts(), block, config.train.batch_size
    return training_memory(*given).needed(num_blocks)


def mask_bytes(spec: RunSpec) -> int:
    """Compute how much memory of its GPU an evaluation actor takes at most for stored masks.

    If the unpacked masks are too large for the GPU, the actor keeps only packed masks, which take
    a seventeenth of this number. The temporary tensors of inference are not counted, because the
    actor fits their number to the free memory.

    Args:
        spec: the run's specification, with every `auto` resolved.
    """
    evaluate = spec.config.evaluate
    num_masks = max(evaluate.checkpoints, default=0) + evaluate.distractors
    return storage_bytes(spec.layout.row_bytes, num_masks)


def _parts() -> PlainSteps:
    """Return the parts of a step that a GPU with Triton uses."""
    if find_spec("triton") is None:
        return PlainSteps()
    from supsup_core.training.triton_steps import TritonSteps

    return TritonSteps()
