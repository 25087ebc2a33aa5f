"""Tests of the device that a worker chooses."""

import sys
from types import SimpleNamespace

import pytest
import torch

from harness.errors import UserError
from harness.plan import device
from harness.plan.device import DeviceError, check_works, pick_device


@pytest.fixture
def in_ray(monkeypatch):
    """A function that pretends to run in Ray, with assigned GPUs, in an actor or in the driver."""

    def pretend(gpus, *, actor, sees_gpu):
        context = SimpleNamespace(
            get_accelerator_ids=lambda: {"GPU": gpus, "TPU": []},
            get_actor_id=lambda: "01" if actor else None,
        )
        ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: sees_gpu)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "actor", "sees_gpu", "expected"),
    [
        (["0"], True, True, "cuda"),
        (["0"], False, True, "cuda"),  # a task of Ray
        ([], True, True, "cpu"),  # sees the GPUs of the machine, and has none of its own
        ([], True, False, "cpu"),
        ([], False, True, "cuda"),  # the driver
        ([], False, False, "cpu"),
    ],
)
def test_an_actor_computes_where_ray_has_put_it(gpus, actor, sees_gpu, expected, in_ray):
    in_ray(gpus, actor=actor, sees_gpu=sees_gpu)
    assert pick_device().type == expected


def test_an_assigned_gpu_that_torch_cannot_use_is_refused(in_ray):
    in_ray(["1"], actor=True, sees_gpu=False)
    with pytest.raises(UserError, match=r"^torch must be able to use the GPU .*, got torch .*: "):
        pick_device()


def test_a_gpu_that_computes_no_more_is_an_error_of_the_device(monkeypatch):
    check_works(torch.device("cpu"))

    def broken(*shape, device):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(device.torch, "ones", broken)
    check_works(torch.device("cpu"))
    with pytest.raises(DeviceError, match="CUDA error: the GPU of this worker has failed"):
        check_works(torch.device("cuda"))
