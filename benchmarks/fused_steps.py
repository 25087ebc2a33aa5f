"""Measure the fused training steps of a mask finder against its plain steps, on one core.

    python benchmarks/fused_steps.py --method n_of_m method_options.n=1 train.block=4

The options after --method are options of a run. The images are random, with 28x28 pixels, and the
tasks are permutations. The program prints two tables for each network.

The first table has a step of the scores of one tensor, for one task:

    threshold  the fused step of the threshold rule
    fused      the fused step of the finder
    torch      the finder's step, by separate PyTorch operations

The second table has a whole training step of a block of tasks, with the forward pass, the backward
pass and the images:

    fused      the trainer of blocks, with fused steps
    torch      the trainer of blocks, with steps by separate PyTorch operations
    autograd   the plain trainer, with autograd and torch.optim

The forms take turns in each round, so that a ratio compares times that were measured close
together. Times and ratios are medians over the rounds. Time is the thread's processor time, which
depends little on other programs.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from commandline import Parser, run_program, whole
from jobs import compose

from harness.config.options import resolved_options
from harness.errors import UserError
from harness.plan.resolve import resolve
from harness.run.spec import RunSpec
from supsup_core import names
from supsup_core.data import ImageSet, normalise
from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.training.batches import Batch, batch_images, batch_labels, block_batches
from supsup_core.training.blocks import MLPTrainer, logit_constant
from supsup_core.training.choose import trainer_for, trains_on_blocks, trains_on_scaled_blocks
from supsup_core.training.descent import Descent
from supsup_core.training.inputs import BlockInputs
from supsup_core.training.layers import BlockLayer, layer_gradients

NETWORKS = ("lenet_300_100", "fc_1024_1024")
SIDE, NUM_CLASSES, NUM_IMAGES = 28, 10, 2048
NUM_GRADIENTS = 8  # number of different gradients, which are used in turn
WARM_UP = 3  # first rounds, not counted: kernels compile, and thresholds become steady
CPU = torch.device("cpu")

# A function that takes one step. Its argument is the number of the step, from 0.
Step = Callable[[int], None]


def random_images() -> ImageSet:
    """Draw random images and labels."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (NUM_IMAGES, SIDE, SIDE), dtype=np.uint8)
    labels = generator.integers(0, NUM_CLASSES, NUM_IMAGES, dtype=np.uint8)
    return ImageSet(pixels, labels, (0.5,), (0.29,))


def without_fast_rule(method: PlaneMethod) -> PlaneMethod:
    """Make a finder with the same options that has no fused step."""

    def none(_finder: object, _tensor: object) -> None:
        return None

    kind = type(f"{type(method).__name__}InTorch", (type(method),), {"fast_rule": none})
    made: PlaneMethod = kind(**vars(method))
    return made


class Forms:
    """The forms of the steps of a run's finder.

    Args:
        spec: the run's specification, with an MLP and a finder that has a fused step.
        data: the training images.
    """

    def __init__(self, spec: RunSpec, data: ImageSet) -> None:
        assert isinstance(spec.network, MLP)
        assert isinstance(spec.method, PlaneMethod)
        self._network, self._method, self._recipe = spec.network, spec.method, spec.recipe
        self._data, self._seed = data, spec.config.seed
        self._dtype = getattr(torch, spec.config.train.dtype)
        self._tasks = [spec.task(i) for i in range(int(spec.config.train.block))]

    def of_tensor(self, index: int) -> Mapping[str, Step]:
        """Make the steps of the scores of one tensor of the network, for one task."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, *self._network.tensors[index].shape)
        constant = 0.3 * torch.randn(shape, generator=generator)
        gradients = [
            (1e-3 * (constant + torch.randn(shape, generator=generator))).to(self._dtype)
            for _ in range(NUM_GRADIENTS)
        ]

        def form(method: PlaneMethod) -> Step:
            layer = self._layers(method, 1)[0][index]
            rate = self._recipe.learning_rate
            return lambda count: layer.learn_from(gradients[count % NUM_GRADIENTS], rate)

        return {
            "threshold": form(Threshold()),
            "fused": form(self._method),
            "torch": form(without_fast_rule(self._method)),
        }

    def of_block(self) -> Mapping[str, Step]:
        """Make the whole training steps of the block."""
        return {
            "fused": self._by_layers(self._method),
            "torch": self._by_layers(without_fast_rule(self._method)),
            "autograd": self._by_autograd(),
        }

    def _layers(self, method: PlaneMethod, num_tasks: int) -> tuple[list[BlockLayer], BlockInputs]:
        tasks, data, network = self._tasks[:num_tasks], self._data, self._network
        given = {"seed": self._seed, "dtype": self._dtype}
        trainer = trainer_for(network, method, data, data, self._recipe, **given)
        assert isinstance(trainer, MLPTrainer)
        inputs = BlockInputs(tasks, data, self._dtype, CPU, reorders=method.reorders)
        return trainer.begin(tasks, inputs), inputs

    def _by_layers(self, method: PlaneMethod) -> Step:
        layers, inputs = self._layers(method, len(self._tasks))
        order, constant = self._order(), logit_constant(self._network, self._recipe)

        def step(count: int) -> None:
            x, labels = inputs.of(next(order))
            rate = self._recipe.learning_rate_at(count)
            for i, delta, received in layer_gradients(layers, x, labels, constant):
                layers[i].learn(delta, received, rate)

        return step

    def _by_autograd(self) -> Step:
        network, ids = self._network, [task.task_id for task in self._tasks]
        weights = {n: w.to(self._dtype) for n, w in network.weights(self._seed).items()}
        starts = [self._method.begin(network, i, self._seed) for i in ids]
        given = network, self._method, self._recipe, weights, starts
        descent = Descent(*given, task_ids=ids, seed=self._seed)
        order = self._order()
        return lambda count: descent.step(count, *self._shown(next(order)))

    def _order(self):  # type: ignore[no-untyped-def]
        return block_batches(self._tasks, self._data, self._recipe, self._seed)

    def _shown(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the images and the labels of each task, as AutogradTrainer does."""
        pixels = torch.from_numpy(batch_images(batch, self._data, self._recipe, self._seed))
        labels = torch.from_numpy(batch_labels(batch.tasks, self._data, batch.index))
        return normalise(pixels, self._data.mean, self._data.std).to(self._dtype), labels


