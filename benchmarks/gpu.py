"""Measure how fast one GPU trains, infers and recalls, and the speeds that limit it.

    python benchmarks/gpu.py ceilings train infer reservoir memory --device cuda
    python benchmarks/gpu.py actors --device cuda --actors 1 2 4

Each part prints JSON objects, one per line. `floor_seconds` is a lower bound of a time on an H100
(3.0 TB/s and 798 TFLOP/s in bfloat16), and `share_of_floor` is this bound divided by the time.

    ceilings   speed of memory, of matrix products, of copies to the device, and of launches
    check      differences of masks: blocks that train together or alone (three networks), and
               Triton or torch
    train      time per training step and tasks per second, for each form of the trainer
    whole      time to train, pack and measure --masks tasks by the whole recipe
    actors     tasks per second of several processes on one device
    infer      time per query among many masks, and how many answers equal the CPU's answers
    reservoir  time to store masks and to recall them
    memory     memory of training, computed for three sizes of GPUs; largest memory that training
               and inference took (null on the CPU)

The program needs only supsup_core, torch, numpy, numba and jaxtyping, so that it runs on a machine
where Ray is not installed. The files gpu_training.py, gpu_check.py and gpu_inference.py have the
parts. --data names an .npz file with the arrays train_images, train_labels, test_images and
test_labels; without it, the images are random shapes of ten classes.
"""

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from commandline import Parser, file, run_program
    from commandline import whole as number
except ModuleNotFoundError:  # without the packages of harness/, limits are not checked
    Parser, file = argparse.ArgumentParser, Path  # type: ignore[misc,assignment]

    def number(at_least: int = 1) -> Callable[[str], int]:  # type: ignore[misc]
        """Return the function that parses a whole number."""
        return int

    def run_program(main: Callable[[], None]) -> None:  # type: ignore[misc]
        """Run the program."""
        main()


from gpu_bench import H100_BYTES, H100_FLOPS, Bench
from gpu_check import check
from gpu_inference import infer, memory_of_inference, reservoir
from gpu_training import RECIPES, TYPES, actors, memory_of_training, train, whole

from supsup_core.names import INFERENCE_ALGORITHMS

WIDTHS = (784, 300, 100, 500)


def ceilings(bench: Bench) -> None:
    """Measure the speeds that limit everything else."""
    device, on_gpu = bench.device, bench.device.type == "cuda"
    values = torch.randint(0, 255, (2**30 if on_gpu else 2**26,), dtype=torch.uint8, device=device)
    other = torch.empty_like(values)
    seconds = bench.seconds(lambda: other.copy_(values))
    size = 8192 if on_gpu else 1024
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    multiplied = bench.seconds(lambda: a @ b)
    few = torch.zeros(8, device=device)
    launch = bench.seconds(lambda: [few.add_(1) for _ in range(100)]) / 100
    host = torch.empty(2**26, dtype=torch.uint8, pin_memory=on_gpu)
    across = bench.seconds(lambda: values[: len(host)].copy_(host, non_blocking=True))
    bench.print(
        "ceilings",
        memory_bytes_per_second=2 * len(values) / seconds,
        bfloat16_flops=2 * size**3 / multiplied,
        launch_seconds=launch,
        host_bytes_per_second=len(host) / across,
        predicted={"memory_bytes_per_second": H100_BYTES, "bfloat16_flops": H100_FLOPS},
    )


def memory(bench: Bench) -> None:
    """Measure the memory of training and of inference."""
    memory_of_training(bench)
    memory_of_inference(bench)


PARTS = {
    "ceilings": ceilings,
    "check": check,
    "train": train,
    "whole": whole,
    "actors": actors,
    "infer": infer,
    "reservoir": reservoir,
    "memory": memory,
}


def main() -> None:
    """Read the options and measure each part."""
    parser = Parser(__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--data", type=file)
    parser.add_argument("--widths", nargs="+", type=number(), default=list(WIDTHS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["paper"])
    parser.add_argument("--forms", nargs="+", choices=["triton", "torch"], default=["triton"])
    parser.add_argument("--tasks", nargs="+", type=number(), default=[8], help="side by side")
    parser.add_argument("--block", type=number(), default=8, help="tasks that share their batches")
    parser.add_argument(
        "--no-graphs", action="store_true", help="start each kernel of a step, without CUDA graphs"
    )
    parser.add_argument("--steps", type=number(3), default=60)
    parser.add_argument("--dtype", choices=TYPES, default="bfloat16")
    parser.add_argument("--actors", nargs="+", type=number(), default=[1], help="processes")
    parser.add_argument("--masks", type=number(), default=2500)
    parser.add_argument("--queries", nargs="+", type=number(), default=[1, 32])
    parser.add_argument("--together", type=number(), default=512, help="queries of one batch")
    parser.add_argument(
        "--compared", type=number(0), default=8, help="answers compared with the CPU"
    )
    parser.add_argument(
        "--algorithms", nargs="+", choices=INFERENCE_ALGORITHMS, default=["one_shot"]
    )
    parser.add_argument("--patterns", type=number(2), default=20, help="of the reservoir")
    parser.add_argument("--dim", type=number(), default=315_200, help="units of the reservoir")
    bench = Bench(parser.parse_args())
    name = bench.options.device
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name()
    bench.print("machine", device=name, torch=torch.__version__, python=platform.python_version())
    for part in bench.options.parts:
        PARTS[part](bench)


if __name__ == "__main__":
    run_program(main)
