"""Choose the device that computes, name it for the tables, and check that it still works."""

import sys

import torch

from harness.config.names import AUTO
from harness.errors import UserError


class DeviceError(RuntimeError):
    """The error for a GPU that has failed. With CUDA, every later call of the process fails too."""


def pick_device() -> torch.device:
    """Return the device of this process: a GPU if there is one, else the CPU.

    In an actor of Ray, the device is the GPU that Ray has assigned to the actor. An actor without a
    GPU computes on the CPU, although it may see the GPUs of its machine.

    Raises:
        UserError: Ray has assigned a GPU, but torch cannot use it.
    """
    assigned = _assigned_gpus()
    if assigned is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not assigned:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"torch must be able to use the GPU that Ray has assigned, got torch "
            f"{torch.__version__} without a GPU: install a build of torch for CUDA and a driver "
            "that fits it; to use the CPUs only, start Ray with ray start --num-gpus=0"
        )
    return torch.device("cuda")


def device_type() -> str:
    """Return the kind of the device of this process: "cpu" or "cuda"."""
    return pick_device().type


def training_device(kind: str) -> torch.device:
    """Return the device of a process that trains.

    Args:
        kind: the value of train.device. With auto, a GPU trains if this process has one.

    Raises:
        UserError: the kind is "cuda", and this process has no GPU.
    """
    if kind == "cpu":
        return torch.device("cpu")
    found = pick_device()
    if kind not in (AUTO, found.type):
        raise UserError(
            f"train.device must be a device of this machine, got {kind}, but torch sees no GPU: "
            "start Ray on a machine with a GPU, or begin another run with train.device=cpu"
        )
    return found


def _assigned_gpus() -> list[str] | None:
    """Return the GPUs that Ray has assigned; None if this process is no actor and no task of Ray.

    The list is empty for an actor without a GPU.
    """
    ray = sys.modules.get("ray")  # a process that runs for Ray has imported it
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    gpus: list[str] = context.get_accelerator_ids().get("GPU", [])
    return gpus if gpus or context.get_actor_id() is not None else None


def device_name(device: torch.device) -> str:
    """Return the name of a device for the tables: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def use_fixed_arithmetic() -> None:
    """Set the settings of torch in this process on which the bits of a result depend.

    A worker calls this function before it computes. The worker uses one thread, because Ray may set
    another number. On a GPU, sums of bfloat16 products stay in float32 until the end.
    """
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def check_works(device: torch.device) -> None:
    """Raise DeviceError if a GPU does not compute any more.

    A worker calls this function after an error. If the GPU has failed, the error says nothing about
    the task.
    """
    if device.type != "cuda":
        return
    try:
        torch.ones(1, device=device).add_(1).item()
    except Exception as error:
        raise DeviceError(f"CUDA error: the GPU of this worker has failed: {error}") from error
