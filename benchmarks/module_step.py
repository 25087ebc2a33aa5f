"""Measure a training step of small_conv for a block of tasks, computed in five ways.

    python benchmarks/module_step.py --tasks 4 8 --batch 128

    network    ModuleNetwork.logits, which chooses between a loop and vmap
    vmap       torch.func.vmap over torch.func.functional_call
    loop       a loop over the tasks
    loop_last  the same loop, with images and filters laid out channels last
    grouped    one grouped convolution per layer, written by hand for small_conv

A step is a forward pass with the statistics of the batch, and the gradient of the gains. The ways
take turns, so that a ratio compares times that were measured close together. A time is the median
over the rounds, in milliseconds of processor time per task. Processor time depends little on other
programs. A ratio is the median of the rounds' ratios to the time of `loop`, with its range. The
program uses one thread.
"""

import statistics
import time
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from commandline import Parser, need_memory, run_program, whole
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from supsup_core.networks.conv import small_conv
from supsup_core.networks.module import as_network

Logits = Callable[[dict[str, Tensor], Tensor], Tensor]
SHAPE = (1, 28, 28)
NUM_OUTPUTS = 10
CHANNELS = 16  # of the first layer of small_conv


def batch_module() -> nn.Module:
    """Make small_conv without running statistics, so that it normalises by the batch alone."""
    module = small_conv(SHAPE, NUM_OUTPUTS)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return module


def last(values: Tensor) -> Tensor:
    """Lay out a tensor of four dimensions channels last; return any other tensor unchanged."""
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values


def by_vmap(weights: dict[str, Tensor], own: bool) -> Logits:
    """Make the function that computes the logits of all tasks at once, by vmap."""
    module = batch_module()

    def run(effective: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(module, effective, (inputs,))

    def logits(gains: dict[str, Tensor], inputs: Tensor) -> Tensor:
        effective = {name: weights[name] * gain for name, gain in gains.items()}
        found: Tensor = vmap(run, in_dims=(0, 0 if own else None))(effective, inputs)
        return found

    return logits


def by_loop(weights: dict[str, Tensor], own: bool, order: Callable[[Tensor], Tensor]) -> Logits:
    """Make the function that computes one task after another; `order` lays out each tensor."""
    module = batch_module()

    def logits(gains: dict[str, Tensor], inputs: Tensor) -> Tensor:
        parts = {name: gain.unbind() for name, gain in gains.items()}
        num_tasks = len(next(iter(parts.values())))
        shared = None if own else order(inputs)
        found = []
        for i in range(num_tasks):
            effective = {name: order(weights[name] * part[i]) for name, part in parts.items()}
            x = order(inputs[i]) if shared is None else shared
            found.append(functional_call(module, effective, (x,)))
        return torch.stack(found)

    return logits


def by_groups(weights: dict[str, Tensor], own: bool) -> Logits:
    """Make the function that computes one convolution per layer, with one group per task."""

    def logits(gains: dict[str, Tensor], inputs: Tensor) -> Tensor:
        first, second, head = (weights[name] * gain for name, gain in gains.items())
        num_tasks = len(head)
        x = inputs.transpose(0, 1).flatten(1, 2) if own else inputs
        groups = num_tasks if own else 1
        for filters in (first, second):
            x = functional.conv2d(x, filters.flatten(0, 1), padding=1, groups=groups)
            x = functional.batch_norm(functional.max_pool2d(x, 2), None, None, training=True)
            x, groups = functional.relu(x), num_tasks
        x = x.unflatten(1, (num_tasks, -1)).flatten(2).transpose(0, 1)
        found: Tensor = x @ head.transpose(1, 2)
        return found

    return logits


def seconds_of_step(logits: Logits, gains: dict[str, Tensor], x: Tensor, labels: Tensor) -> float:
    """Measure the processor seconds of one step: forward, loss, gradient in the gains."""
    begin = time.process_time()
    found = logits(gains, x)
    loss = functional.cross_entropy(found.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.autograd.grad(loss, list(gains.values()))
    return time.process_time() - begin


def measure(num_tasks: int, batch: int, own: bool, rounds: int) -> None:
    """Measure the ways in turn, and print their times. If `own`, each task has its own images."""
    network = as_network("small_conv", small_conv(SHAPE, NUM_OUTPUTS), SHAPE)
    weights = network.weights(0)
    ways: dict[str, Logits] = {
        "network": lambda gains, x: network.logits(weights, gains, x),
        "vmap": by_vmap(weights, own),
        "loop": by_loop(weights, own, lambda values: values),
        "loop_last": by_loop(weights, own, last),
        "grouped": by_groups(weights, own),
    }
    torch.manual_seed(0)
    gains = {
        t.name: (torch.rand(num_tasks, *t.shape) < 0.5).float().requires_grad_()
        for t in network.tensors
    }
    x = torch.randn(*((num_tasks,) if own else ()), batch, *SHAPE)
    labels = torch.randint(0, 2, (num_tasks, batch))
    expected = ways["loop"](gains, x)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for logits in ways.values():
        torch.testing.assert_close(logits(gains, x), expected, rtol=1e-4, atol=1e-4)
        seconds_of_step(logits, gains, x, labels)
    for _ in range(rounds):
        for name, logits in ways.items():
            times[name].append(seconds_of_step(logits, gains, x, labels))
    print(f"{num_tasks} tasks, batch {batch}, {'own' if own else 'shared'} images")
    for name, seconds in times.items():
        ratios = sorted(a / b for a, b in zip(seconds, times["loop"], strict=True))
        print(
            f"  {name:10} {1e3 * statistics.median(seconds) / num_tasks:7.2f} ms per task   "
            f"{statistics.median(ratios):.2f} x loop ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--tasks", type=whole(), nargs="+", default=[4, 8], help="tasks per block")
    parser.add_argument("--batch", type=whole(), default=128, help="images per batch")
    parser.add_argument("--rounds", type=whole(), default=5, help="measurements of each way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # The first layer's outputs, and their gradients.
    size = 8 * CHANNELS * prod(SHAPE)
    need_memory(size * max(options.tasks) * options.batch, "--tasks and --batch")
    for num_tasks in options.tasks:
        for own in (False, True):
            measure(num_tasks, options.batch, own, options.rounds)


if __name__ == "__main__":
    run_program(main)
