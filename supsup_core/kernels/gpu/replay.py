"""Run functions on a GPU as CUDA graphs: the host starts all kernels of a function at once."""

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor, Any], Any]


class Replays:
    """CUDA graphs of one function, one graph per shape of its input.

    The first call with a shape runs the function, which compiles kernels and fills caches. The
    second call records a graph. Later calls copy the input into the graph's memory and replay the
    graph. On other devices, for longer inputs, and if the function cannot be recorded, every call
    runs the function.

    Args:
        most_inputs: the largest length of an input for which a graph is recorded.
    """

    def __init__(self, most_inputs: int) -> None:
        self._most_inputs = most_inputs
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, tuple[Any, Tensor, Any]] = {}
        self._fails = False

    def __call__(self, function: Function, inputs: Tensor, other: Any) -> Any:
        """Return function(inputs, other).

        Args:
            function: the function. It must be the same in every call, must not wait for the GPU,
                and must return a tuple of tensors. The next call may overwrite these tensors.
            inputs: the first argument.
            other: the second argument. It must be hashable.
        """
        is_large = inputs.device.type != "cuda" or len(inputs) > self._most_inputs
        key = inputs.shape, inputs.dtype, other
        if is_large or self._fails or key not in self._seen:
            self._seen.add(key)
            return function(inputs, other)
        if key not in self._graphs:
            try:
                self._graphs[key] = _recorded(function, inputs, other)
            except Exception as error:
                self._fails = True
                warnings.warn(
                    f"a CUDA graph must be recorded, got {type(error).__name__}: {error}: "
                    "inference of single queries is slower",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return function(inputs, other)
        graph, own, found = self._graphs[key]
        own.copy_(inputs)
        graph.replay()
        return found


def _recorded(function: Function, inputs: Tensor, other: Any) -> tuple[Any, Tensor, Any]:
    """Record a graph. Return the graph, the tensor that it reads, and the results it writes."""
    own = inputs.clone()
    graph, found = _graph_of(lambda: function(own, other), inputs.device)
    return graph, own, found


class RepeatedStep:
    """A function that is called many times with the same tensors, as a training step is.

    The first call runs the function, because a recording must not compile or load kernels. On a
    CUDA device, the first call then records the function as a graph, and later calls replay the
    graph. On other devices, and if the function cannot be recorded, every call runs the function.

    Args:
        device: the device of all tensors.
        graphs: whether a graph is recorded.
    """

    def __init__(self, device: torch.device, *, graphs: bool) -> None:
        self._device, self._records = device, graphs and device.type == "cuda"
        self._replay: Callable[[], None] | None = None

    def __call__(self, step: Callable[[], None]) -> None:
        """Call the function, or replay its graph.

        Args:
            step: the function. It must be the same in every call, must not wait for the device, and
                its tensors must keep their addresses.
        """
        if self._replay is not None:
            self._replay()
            return
        step()
        if self._records:
            self._records = False
            self._record(step)

    def _record(self, step: Callable[[], None]) -> None:
        try:
            graph, _ = _graph_of(step, self._device)
            self._replay = graph.replay
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            warnings.warn(
                f"a CUDA graph must be recorded, got {type(error).__name__}: {error}: each step "
                "starts its kernels one by one, which takes more time",
                RuntimeWarning,
                stacklevel=2,
            )


def _graph_of(function: Callable[[], Any], device: torch.device) -> tuple[Any, Any]:
    """Record a graph of a function. Return the graph, and the results that it writes."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        found = function()
    return graph, found
