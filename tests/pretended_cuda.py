"""A pretended GPU for machines without one: real values on the CPU, with the rules of a GPU.

Inside `with PretendedCuda() as gpu:`, a tensor on the device CUDA wraps a tensor on the CPU, so all
results are real. The rules of a GPU hold: an operation of a GPU tensor and a CPU tensor is refused,
and so is the conversion of a GPU tensor to NumPy. The object counts kernels, copies between host
and GPU with their bytes, and waits of the host for the GPU.

PyTorch without CUDA cannot make tensors on "cuda". So CUDA is the device "meta", which no code of
this project uses otherwise. Code that must be tested here may ask whether a device is the CPU, but
not whether it is "cuda".
"""

import weakref
from collections import Counter
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("meta")

# Operations that start no kernel on a GPU: views, and memory without values
_NO_KERNEL = {
    *("_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand"),
    *("lift_fresh", "permute", "reshape", "resize_", "select", "slice", "split", "squeeze", "t"),
    *("split_with_sizes", "transpose", "unbind", "unfold", "unsqueeze", "view"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}
_INDEXING = {"_index_put_impl_", "_unsafe_index", "index", "index_put", "index_put_"}
_SCALAR = "_local_scalar_dense"  # the operation that reads one number: float(tensor), bool(tensor)


class RefusedError(RuntimeError):
    """An operation that a GPU would refuse."""


class OnCuda(torch.Tensor):
    """A tensor on the pretended GPU.

    Attributes:
        inner: the tensor on the CPU that has the values.
    """

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnCuda":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CUDA,
        )
        made.inner = inner
        if PretendedCuda.current is not None:
            PretendedCuda.current.note_memory(made)
        return made

    def __init__(self, inner: torch.Tensor) -> None: ...

    def __repr__(self) -> str:
        return f"OnCuda({self.inner})"

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self) -> Any:
        raise RefusedError("a GPU tensor was converted to NumPy")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # autograd and others call operations outside of the mode
        return _run(func, args, kwargs or {}, PretendedCuda.current)


