"""Compute the memory of a GPU that the actors of a run take, for the plan in the log."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import prod

import torch

from harness.run.spec import RunSpec
from supsup_core.methods.planes import PlaneMethod
from supsup_core.names import NO_CHANGE
from supsup_core.networks.mlp import MLP
from supsup_core.networks.units import UnitMLP
from supsup_core.states.resident_storage import storage_bytes
from supsup_core.tasks.protocol import Task
from supsup_core.training.choose import trains_on_blocks, trains_on_units, trains_side_by_side
from supsup_core.training.resident_autograd import busy_blocks
from supsup_core.training.resident_autograd_tensors import AutogradForm, ScoreForm, score_forms
from supsup_core.training.resident_feed import needs_host
from supsup_core.training.resident_memory import training_memory
from supsup_core.training.resident_steps import PlainSteps
from supsup_core.training.resident_unit_tensors import UnitForm


def training_bytes(spec: RunSpec, num_blocks: int) -> int | None:
    """Compute how much memory of its GPU an actor takes at most to train blocks side by side.

    The number leaves out the images of the data set, and the memory of CUDA itself.

    Args:
        spec: the run's specification, with every `auto` resolved.
        num_blocks: number of blocks of a work unit.

    Returns:
        The number of bytes. None if blocks of this run do not train side by side.
    """
    given = spec.network, spec.method, spec.recipe
    num_channels = spec.input_shape[0] if len(spec.input_shape) > 2 else 1
    on_units = trains_on_units(*given, num_channels)
    on_blocks = trains_on_blocks(*given) and num_channels == 1
    if not (on_units or on_blocks or trains_side_by_side(*given)):
        return None
    by_autograd = not (on_units or on_blocks)
    try:
        num_tasks = min(int(spec.config.train.block), spec.config.tasks)
        block = [spec.task(i) for i in range(num_tasks)]
        scores = score_forms(*given, spec.config.seed, _accurate(spec)) if by_autograd else {}
    except Exception:  # the training meets the same error, and reports it
        return None
    if by_autograd:
        return _by_autograd(spec, block, num_blocks, scores)
    if any(map(needs_host, block)):  # the host makes the images, and one block trains at a time
        return None
    return (_on_units if on_units else _on_blocks)(spec, block, num_blocks)


def _on_units(spec: RunSpec, block: Sequence[Task], num_blocks: int) -> int:
    """Compute the bytes that ResidentUnitTrainer takes."""
    network = spec.network
    assert isinstance(network, UnitMLP)  # as trains_on_units says
    form = UnitForm.of([block] * num_blocks, spec.config.train.batch_size)
    return form.num_bytes(network.widths)


def _on_blocks(spec: RunSpec, block: Sequence[Task], num_blocks: int) -> int:
    """Compute the bytes that ResidentTrainer takes."""
    network, method, config = spec.network, spec.method, spec.config
    assert isinstance(network, MLP)  # as trains_on_blocks says
    assert isinstance(method, PlaneMethod)
    given = network, method, spec.recipe, _dtype(spec), _parts(), block, config.train.batch_size
    return training_memory(*given).needed(num_blocks)


def _by_autograd(
    spec: RunSpec, block: Sequence[Task], num_blocks: int, scores: Mapping[str, ScoreForm]
) -> int:
    """Compute the bytes that ResidentAutogradTrainer takes, which may divide the work unit."""
    network, num_images = spec.network, spec.config.train.batch_size
    fed = spec.recipe.augment != NO_CHANGE or any(map(needs_host, block))
    num = 1 if fed else min(num_blocks, busy_blocks(network, len(block), num_images))
    form = AutogradForm.of([block], num_images, fed=fed)
    return num * form.num_bytes(network, scores, prod(spec.input_shape), _dtype(spec))


def _dtype(spec: RunSpec) -> torch.dtype:
    """Return the type of the matrix products."""
    dtype: torch.dtype = getattr(torch, spec.config.train.dtype)
    return dtype


def _accurate(spec: RunSpec) -> torch.dtype:
    """Return the type of scores that are floats."""
    return torch.promote_types(_dtype(spec), torch.float32)


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
