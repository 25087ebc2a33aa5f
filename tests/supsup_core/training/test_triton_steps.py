"""The Triton kernels of a training step: equal to the plain form, and compiled for two GPUs.

One test runs the other tests of this file in a process with Triton's interpreter.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.multicoated import Multicoated
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.streams import Role, key, stream
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_steps import PlainSteps
from triton_tests import compile_for, compiled, interpreted, pass_interpreted

pytest.importorskip("triton")

CPU = torch.device("cpu")
NETWORK = MLP("small", (64, 24, 20))
RECIPE = Recipe(3, 32, 1e-3, smoothing=0.9)
RECIPES = [
    RECIPE,
    replace(RECIPE, optimizer="adam", momentum=0.9),
    replace(RECIPE, optimizer="sgd", momentum=0.9, decay="linear", temperature=1.5),
]


@compiled
def test_interpreted_kernels_pass_their_tests():
    pass_interpreted(__file__)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 64), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 10, 120, dtype=np.uint8), (0.13,), (0.31,))


# Every family, finder and optimiser once: with all their combinations, the test takes minutes. The
# finders with several planes train by SGD, because it enlarges no differences of rounding.
CASES = [
    ("permuted", Threshold(), RECIPES[0]),
    ("rotated", Threshold(), RECIPES[1]),
    ("split", EdgePopup(0.3), RECIPES[2]),
    ("permuted", Signed(), RECIPES[2]),
    ("rotated", Multicoated(), RECIPES[2]),
    ("permuted", Multicoated(scale_fan=True), RECIPES[2]),
]


@interpreted
@pytest.mark.parametrize(("family", "method", "recipe"), CASES)
def test_kernels_train_as_the_plain_form(family, method, recipe, data, make_tasks):
    from supsup_core.training.triton_steps import TritonSteps

    blocks = [
        make_tasks(family, ids, side=8, num_classes=10, num_tasks=4) for ids in ((0, 1), (2, 3))
    ]
    layers, rows = [], []
    for parts in (PlainSteps(), TritonSteps()):
        trainer = ResidentTrainer(
            *(NETWORK, method, data, lambda task, state: None, recipe),
            seed=0,
            dtype=torch.float32,
            device=CPU,
            parts=parts,
        )
        rows.append(layout_of(NETWORK, method).pack(trainer.side_by_side(blocks)))
        layers.append(trainer._kept.layers)
    assert np.array_equal(*rows)
    for plain, found in zip(*layers, strict=True):
        torch.testing.assert_close(found.scores, plain.scores, rtol=0, atol=5e-6)
        assert torch.equal(plain.state[0].signbit(), found.state[0].signbit())
        assert torch.equal(found.masked.float(), plain.masked)


@interpreted
@pytest.mark.parametrize("reorders", [False, True])
def test_first_scores_are_the_draws_of_their_streams(reorders):
    from supsup_core.training.triton_steps import TritonSteps

    keys = np.stack([key(3, Role.SCORES, task, 1) for task in (4, 9)])
    columns = torch.stack([torch.randperm(7), torch.randperm(7)]).int() if reorders else None
    found, plain = torch.empty(2, 2, 5, 7)
    TritonSteps().draw(keys, 0.25, columns, found)
    PlainSteps().draw(keys, 0.25, columns, plain)
    assert torch.equal(found, plain)
    draws = stream(3, Role.SCORES, 9, 1).random((5, 7), dtype=np.float32)
    expected = torch.from_numpy((2 * draws - 1) * np.float32(0.25))
    if columns is not None:
        found = found.gather(2, columns.long()[:, None, :].expand(found.shape))
    assert torch.equal(found[1], expected)


# For each kernel, the types of its arguments (X: a pointer to products), and its constants.
SIZES = {"OUTPUTS": 300, "INPUTS": 784, "IMAGES": 128}
STRIDES = {"x_input": 1, "x_image": 784}
KERNELS = {
    "pick": ("*u8 *i32 *i32 *i32 X fp32 fp32", {
        "PIXELS": 784, "VALUES": 784, "IMAGES": 128, "CHOOSES": True, "BLOCK": 1024}),
    "forward": ("*i8 X X i32 i32", SIZES | STRIDES | {
        "RELU": True, "PRECISION": "tf32", "BO": 64, "BI": 64, "BN": 128}),
    "logit_gradient": ("X *i32 *i32 *i32 i32 i32 fp32", {
        "OUTPUTS": 500, "IMAGES": 128, "BS": 128, "BN": 64}),
    "back": ("*i8 X X X", SIZES | {"PRECISION": "tf32", "BO": 64, "BI": 64, "BN": 128}),
    "learn": ("X X *fp32 *fp32 *fp32 *i8 *fp32 *i32 i32 i32", SIZES | STRIDES | {
        "NUM_CONSTANTS": 7, "HAS_SECOND": True, "BY_MAGNITUDE": True, "SLOPE": 3.0, "MASKS": True,
        "PRECISION": "tf32", "BO": 64, "BI": 64, "BN": 64}),
    "draw": ("*i64 *i32 *fp32 fp32", {
        "VALUES": 235200, "INPUTS": 784, "REORDERS": True, "BLOCK": 1024}),
}  # fmt: skip


@compiled
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_without_a_gpu(name, capability):
    from supsup_core.training import triton_steps
    from supsup_core.training.triton_moves import MOVES

    types, constants = KERNELS[name]
    constants = constants | ({"MOVE": MOVES["adam"]} if name == "learn" else {})
    kernel = getattr(triton_steps, f"{name}_kernel")
    compile_for(capability, kernel, types.replace("X", "*bf16"), constants)


@compiled
def test_a_unit_with_fewer_tasks_compiles_nothing_again():
    """Triton compiles a kernel again if a number becomes 1 or a multiple of 16."""
    from supsup_core.kernels.gpu import packed
    from supsup_core.training import triton_steps

    vary = {"tasks_per_group", "num_groups", "num_rows", "num_queries", "num_candidates"}
    kernels = [getattr(triton_steps, f"{name}_kernel") for name in KERNELS]
    kernels += [kernel for name, kernel in vars(packed).items() if name.endswith("_kernel")]
    assert len(kernels) == 11
    found = [
        (kernel.__name__, parameter.name)
        for kernel in kernels
        for parameter in kernel.params
        if parameter.name in vary and not parameter.do_not_specialize
    ]
    assert found == []
