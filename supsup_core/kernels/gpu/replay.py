"""Run a function on a GPU as a CUDA graph: the host starts all of its kernels at once."""

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
    own, graph = inputs.clone(), torch.cuda.CUDAGraph()
    torch.cuda.synchronize(inputs.device)
    with torch.cuda.graph(graph):
        found = function(own, other)
    return graph, own, found
