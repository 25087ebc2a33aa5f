"""Copy the structure of a torch.nn.Module without its tensors. Each call of a copy passes tensors.

The structure is copied three times, because attributes of a batch normalisation layer determine
which statistics the layer uses. The copies have no common state that a call could change.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from supsup_core.networks.protocol import FloatSpec

Masked = Sequence[str] | Callable[[str, nn.Parameter], bool]

_MASKED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_STATISTICS = {"running_mean": 0.0, "running_var": 1.0}  # name -> initial value


def masked_parameters(module: nn.Module, masked: Masked | None) -> dict[str, nn.Parameter]:
    """Choose the parameters that are masked.

    Args:
        module: the user's module.
        masked: a list of patterns of parameter names, as in fnmatch, or a function
            (name, parameter) -> bool. If None, the weights of all Linear and Conv layers are
            chosen.

    Returns:
        A mapping from name to parameter, in the module's order. A parameter that several layers
        use appears once.

    Raises:
        ValueError: a pattern matches no parameter, no parameter is chosen, or a masked layer has a
            bias that is not masked.
    """
    parameters = dict(module.named_parameters())
    if masked is None:
        layers = [layer for layer in module.modules() if isinstance(layer, _MASKED_LAYERS)]
        weights = {id(layer.weight) for layer in layers}
        chosen = {name: p for name, p in parameters.items() if id(p) in weights}
    elif callable(masked):
        chosen = {name: p for name, p in parameters.items() if masked(name, p)}
    else:
        chosen = {n: p for n, p in parameters.items() if any(fnmatchcase(n, m) for m in masked)}
        unused = [m for m in masked if not any(fnmatchcase(name, m) for name in parameters)]
        if unused:
            raise ValueError(
                f"masked must match names of named_parameters(), got {', '.join(unused)}: "
                "correct the pattern"
            )
    if not chosen:
        raise ValueError(
            "expected parameters to mask, got none: the module's parameters are "
            f"{', '.join(parameters) or 'none'}"
        )
    _check_biases(module, chosen)
    return chosen


def _check_biases(module: nn.Module, chosen: Mapping[str, nn.Parameter]) -> None:
    masked = {id(parameter) for parameter in chosen.values()}
    for name, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        biases = [key for key, p in own.items() if "bias" in key and id(p) not in masked]
        if biases and any(id(parameter) in masked for parameter in own.values()):
            where = _join(name, biases[0])
            raise ValueError(
                f"expected bias=False in masked layers, got {where} of {type(layer).__name__}"
            )


@dataclass(frozen=True, eq=False)  # modules have no useful ==
class Skeleton:
    """Three copies of a module's structure, and the tensors that all tasks share.

    Attributes:
        given: the copy that normalises with running statistics. Each call passes the statistics.
        tracking: the copy that normalises with the statistics of the batch. It also moves the
            running statistics, which each call passes, towards the statistics of the batch.
        by_batch: the copy that normalises with the statistics of the batch, and has no running
            statistics.
        fixed: a mapping from name to tensor, in float32: the parameters that are not masked, and
            the float buffers that are not running statistics.
        others: a mapping from name to tensor: the buffers of other dtypes.
        statistics: descriptions of the running means and variances that the module has.
        normalises: whether the module has batch normalisation.
    """

    given: nn.Module
    tracking: nn.Module
    by_batch: nn.Module
    fixed: dict[str, Tensor]
    others: dict[str, Tensor]
    statistics: tuple[FloatSpec, ...]
    normalises: bool

    @classmethod
    def of(cls, module: nn.Module, masked: Container[str]) -> "Skeleton":
        """Copy the structure and the tensors of a module. The module stays unchanged.

        Args:
            module: the user's module.
            masked: names of the masked parameters.

        Raises:
            ValueError: a batch normalisation layer has no momentum, or an instance normalisation
                layer has running statistics.
        """
        norms = _normalisations(module)
        counted = {
            _join(name, key) for name, norm in norms.items() for key, _ in norm.named_buffers()
        }
        buffers = {name: b for name, b in module.named_buffers() if name not in counted}
        others = {name: b for name, b in buffers.items() if not b.is_floating_point()}
        fixed: dict[str, Tensor] = {name: b for name, b in buffers.items() if name not in others}
        fixed |= {name: p for name, p in module.named_parameters() if name not in masked}
        return cls(
            *_copies(module, [*module.parameters(), *fixed.values()]),
            {name: t.detach().to("cpu", torch.float32, copy=True) for name, t in fixed.items()},
            {name: b.detach().to("cpu", copy=True) for name, b in others.items()},
            tuple(_statistics(norms)),
            bool(norms),
        )

    def module(self, *, given: bool, track: bool) -> nn.Module:
        """Return the copy of the module that a call must use.

        Args:
            given: whether the call passes running statistics.
            track: whether the call updates the running statistics that it passes.
        """
        if not given:
            return self.by_batch
        return self.tracking if track else self.given


def _join(layer: str, key: str) -> str:
    return f"{layer}.{key}" if layer else key


def _normalisations(module: nn.Module) -> dict[str, _BatchNorm]:
    norms = {}
    for name, layer in module.named_modules():
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            raise ValueError(
                f"expected track_running_stats=False in {type(layer).__name__} {name}, got True"
            )
        if isinstance(layer, _BatchNorm):
            if layer.momentum is None:
                raise ValueError(
                    f"expected a number as momentum of {type(layer).__name__} {name}, got None"
                )
            norms[name] = layer
    return norms


def _statistics(norms: Mapping[str, _BatchNorm]) -> Iterator[FloatSpec]:
    for name, norm in norms.items():
        if norm.track_running_stats:
            for key, initial in _STATISTICS.items():
                yield FloatSpec(_join(name, key), "statistic", (norm.num_features,), initial)


def _copies(
    module: nn.Module, replaced: Iterable[Tensor]
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Make the three copies of a module: `given`, `tracking` and `by_batch` of Skeleton.

    Args:
        module: the user's module.
        replaced: the tensors that every call passes. The copies have empty tensors instead of
            these tensors.
    """
    memo: dict[int, Any] = {id(tensor): _empty(tensor) for tensor in replaced}
    given = deepcopy(module, memo).eval()
    for norm in _normalisations(given).values():
        norm.num_batches_tracked = None  # only needed if the momentum is None
        if not norm.track_running_stats:
            norm.running_mean = norm.running_var = None
    tracking, by_batch = deepcopy(given), deepcopy(given)
    for norm in _normalisations(tracking).values():
        norm.train(norm.track_running_stats)
    for norm in _normalisations(by_batch).values():
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None
    return given, tracking, by_batch


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def try_out(
    skeleton: Skeleton, masked: Mapping[str, Tensor], input_shape: Sequence[int]
) -> tuple[int, int]:
    """Run a module on two inputs of zeros, to check the module and to find its sizes.

    Args:
        skeleton: the copied module.
        masked: a mapping from the name of each masked parameter to values. Any values are allowed.
        input_shape: shape of one input.

    Returns:
        Two numbers: S, the number of outputs, and the number of activations. The activations of one
        input are the outputs of all layers that have no sublayers.

    Raises:
        ValueError: the module refuses inputs of this shape, the outputs of N inputs do not have the
            shape (N, S), or two calls give different outputs.
    """
    tensors = {**skeleton.fixed, **skeleton.others}
    tensors |= {name: value.detach().to("cpu", torch.float32) for name, value in masked.items()}
    zeros = torch.zeros(2, *input_shape)
    sizes: list[int] = []
    try:
        with torch.no_grad():
            with _counting(skeleton.by_batch, sizes):
                first = functional_call(skeleton.by_batch, tensors, (zeros,))
            again = functional_call(skeleton.by_batch, tensors, (zeros,))
    except RuntimeError as error:
        raise ValueError(
            f"expected a module that takes inputs {(2, *input_shape)}, got an error: {error}"
        ) from error
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != 2:
        got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"expected outputs of shape (N, S) = (2, S), got {got}")
    if not torch.allclose(first, again, rtol=0, atol=0, equal_nan=True):
        raise ValueError(
            "expected a module without randomness in evaluation mode, got different outputs for "
            "the same inputs"
        )
    return first.shape[1], sum(sizes) // 2


@contextmanager
def _counting(module: nn.Module, sizes: list[int]) -> Iterator[None]:
    """Within a with block, append to `sizes` the output size of each layer without sublayers."""

    def count(layer: nn.Module, inputs: object, output: object) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        sizes.append(sum(value.numel() for value in outputs if isinstance(value, Tensor)))

    leaves = [layer for layer in module.modules() if next(layer.children(), None) is None]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inputs_of_layer(module: nn.Module, parameter: str) -> Iterator[list[object]]:
    """Within a with block, collect the first argument of each call of a layer.

    Args:
        module: the module that runs.
        parameter: the full name of a parameter of the layer.
    """
    seen: list[object] = []
    layer = module.get_submodule(parameter.rpartition(".")[0])
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[:1]))
    try:
        yield seen
    finally:
        handle.remove()
