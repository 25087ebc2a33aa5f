"""What benchmarks share: a job as a run would make it, and the bare products of its steps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from harness.config.commandline import compose_command_line, from_hydra
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.plan.resolve import resolve
from harness.run.provenance import has_bfloat16_matrices
from harness.run.spec import RunSpec


def compose(options: Sequence[str]) -> Config:
    """The configuration of a run with these options."""
    composed = compose_command_line(list(options))
    assert composed is not None
    return from_hydra(composed)


def resolved_job(config: Config, data: Dataset) -> RunSpec:
    """The job of a run, every `auto` resolved for this machine."""
    probe = RunSpec(resolved_options(config), data.input_shape, data.num_classes)
    resolved = resolve(probe.config, probe.capabilities, has_bfloat16=has_bfloat16_matrices())
    return replace(probe, config=resolved)


def step_products(
    widths: Sequence[int], block: int, num_images: int, dtype: torch.dtype
) -> Callable[[], None]:
    """All matrix products of a step of a block: forward, weights, activations."""
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
