"""Training side by side on a pretended GPU: values, launches, copies, waits and addresses."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.data import ImageSet
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.multicoated import Multicoated
from supsup_core.methods.n_of_m import NOfM
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import lenet_300_100
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_steps import PlainSteps

NETWORK = lenet_300_100((64,), 20)
RECIPE = Recipe(6, 16, 1e-3, smoothing=0.9)
CASES = [  # the families with each form of the images, and the finders with each kind of planes
    ("permuted", Threshold()),
    ("rotated", Threshold()),
    ("rotated", EdgePopup(0.3)),
    ("permuted", Signed()),
    ("permuted", Multicoated(scale_fan=True)),
    ("permuted", NOfM()),
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 64), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 10, 60, dtype=np.uint8), (0.13,), (0.31,))


class CountedSteps(PlainSteps):
    """The plain parts of a step, each counted as the one launch that its Triton kernel is."""


def counted(name):
    plain = getattr(PlainSteps, name)

    def part(self, *arguments, **options):
        gpu = PretendedCuda.current
        before = gpu.kernels
        plain(self, *arguments, **options)
        gpu.kernels = before + 1

    return part


for _name in ("pick", "forward", "logit_gradient", "back", "learn"):
    setattr(CountedSteps, _name, counted(_name))


def trainer_on(device, data, method=Threshold(), kind=None):  # noqa: B008
    options = {"seed": 0, "dtype": torch.float64, "device": device}
    if kind is not None:
        return kind(NETWORK, method, data, lambda task, state: None, RECIPE, **options)
    return trainer_for(*(NETWORK, method, data, data, RECIPE), **options)


def blocks_of(make_tasks, family="permuted", num_blocks=3):
    ends = range(0, 2 * num_blocks + 1, 2)
    return [
        make_tasks(family, range(*span), side=8, num_classes=10, num_tasks=12)
        for span in pairwise(ends)
    ]


@pytest.mark.parametrize(
    ("family", "method"),
    CASES,
    ids=[f"{family}-{type(method).__name__}" for family, method in CASES],
)
def test_masks_and_accuracies_are_those_of_the_cpu(family, method, data, make_tasks):
    blocks, layout = blocks_of(make_tasks, family), layout_of(NETWORK, method)
    tasks = [task for block in blocks for task in block]
    on_cpu = trainer_on(torch.device("cpu"), data, method)
    expected = on_cpu.side_by_side(blocks)
    with PretendedCuda():
        trainer = trainer_on(CUDA, data, method)
        assert isinstance(trainer, ResidentTrainer)
        found = trainer.side_by_side(blocks)
        measured = trainer.measure_each(tasks, found)
    assert np.array_equal(layout.pack(found), layout.pack(expected))
    for one, other in zip(measured, on_cpu.measure_each(tasks, expected), strict=True):
        assert one.accuracy == other.accuracy
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_a_step_copies_nothing_waits_for_nothing_and_has_few_launches(num_blocks, data, make_tasks):
    marks, addresses = [], []
    with PretendedCuda() as gpu:
        trainer = trainer_on(CUDA, data)
        trainer.parts = CountedSteps()

        def on_step(done):
            copies = gpu.uploads + gpu.downloads
            marks.append((gpu.kernels, copies, gpu.waits))
            tensors = trainer._kept._tensors()
            addresses.append([tensor.inner.data_ptr() for tensor in tensors])

        trainer.side_by_side(blocks_of(make_tasks, num_blocks=num_blocks), on_step)
    steps = {tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(marks)}
    assert len(steps) == 1  # every step is the same
    ((launches, copies, waits),) = steps
    # Images, 3 layers forward, the loss, 3 layers learning, 2 layers back, and the step's number.
    assert (launches, copies, waits) == (11, 0, 0)
    assert all(one == addresses[0] for one in addresses)


@pytest.mark.parametrize("gigabytes", [16, 24, 80])
def test_the_blocks_chosen_for_a_memory_fit_into_it(gigabytes, data, make_tasks, monkeypatch):
    monkeypatch.setattr("supsup_core.training.resident.free_bytes", lambda _: gigabytes * 10**9)
    trainer, (block, *_) = trainer_on(torch.device("cpu"), data), blocks_of(make_tasks)
    trainer = ResidentTrainer(
        *(NETWORK, Threshold(), data, trainer._measure, RECIPE),
        seed=0,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    trainer._device = torch.device("cuda")
    most, memory = trainer._most_blocks(block), trainer.memory(block)
    assert most > 100
    assert memory.needed(most) <= 0.8 * gigabytes * 10**9
    assert memory.needed(most + 1) > 0.7 * gigabytes * 10**9


@pytest.mark.parametrize("family", ["permuted", "rotated"])
def test_memory_is_what_a_gpu_allocates(family, data, make_tasks, monkeypatch):
    for module in ("resident_steps", "resident_memory"):
        monkeypatch.setattr(f"supsup_core.training.{module}.PART_BYTES", 200_000)
    blocks = blocks_of(make_tasks, family)
    memory = trainer_on(torch.device("cpu"), data, kind=ResidentTrainer).memory(blocks[0])
    with PretendedCuda() as gpu:
        trainer = trainer_on(CUDA, data)
        gpu.reset()
        before = gpu.allocated_bytes
        trainer.side_by_side(blocks)
        kept = gpu.allocated_bytes - before - trainer._copied.num_bytes
        peak = gpu.peak_bytes - before - trainer._copied.num_bytes
    assert kept == trainer._kept.num_bytes
    assert kept < peak <= memory.needed(len(blocks))
    assert peak > 0.8 * (memory.needed(len(blocks)) - memory.temporary)
