"""The memory that the log promises for training on a GPU."""

import pytest

from harness.config.compose import compose_overrides, unchecked
from harness.config.options import resolved_options
from harness.plan.pools import pool_sizes
from harness.plan.resolve import resolve
from harness.plan.side_by_side import blocks_side_by_side
from harness.run.gpu_memory import mask_bytes, training_bytes
from harness.run.spec import RunSpec

SMALL = ("network=mlp", "network_options.hidden=[16]", "tasks=4")


def spec_of(*overrides, shape=(1, 28, 28)):
    probe = RunSpec(resolved_options(unchecked(compose_overrides([*overrides]))), shape, 10)
    return RunSpec(resolve(probe.config, probe.capabilities, bfloat16_is_faster=True), shape, 10)


@pytest.mark.parametrize(("gigabytes", "actors"), [(16, 3), (24, 4), (80, 4)])
def test_the_actors_of_a_gpu_fit_into_its_memory(gigabytes, actors):
    """The plan of 2500 tasks of LeNet, without actors of evaluation.

    An actor of training also measures, which takes 2 GB.
    """
    for train in ("paper", "fast"):
        spec = spec_of("tasks=2500", f"train={train}")
        blocks = blocks_side_by_side(spec.config, actors, True, 2500)
        assert blocks * int(spec.config.train.block) == 256
        needed = training_bytes(spec, blocks)
        assert 2.2e9 < needed < 3e9
        measuring, cuda = 2e9, 0.6e9
        assert actors * (needed + measuring + cuda) <= 1e9 * gigabytes


@pytest.mark.parametrize("gigabytes", [16, 24, 80])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_both_pools_fit_on_one_gpu_together(share, gigabytes):
    """The plan of 2500 tasks of LeNet. A GPU with 16 GB has room for 2 actors of training."""
    typed = f"actors.gpus={max(share, 1 / 3 if gigabytes == 16 else 0)}"
    spec = spec_of("tasks=2500", typed)
    train, evaluate = pool_sizes(spec.config, cpus=8, gpus=1.0)
    blocks = blocks_side_by_side(spec.config, train.actors, True, 2500)
    measuring, cuda, queries = 2e9, 0.6e9, 1e9
    taken = train.actors * (training_bytes(spec, blocks) + measuring + cuda)
    assert 1.6e9 < mask_bytes(spec) < 1.8e9
    taken += evaluate.actors * (mask_bytes(spec) + queries + cuda)
    assert train.actors >= 1 <= evaluate.actors
    assert evaluate.gpus > 0
    assert taken <= 1e9 * gigabytes


def test_memory_grows_with_the_blocks():
    spec = spec_of(*SMALL, "train.block=2")
    few, more, most = (training_bytes(spec, num) for num in (1, 2, 3))
    assert most - more == more - few > 2 * 4 * (784 + 500) * 16


def test_a_finder_without_a_kernel_stores_the_gradients_of_its_largest_layer():
    pytest.importorskip("triton")
    specs = [spec_of(*SMALL, "family=rotated", f"method={m}") for m in ("edge_popup", "n_of_m")]
    few, more = (training_bytes(spec, 1) for spec in specs)
    assert more - few == 4 * 784 * 16 * int(specs[0].config.train.block)


@pytest.mark.parametrize(
    "others",
    [
        (*SMALL, "family=permuted_rotated", "family_options.interpolation=bilinear"),
        (*SMALL, "method=exssnet", "evaluate.algorithms=[given]"),
    ],
)
def test_other_trainers_have_no_plan(others):
    assert training_bytes(spec_of(*others), 1) is None


def test_masks_over_units_have_a_plan():
    """A permuted task has signs of its own: one byte per weight of the first layer."""
    units = ("network=units", "network_options.hidden=[16]", "train=unit", "outputs=10")
    few, more, most = (training_bytes(spec_of(*units, "tasks=4"), num) for num in (1, 2, 3))
    assert most - more == more - few > 4 * 16 * 784
    assert few < 10 * (more - few)


def test_training_by_autograd_has_a_plan():
    """A weight takes 14 float32 values, and biprop keeps its magnitude too."""
    biprop = spec_of(*SMALL, "method=biprop", "train.block=2")
    few, more = (training_bytes(biprop, num) for num in (1, 2))
    weights = sum(tensor.num_gains for tensor in biprop.network.tensors)
    assert more == 2 * few
    assert few > 2 * 4 * 15 * weights
    assert training_bytes(spec_of(*SMALL, shape=(3, 8, 8)), 1) > 4 * 14 * 16 * 192
    # A convolutional network keeps a GPU busy with few blocks.
    conv = spec_of("network=small_conv", "tasks=64", "train.block=8")
    assert training_bytes(conv, 1) <= training_bytes(conv, 32) < 32 * training_bytes(conv, 1)


def test_blocks_whose_images_the_host_makes_take_turns():
    spec = spec_of("network=small_conv", "tasks=8", "train.augment=crop_flip")
    assert training_bytes(spec, 4) == training_bytes(spec, 1)