class PretendedCuda(TorchDispatchMode):
    """A context in which the device CUDA exists, and a record of its use.

    Attributes:
        kernels: number of kernels.
        uploads, downloads: numbers of copies from the host to the GPU, and back.
        uploaded_bytes, downloaded_bytes: sizes of these copies.
        waits: number of times that the host waited for a result: downloads, and reads of a number.
        operations: number of calls by (kind, name of the operation).
        allocated_bytes: size of the memory of all GPU tensors that exist now.
        peak_bytes: the largest value of allocated_bytes since the last call of `reset`.
    """

    current: "PretendedCuda | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.allocated_bytes = 0
        # For each address of memory, the number of tensors that use the memory, and its size.
        self._held: dict[int, list[int]] = {}
        self._addresses: dict[weakref.ref[OnCuda], int] = {}
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0. Memory that tensors use stays counted."""
        self.peak_bytes = self.allocated_bytes
        self.kernels = self.uploads = self.downloads = self.waits = 0
        self.uploaded_bytes = self.downloaded_bytes = 0
        self.operations: Counter[tuple[str, str]] = Counter()

    def note_memory(self, made: OnCuda) -> None:
        """Count the memory of a new tensor, until all tensors that use the memory are gone."""
        storage = made.inner.untyped_storage()
        held = self._held.setdefault(storage.data_ptr(), [0, storage.nbytes()])
        if not held[0]:
            self.allocated_bytes += held[1]
            self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        held[0] += 1
        self._addresses[weakref.ref(made, self._forget)] = storage.data_ptr()

    def _forget(self, gone: "weakref.ref[OnCuda]") -> None:
        address = self._addresses.pop(gone)
        held = self._held[address]
        held[0] -= 1
        if not held[0]:
            self.allocated_bytes -= self._held.pop(address)[1]

    def note_copy(self, name: str, size: int, *, is_upload: bool) -> None:
        """Count a copy between host and GPU of `size` bytes."""
        self.operations["upload" if is_upload else "download", name] += 1
        if is_upload:
            self.uploads, self.uploaded_bytes = self.uploads + 1, self.uploaded_bytes + size
        else:
            self.downloads, self.downloaded_bytes = self.downloads + 1, self.downloaded_bytes + size
            self.waits += 1

    def note_kernel(self, name: str) -> None:
        """Count a kernel."""
        self.operations["kernel", name] += 1
        self.kernels += 1

    def note_wait(self, name: str) -> None:
        """Count a wait for a value that decides what the host does next."""
        self.operations["wait", name] += 1
        self.waits += 1

    def __enter__(self) -> Self:
        assert PretendedCuda.current is None, "one pretended GPU at a time"
        PretendedCuda.current = self
        # Otherwise torch.tensor(..., device=CUDA) would not pass through __torch_dispatch__.
        self._lifts_cpu_only = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._tensor = torch.tensor
        torch.tensor = self._made  # type: ignore[assignment]
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        torch.tensor = self._tensor
        torch._C._set_only_lift_cpu_tensors(self._lifts_cpu_only)
        PretendedCuda.current = None
        super().__exit__(kind, error, where)

    def _made(self, data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        """Do the work of torch.tensor, which has no form for the device of this file."""
        made = self._tensor(data, **options)
        return made if device is None else made.to(device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device) == CUDA


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnCuda) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any], gpu: PretendedCuda | None) -> Any:
    """Run an operation on the tensors inside, check the rules, and count."""
    gpu = gpu or PretendedCuda()  # a tensor may be used after the end of the context
    name = func._schema.name.split("::")[1]
    if name in ("_to_copy", "copy_"):
        return _copied(func, name, args, kwargs, gpu)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    is_cuda = any(isinstance(t, OnCuda) for t in tensors)
    if is_cuda:
        _check_devices(name, args, tensors, gpu)
    to_cuda = is_cuda or _is_cuda(kwargs.get("device"))
    plain_args, plain_kwargs = tree_map(_inner, (args, dict(kwargs)))
    if _is_cuda(plain_kwargs.get("device")):
        plain_kwargs["device"] = torch.device("cpu")
    generator = plain_kwargs.get("generator")
    if to_cuda and generator is not None and generator.device.type == "cpu":
        raise RefusedError(f"{name}: a generator of the CPU draws a GPU tensor")
    if func._schema.overload_name == "dtype" and name in ("mm", "bmm"):
        # The CPU has no matrix product with another type of the result.
        left, right, dtype = plain_args
        found = torch.matmul(left.to(dtype), right.to(dtype))
    else:
        found = func(*plain_args, **plain_kwargs)
    if not to_cuda:
        return found
    if name == _SCALAR:
        gpu.note_wait(name)
        return found
    if name not in _NO_KERNEL:
        gpu.note_kernel(name)
    if name == "nonzero" or (name in _INDEXING and _has_bool(args[1])):
        gpu.note_wait(name)  # the size of the result depends on values
    wrapped = tree_map(lambda t: OnCuda(t) if isinstance(t, torch.Tensor) else t, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if is_cuda else wrapped


def _has_bool(indices: Any) -> bool:
    return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices)


def _copied(func: Any, name: str, args: Any, kwargs: dict[str, Any], gpu: PretendedCuda) -> Any:
    """Copy a tensor: within the host, within the GPU, or between the two."""
    plain_args, plain_kwargs = tree_map(_inner, (args, dict(kwargs)))
    device = plain_kwargs.pop("device", None)
    from_cuda = isinstance(args[0 if name == "_to_copy" else 1], OnCuda)
    if name == "copy_":
        to_cuda = isinstance(args[0], OnCuda)
    else:
        to_cuda = from_cuda if device is None else _is_cuda(device)
    found = func(*plain_args, **plain_kwargs)
    if from_cuda and to_cuda:
        gpu.note_kernel(name)
    elif from_cuda or to_cuda:
        gpu.note_copy(name, found.numel() * found.element_size(), is_upload=to_cuda)
    if name == "copy_":
        return args[0]
    return OnCuda(found) if to_cuda else found


def _check_devices(name: str, args: Any, tensors: list[torch.Tensor], gpu: PretendedCuda) -> None:
    """Refuse tensors on two devices. Numbers without a dimension and indices may be on the CPU."""
    others = [t for t in tensors if not isinstance(t, OnCuda) and t.dim()]
    if name in _INDEXING:
        if not isinstance(args[0], OnCuda):
            raise RefusedError(f"{name}: a CPU tensor was indexed by GPU indices")
        values = args[2] if len(args) > 2 else None
        for index in others:
            if index is not values:
                gpu.note_copy(name, index.numel() * index.element_size(), is_upload=True)
        others = [t for t in others if t is values]
    if others:
        shapes = [tuple(t.shape) for t in others]
        raise RefusedError(f"{name}: tensors on the GPU and on the CPU, the latter {shapes}")
