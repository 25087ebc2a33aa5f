"""Measure tasks per hour of three ways to train masks, and the share of the matrix rate reached.

    python benchmarks/train.py --data mnist --recipe paper --network lenet_300_100

    authors  one task at a time, with autograd, torch.optim and 1x1 convolutions as layers; one
             process with one thread per core
    plain    the same with linear layers
    ours     blocks of tasks; one single-thread process per core

All three forms train on the same images, which are held in memory. --recipe sets the recipe of
`ours` only; `authors` and `plain` always train by the paper's recipe. The forms take turns within
one call, so that a ratio compares times that were measured close together. A ratio is the median of
the rounds' ratios. Seconds per task are printed with their range over the rounds. The matrix rate
is the speed of the matrix products of a training step alone, with the same shapes and type, on all
cores at once. Accuracies are means over tasks on all test images, with a 95 % interval by
Student's t.
"""

import argparse
import json
import os
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from children import end_with_parent
from commandline import Parser, run_program, whole
from intervals import interval
from jobs import compose, resolved_job
from torch import nn

from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.data.names import DATASETS
from harness.plan.units import TrainUnit
from harness.run.spec import RunSpec
from harness.workers.training import TrainWorker
from supsup_core.data import normalise
from supsup_core.methods.planes import KeepMethod
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.batches import task_batches
from supsup_core.training.products import step_products

FORMS = ("authors", "plain", "ours")


@dataclass(frozen=True)
class Measured:
    """The measurements of all rounds.

    Attributes:
        seconds: for each form, the seconds per task in each round.
        accuracies: for each form, the accuracy of each task that was trained to the end.
        peaks: for each form, the peak bytes of its largest process.
        shares: share of the matrix rate that `ours` reached in each round.
        scalings: tasks per hour of one actor per core, divided by tasks per hour of one actor
            alone, in each round.
    """

    seconds: dict[str, list[float]]
    accuracies: dict[str, list[float]]
    peaks: dict[str, int]
    shares: list[float]
    scalings: list[float]


@dataclass(frozen=True)
class Result:
    """The figures of one form. A ratio is its tasks per hour, divided by those of another form."""

    form: str
    recipe: str
    dtype: str
    network: str
    tasks_per_hour: float
    ratio_authors: float
    ratio_plain: float
    matrix_rate_share: float | None
    actors_scaling: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    peak_bytes: int


class _KeepMasked(torch.autograd.Function):
    """Product of mask and weight. The scores get the gradient of the mask, unchanged."""

    @staticmethod
    def forward(ctx, scores, mask, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight)
        return weight * mask

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        return gradient * weight, None, None


