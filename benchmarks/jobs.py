"""Make the job of a run for the benchmarks, and the matrix products of its training steps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from harness.config.compose import checked, compose_overrides
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.plan.resolve import resolve
from harness.run.provenance import has_bfloat16_matrices
from harness.run.refusals import check_against_data, check_capabilities
from harness.run.spec import RunSpec


def compose(options: Sequence[str]) -> Config:
    """Compose the configuration of a run from command-line options."""
    return checked(compose_overrides(options))


def resolved_job(config: Config, data: Dataset) -> RunSpec:
    """Make the job of a run, with every `auto` resolved for this machine.

    Raises:
        UserError: the data set, the network or the finder does not allow a value.
    """
    config = resolved_options(config)
    check_against_data(config, data)
    probe = RunSpec(config, data.input_shape, data.num_classes)
    check_capabilities(config, probe.capabilities)
    resolved = resolve(probe.config, probe.capabilities, has_bfloat16=has_bfloat16_matrices())
    return replace(probe, config=resolved)


def step_products(
    widths: Sequence[int], block: int, num_images: int, dtype: torch.dtype
) -> Callable[[], None]:
    """Make a function that computes the matrix products of a block's training step.

    The products are the forward pass, the gradient of the weights and the gradient of the
    activations.

    Args:
        widths: number of units in each layer, from the inputs to the outputs.
        block: number of tasks in the block.
        num_images: number of images in a batch.
        dtype: type of the matrices.
    """
    x = [torch.randn(block, width, num_images).to(dtype) for width in widths]
    w = [torch.randn(block, o, i).to(dtype) for i, o in pairwise(widths)]
    flat_w, flat_d, shared = w[0].flatten(0, 1), x[1].flatten(0, 1), x[0][0]

    def step() -> None:
        torch.mm(flat_w, shared)
        torch.mm(flat_d, shared.t())
        for i in range(1, len(w)):
            torch.bmm(w[i], x[i])
            torch.bmm(x[i + 1], x[i].transpose(1, 2))
            torch.bmm(w[i].transpose(1, 2), x[i + 1])

    return step