def measure(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Take the steps of all forms in turns; return the milliseconds of each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for count in range(WARM_UP + rounds):
        for name, step in steps.items():
            began = time.thread_time()
            step(count)
            if count >= WARM_UP:
                found[name].append(1e3 * (time.thread_time() - began))
    return found


def line(found: Mapping[str, list[float]], ratios: list[tuple[str, str]]) -> str:
    """Write the median milliseconds of each form, and the median ratios of some pairs."""
    times = " ".join(f"{statistics.median(ms):10.3f}" for ms in found.values())
    shown = [
        f"{one} / {other} "
        f"{statistics.median(a / b for a, b in zip(found[one], found[other], strict=True)):6.2f}"
        for one, other in ratios
    ]
    return f"{times} ms   {'   '.join(shown)}"


def specification(method: str, network: str, options: list[str]) -> RunSpec:
    """Make the specification of a run with 64 permutations.

    Raises:
        UserError: an option is wrong, or the finder has no fused step for this network and recipe.
    """
    fixed = [f"method={method}", f"network={network}", "outputs=10", "tasks=64"]
    config = resolved_options(compose([*fixed, "family=permuted", *options]))
    spec = RunSpec(config, (SIDE, SIDE), NUM_CLASSES)
    config = resolve(config, spec.capabilities, bfloat16_is_faster=False)
    spec = RunSpec(config, (SIDE, SIDE), NUM_CLASSES)
    finder = spec.method
    has_rule = isinstance(finder, PlaneMethod) and finder.fast_rule(spec.network.tensors[0])
    given = spec.network, finder, spec.recipe
    if not has_rule or not (trains_on_blocks(*given) or trains_on_scaled_blocks(*given)):
        raise UserError(
            f"--method must have a fused step with these options, got {method}: try --method "
            "threshold"
        )
    return spec


def main() -> None:
    """Read the options, and print the tables."""
    parser = Parser(__doc__)
    parser.add_argument("--method", choices=names.METHODS, default="edge_popup")
    parser.add_argument("--network", choices=NETWORKS, help="only this network; default: all")
    parser.add_argument("--rounds", type=whole(), default=30)
    parser.add_argument("options", nargs="*", help="options of a run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [args.network] if args.network else NETWORKS
    specs = {name: specification(args.method, name, args.options) for name in chosen}
    data = random_images()
    for network, spec in specs.items():
        forms, block = Forms(spec, data), spec.config.train.block
        print(
            f"{network}, {spec.method}, {spec.recipe.make_optimizer()}, {spec.config.train.dtype}"
        )
        print(f"{'one tensor of one task':24} {'threshold':>10} {'fused':>10} {'torch':>10}")
        for i, tensor in enumerate(spec.network.tensors):
            found = measure(forms.of_tensor(i), args.rounds)
            shown = line(found, [("fused", "threshold"), ("torch", "fused")])
            print(f"{tensor.shape[0]:5} x {tensor.shape[1]:4}{'':12} {shown}", flush=True)
        print(f"{'whole step of the block':24} {'fused':>10} {'torch':>10} {'autograd':>10}")
        found = measure(forms.of_block(), args.rounds)
        shown = line(found, [("torch", "fused"), ("autograd", "fused")])
        print(f"{block:5} tasks{'':13} {shown}", flush=True)


if __name__ == "__main__":
    run_program(main)
