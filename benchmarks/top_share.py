"""Measure the time of an optimiser's step by edge-popup and by the threshold rule, on one core.

    python benchmarks/top_share.py --optimizer rmsprop --dtype float32 --rounds 200

    threshold  the step of the threshold rule, in one fused kernel
    fused      the step of edge-popup, in fused kernels
    plain      the step of edge-popup, by separate PyTorch operations

Each printed line is one tensor of one task. The forms take turns in each round, so that a ratio
compares times that were measured close together. Times and ratios are medians over the rounds. Time
is the thread's processor time, which depends little on other programs. A gradient is the sum of a
random part that is the same in all rounds and a random part that changes from round to round.
"""

import statistics
import time
from collections.abc import Callable

import torch
from commandline import Parser, real, run_program, whole
from torch import Tensor

from supsup_core.kernels.top_share import keep_largest_plain
from supsup_core.training.optimizers import OPTIMIZERS, FusedStep, Optimizer, make_optimizer
from supsup_core.training.top_share_step import TopShareStep

SHAPES = {
    "lenet_300_100": ((300, 784), (100, 300), (10, 100)),
    "fc_1024": ((1024, 784), (1024, 1024), (10, 1024)),
}
DENSITY = 0.5
NUM_GRADIENTS = 8  # number of different gradients, which are used in turn
WARM_UP = 5  # first rounds, not counted: kernels compile, and edge-popup's cut becomes steady


class Forms:
    """The three steps. Each step has its own tensors, with the same values at the start.

    Args:
        shape: shape of the tensor, (outputs, inputs).
        optimizer: the optimiser of the scores.
        dtype: type of the gradients and of the masked signs.
        learning_rate: learning rate of every step.
    """

    def __init__(
        self, shape: tuple[int, int], optimizer: Optimizer, dtype: torch.dtype, learning_rate: float
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        scores = (2 * torch.rand(shape, generator=generator) - 1) / shape[1] ** 0.5
        signs = 2.0 * torch.randint(0, 2, shape, generator=generator) - 1
        constant = 0.3 * torch.randn(shape, generator=generator)
        self._pool = [
            (1e-3 * (constant + torch.randn(shape, generator=generator))).to(dtype)
            for _ in range(NUM_GRADIENTS)
        ]
        self._gradients = torch.empty(shape, dtype=dtype)
        self._optimizer, self._learning_rate = optimizer, learning_rate
        self._num_kept = round(DENSITY * scores.numel())
        self._scores, self._state = scores.clone(), optimizer.begin(signs)
        self._masked = torch.empty(shape, dtype=dtype)
        state, masked = optimizer.begin(signs), torch.empty(shape, dtype=dtype)
        self._threshold = FusedStep(optimizer, scores.clone(), state, self._gradients, masked)
        state, masked = optimizer.begin(signs), torch.empty(shape, dtype=dtype)
        self._fused = TopShareStep(
            optimizer, scores.abs(), state, self._gradients, masked, self._num_kept
        )

    def round(self, count: int, with_plain: bool) -> list[float]:
        """Take step number `count` in each form, and return the seconds of each form."""
        steps: list[Callable[[], None]] = [
            lambda: self._threshold.step(self._learning_rate, count),
            lambda: self._fused.step(self._learning_rate, count),
        ]
        if with_plain:
            steps.append(lambda: self._plain(count))
        seconds = []
        for step in steps:
            # In training too, a matrix product has just written the gradient.
            self._gradients.copy_(self._pool[count % NUM_GRADIENTS])
            start = time.thread_time()
            step()
            seconds.append(time.thread_time() - start)
        return seconds

    def _plain(self, count: int) -> None:
        scores, state = self._scores, self._state
        signs = self._optimizer.signs(state)
        sign: Tensor = torch.where(scores >= 0, 1.0, -1.0)
        constants = self._optimizer.constants(self._learning_rate, count)
        self._optimizer.move(scores, state, self._gradients.float() * signs * sign, constants)
        keep_largest_plain(scores.abs(), signs, self._masked, self._num_kept)


def measure(forms: Forms, rounds: int, plain_every: int) -> str:
    """Measure the forms; return a line with their median microseconds and median ratios."""
    both, with_plain = [], []
    for count in range(1, WARM_UP + rounds + 1):
        seconds = forms.round(count, with_plain=count % plain_every == 0)
        if count > WARM_UP:
            both.append(seconds[:2])
            with_plain += [seconds] if len(seconds) == 3 else []
    threshold, fused = (statistics.median(times) * 1e6 for times in zip(*both, strict=True))
    plain = statistics.median(times[2] for times in with_plain) * 1e6
    over_threshold = statistics.median(times[1] / times[0] for times in both)
    over_fused = statistics.median(times[2] / times[1] for times in with_plain)
    return (
        f"{threshold:9.0f} {fused:9.0f} {plain:9.0f} us   fused / threshold {over_threshold:5.2f}"
        f"   plain / fused {over_fused:6.1f}"
    )


def main() -> None:
    """Read the options, and print one line per tensor."""
    parser = Parser(__doc__)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="rmsprop")
    parser.add_argument("--momentum", type=real(at_least=0, below=1), default=0.0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--learning-rate", type=real(above=0), default=1e-4)
    parser.add_argument("--rounds", type=whole(), default=200)
    parser.add_argument(
        "--plain-every", type=whole(), default=10, help="rounds between plain steps"
    )
    args = parser.parse_args()
    if args.rounds < args.plain_every:
        parser.error(
            f"--rounds must be >= --plain-every, got {args.rounds}: raise --rounds, or lower "
            "--plain-every"
        )
    torch.set_num_threads(1)
    try:
        optimizer = make_optimizer(args.optimizer, smoothing=0.99, momentum=args.momentum)
    except ValueError as error:
        parser.error(f"--{error}")
    print(f"{optimizer}, {args.dtype}{'':20} threshold  fused  plain")
    for network, shapes in SHAPES.items():
        for shape in shapes:
            forms = Forms(shape, optimizer, getattr(torch, args.dtype), args.learning_rate)
            line = measure(forms, args.rounds, args.plain_every)
            print(f"{network:14} {shape[0]:5} x {shape[1]:4} {line}", flush=True)


if __name__ == "__main__":
    run_program(main)