class _MaskedLayer(nn.Module):
    """A layer of fixed weights and a trained mask: linear, or the authors' 1x1 convolution."""

    def __init__(
        self,
        tensor: MaskedTensor,
        weight: torch.Tensor,
        scores: np.ndarray,
        method: KeepMethod,
        *,
        conv: bool,
    ):
        super().__init__()
        self._tensor, self._weight = tensor, weight
        self.scores = nn.Parameter(torch.from_numpy(scores))
        self._method, self._conv = method, conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (N, I) to (N, O), or inputs (N, I, 1, 1) to (N, O, 1, 1)."""
        mask = self._method.mask(self._tensor, self.scores.detach()[None])[0]
        weight = _KeepMasked.apply(self.scores, mask, self._weight)
        if self._conv:
            return nn.functional.conv2d(x, weight[:, :, None, None])
        return nn.functional.linear(x, weight)


class OneTaskForm:
    """A trainer of one task after another by autograd, with one thread per core."""

    def __init__(self, spec: RunSpec, conv: bool) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self._spec, self._conv = spec, conv
        data = load_dataset(spec.config.data)
        self._train, self._test = data.train, data.test
        self._pixels = normalise(
            torch.from_numpy(self._train.flat), self._train.mean, self._train.std
        )
        self._labels = torch.from_numpy(self._train.labels).long()

    def run(self, task_id: int, steps: int) -> tuple[float, float, int]:
        """Train a task; return seconds per step, final accuracy, and peak bytes of the process."""
        task, recipe = self._spec.task(task_id), self._spec.recipe
        network, method, seed = self._spec.network, self._spec.method, self._spec.config.seed
        assert isinstance(network, MLP)
        assert isinstance(method, KeepMethod)
        scores, weights = method.begin(network, task_id, seed), self._spec.weights()
        layers: list[nn.Module] = []
        for tensor in network.tensors:
            start, weight = scores[tensor.name], weights[tensor.source]
            layers += [_MaskedLayer(tensor, weight, start, method, conv=self._conv), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        parameters = list(model.parameters())
        optimizer = recipe.make_optimizer().torch_form(parameters, recipe.learning_rate)
        source = torch.arange(network.widths[0])
        if task.source is not None:
            source = torch.from_numpy(task.source.astype(np.int64))
        order = task_batches([task], self._train, recipe, seed)
        began = time.perf_counter()
        for step in range(steps):
            index = torch.from_numpy(next(order)[0].copy())
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
            logits = self._logits(model, self._pixels[index][:, source])
            loss = nn.functional.cross_entropy(logits, self._labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = (time.perf_counter() - began) / steps
        images = torch.from_numpy(task.images(self._test.flat))
        with torch.no_grad():
            logits = self._logits(model, normalise(images, self._test.mean, self._test.std))
        right = (logits.argmax(1).numpy() == self._test.labels).mean()
        return seconds, float(right), _peak_bytes()

    def _logits(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self._conv:
            logits: torch.Tensor = model(images[:, :, None, None]).flatten(1)
            return logits
        flat: torch.Tensor = model(images)
        return flat


class BlockForm:
    """The project's training actor, and the matrix products of its steps alone."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        data = load_dataset(spec.config.data)
        self._worker = TrainWorker(spec, data.train, data.test, name="benchmark")

    def run(self, first: int) -> tuple[float, list[float], int]:
        """Train, measure and pack a block of tasks; return seconds, accuracies and peak bytes."""
        ids = tuple(range(first, first + int(self._spec.config.train.block)))
        began = time.perf_counter()
        trained = self._worker.run(TrainUnit("unit", ids, ids))
        seconds = time.perf_counter() - began
        return seconds, trained.tasks["accuracy"].to_pylist(), _peak_bytes()

    def products(self, repeats: int) -> float:
        """Measure the seconds per step and task of the matrix products of a training step."""
        block, n = int(self._spec.config.train.block), self._spec.config.train.batch_size
        dtype = getattr(torch, self._spec.config.train.dtype)
        products = step_products(self._spec.network.widths, block, n, dtype)
        for repeat in range(repeats + 3):
            if repeat == 3:  # the first three steps warm up
                began = time.perf_counter()
            for product in products:
                product.compute()
        return (time.perf_counter() - began) / repeats / block


_form: Any = None  # the form of a child process: its initialiser sets it, and each call uses it


def _make(kind: type, *arguments: Any) -> None:
    end_with_parent()
    global _form  # the pool offers no other way to keep state in a child
    _form = kind(*arguments)


def _call(name: str, *arguments: Any) -> Any:
    return getattr(_form, name)(*arguments)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(kind: type, *arguments: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_make, initargs=(kind, *arguments)
    )


def measure(spec: RunSpec, paper: RunSpec, rounds: int, steps: int, full: bool) -> Measured:
    """Let all forms take turns.

    Args:
        spec: the specification of the run of `ours`: recipe, network and type of the products.
        paper: the specification for `authors` and `plain`: the same, but with the paper's recipe.
        rounds: number of turns of each form.
        steps: training steps in a round of `authors` and `plain`. A few steps are enough, because
            the time per step does not change.
        full: whether `authors` and `plain` train a task to the end in each round, so that their
            accuracy is measured.
    """
    recipe, cores, block = spec.recipe, os.cpu_count() or 1, int(spec.config.train.block)
    one_task = {
        "authors": _child(OneTaskForm, paper, True),
        "plain": _child(OneTaskForm, paper, False),
    }
    ours = [_child(BlockForm, spec) for _ in range(cores)]
    got = Measured(
        seconds={form: [] for form in FORMS},
        accuracies={form: [] for form in FORMS},
        peaks=dict.fromkeys(FORMS, 0),
        shares=[],
        scalings=[],
    )
    for child in ours:  # compile the kernels before anything is timed
        child.submit(_call, "run", 0).result()
    for turn in range(rounds):
        for form, child in one_task.items():
            num = paper.recipe.steps if full else steps
            a_step, accuracy, got.peaks[form] = child.submit(_call, "run", turn, num).result()
            got.seconds[form].append(a_step * paper.recipe.steps)
            got.accuracies[form].extend([accuracy] if full else [])
        bare = [child.submit(_call, "products", 50) for child in ours]
        products = statistics.mean(b.result() for b in bare) * recipe.steps * block
        began = time.perf_counter()
        calls = [
            child.submit(_call, "run", (turn * cores + i) * block) for i, child in enumerate(ours)
        ]
        results = [call.result() for call in calls]
        got.seconds["ours"].append((time.perf_counter() - began) / (block * cores))
        got.accuracies["ours"].extend(a for result in results for a in result[1])
        got.peaks["ours"] = max(result[2] for result in results)
        together = statistics.mean(result[0] for result in results)
        got.shares.append(products / together)
        alone, _, _ = ours[0].submit(_call, "run", turn * cores * block).result()
        got.scalings.append(cores * alone / together)
    for child in [*one_task.values(), *ours]:
        child.shutdown()
    return got


