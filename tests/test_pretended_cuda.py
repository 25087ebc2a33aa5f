"""Tests of the pretended GPU itself."""

import pytest
import torch

from pretended_cuda import CUDA, OnCuda, PretendedCuda, RefusedError


def test_values_are_real_and_copies_are_counted():
    with PretendedCuda() as gpu:
        left = torch.arange(6.0).view(2, 3).to(CUDA)
        found = (left @ left.t()).relu_()
        assert isinstance(found, OnCuda)
        assert found.device == CUDA
        assert (gpu.uploads, gpu.uploaded_bytes, gpu.kernels, gpu.waits) == (1, 24, 2, 0)
        assert found.cpu().tolist() == [[5.0, 14.0], [14.0, 50.0]]
        assert (gpu.downloads, gpu.downloaded_bytes, gpu.waits) == (1, 16, 1)
        assert float(found[0, 0]) == 5
        assert gpu.waits == 2


def test_nothing_is_left_behind():
    before = torch.tensor, torch._C._only_lift_cpu_tensors()
    with PretendedCuda():
        assert isinstance(torch.tensor([1.0], device=CUDA), OnCuda)
        assert isinstance(torch.zeros(2, device=CUDA), OnCuda)
    assert (torch.tensor, torch._C._only_lift_cpu_tensors()) == before
    assert PretendedCuda.current is None
    assert not isinstance(torch.zeros(2), OnCuda)


def test_mixed_devices_and_numpy_are_refused():
    with PretendedCuda():
        there, here = torch.ones(2, device=CUDA), torch.ones(2)
        with pytest.raises(RefusedError, match="tensors on the GPU and on the CPU"):
            there + here
        with pytest.raises(RefusedError, match="converted to NumPy"):
            there.numpy()
        with pytest.raises(RefusedError, match="indexed by GPU indices"):
            here[torch.zeros(1, dtype=torch.int64, device=CUDA)]
        with pytest.raises(RefusedError, match="generator of the CPU"):
            torch.randn(2, device=CUDA, generator=torch.Generator())
        assert (there + torch.tensor(1.0)).cpu().tolist() == [2, 2]


def test_views_and_writes_reach_the_same_memory():
    with PretendedCuda() as gpu:
        whole = torch.zeros(3, 4, device=CUDA)
        gpu.reset()
        part = whole[1:, 2:]
        assert gpu.kernels == 0
        part.copy_(torch.ones(2, 2))
        torch.mul(part, 3.0, out=whole[:2, :2])
        assert whole.sum().item() == 4 + 12 - 0


def test_gradients_flow():
    with PretendedCuda() as gpu:
        leaf = torch.ones(3, device=CUDA).requires_grad_()
        (gradient,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
        assert gpu.waits == 0
        assert gradient.cpu().tolist() == [2, 2, 2]


def test_values_that_decide_shapes_make_the_host_wait():
    with PretendedCuda() as gpu:
        values = torch.arange(4.0, device=CUDA)
        gpu.reset()
        is_large = values > 1
        assert gpu.waits == 0
        assert values[is_large].shape == (2,)
        is_large.nonzero()
        assert gpu.waits >= 2


def test_memory_is_counted_once_while_a_tensor_uses_it():
    with PretendedCuda() as gpu:
        whole = torch.zeros(10, device=CUDA)
        part = whole[2:]
        assert (gpu.allocated_bytes, gpu.peak_bytes) == (40, 40)
        del whole
        assert gpu.allocated_bytes == 40  # `part` uses the memory
        part = part + 1
        assert (gpu.allocated_bytes, gpu.peak_bytes) == (32, 72)
        gpu.reset()
        assert gpu.peak_bytes == 32
        del part
        assert gpu.allocated_bytes == 0