def results(spec: RunSpec, got: Measured) -> list[Result]:
    """Compute the medians of each form. For a ratio, this is the median of the rounds' ratios."""

    def ratio(form: str, over: str) -> float:
        pairs = zip(got.seconds[over], got.seconds[form], strict=True)
        return statistics.median(other / own for other, own in pairs)

    found = []
    for form in FORMS:
        ours, accuracies = form == "ours", got.accuracies[form]
        mean, low, high = interval(accuracies) if len(accuracies) > 1 else (None, None, None)
        found.append(
            Result(
                form=form,
                recipe=spec.config.train.name if ours else "paper",
                dtype=spec.config.train.dtype if ours else "float32",
                network=spec.config.network,
                tasks_per_hour=3600 / statistics.median(got.seconds[form]),
                ratio_authors=ratio(form, "authors"),
                ratio_plain=ratio(form, "plain"),
                matrix_rate_share=statistics.median(got.shares) if ours else None,
                actors_scaling=statistics.median(got.scalings) if ours else None,
                accuracy=mean,
                accuracy_low=low,
                accuracy_high=high,
                peak_bytes=got.peaks[form],
            )
        )
    return found


def _print(found: list[Result], got: Measured) -> None:
    print(
        f"{'form':8} {'tasks/h':>9} {'/authors':>9} {'/plain':>7} {'matrix':>7} "
        f"{'accuracy (95 %)':>26} {'peak MB':>8}   seconds per task, range"
    )
    for r in found:
        share = f"{r.matrix_rate_share:.0%}" if r.matrix_rate_share is not None else ""
        accuracy = ""
        if r.accuracy is not None:
            accuracy = f"{r.accuracy:.4f} [{r.accuracy_low:.4f}, {r.accuracy_high:.4f}]"
        low, high = min(got.seconds[r.form]), max(got.seconds[r.form])
        print(
            f"{r.form:8} {r.tasks_per_hour:9.0f} {r.ratio_authors:9.2f} {r.ratio_plain:7.2f} "
            f"{share:>7} {accuracy:>26} {r.peak_bytes / 1e6:8.0f}   {low:.3f} to {high:.3f}"
        )
    low, high = min(got.scalings), max(got.scalings)
    print(
        f"tasks per hour of {os.cpu_count()} actors: {statistics.median(got.scalings):.2f} x "
        f"({low:.2f} to {high:.2f}) the tasks per hour of one actor"
    )


def _job(arguments: argparse.Namespace, recipe: str, data: Dataset) -> RunSpec:
    """Make the specification of a run from these options and a recipe."""
    options = [
        f"data={arguments.data}",
        f"train={recipe}",
        f"network={arguments.network}",
        f"outputs={arguments.outputs}",
        f"train.dtype={arguments.dtype}",
        f"train.block={arguments.block}",
        "tasks=2500",
    ]
    return resolved_job(compose(options), data)


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--data", choices=DATASETS, default="mnist")
    parser.add_argument("--recipe", default="paper", help="recipe of `ours`")
    parser.add_argument("--network", default="lenet_300_100")
    parser.add_argument("--outputs", type=whole(), default=500)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--block", default="auto")
    parser.add_argument("--rounds", type=whole(), default=5)
    parser.add_argument("--steps", type=whole(), default=100, help="steps per turn, one-task forms")
    parser.add_argument("--full", action="store_true", help="one-task forms train to the end")
    parser.add_argument("--json", action="store_true", help="print one object per line")
    arguments = parser.parse_args()
    data = load_dataset(arguments.data)
    spec = _job(arguments, arguments.recipe, data)
    if not isinstance(spec.network, MLP):
        parser.error(f"--network must be an MLP, got {arguments.network}: try lenet_300_100")
    paper = _job(arguments, "paper", data)
    got = measure(spec, paper, arguments.rounds, arguments.steps, arguments.full)
    found = results(spec, got)
    if arguments.json:
        for result in found:
            print(json.dumps(asdict(result)))
    else:
        _print(found, got)


if __name__ == "__main__":
    run_program(main)
