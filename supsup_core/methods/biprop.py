"""Biprop (multi-prize tickets): a mask over the signs of the weights, and one scale per tensor.

    effective weight = g * sign(W) * m,   g = sum(|W| * m) / sum(m)

The mask m keeps the weights with the largest |score|, as in edge-popup. The scale g of a tensor is
the mean |W| of the kept weights, and follows the mask in each step. The score of a weight gets the
gradient of edge-popup, d loss / d score = sign(score) * W * d loss / d effective weight, so large
weights learn faster. After the training, |W| is no longer needed: a state has the mask and g.

The fixed network must therefore have signed constants, +c or -c. The magnitudes |W| are drawn from
the run's seed, and are the same for all tasks. The stored scale is g / c. If the magnitudes are
constant too, the scale is always 1, no state stores it, and the rule is that of edge-popup. The
training then has the fast step of edge-popup. With other magnitudes and the scope "layer", the
training has this step for an MLP on a CPU.

With the scope "global", one threshold decides for all tensors. It compares |score| / b, where b is
the largest first |score| of a tensor. The authors compare |score|, which has other first ranges in
other tensors: then a low density leaves some tensors without any weight.

Source: Diffenderfer & Kailkhura 2021, arXiv:2103.09377, and the authors' code.

Shape letters: B tasks of a block.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.first_scores import uniform_bound
from supsup_core.methods.planes import kept_count, top_share
from supsup_core.methods.protocol import Progress, Scores, Shared
from supsup_core.methods.rules import Scaling
from supsup_core.names import KAIMING_INITS, SIGNED_CONSTANT
from supsup_core.networks.mlp import draw_unscaled
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network, num_gains
from supsup_core.states.layout import PlaneSpec, TaskState
from supsup_core.streams import Role, stream

FIRST_DENSITY = 0.5  # density at the start of the ramp
_DENSITY = "density"  # name of the score with the present density of a task

Magnitudes = Annotated[
    str,
    Knob(
        "Distribution of the magnitudes |W|, with the meaning of network_options.init. They "
        "determine the scale of a tensor and the sizes of gradients. signed_constant: all "
        "magnitudes of a tensor are equal, and the rule is that of edge_popup.",
        one_of=KAIMING_INITS,
    ),
]


@dataclass(frozen=True)
class Biprop(EdgePopup):
    """The finder that keeps signs of weights by the largest |score|, with a scale per tensor.

    Raises:
        ValueError: an option is out of range, or the scope is global and kappa is not 0.
    """

    scope: Annotated[
        str,
        Knob(
            "layer: each tensor keeps the fraction density of its weights. global: one threshold "
            "for all tensors, so that tensors keep different fractions.",
            one_of=("layer", "global"),
        ),
    ] = "layer"
    ramp: Annotated[
        float,
        Knob(
            "For scope=global and density < 0.5: fraction of the training in which the density "
            "falls from 0.5 to density.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.1
    magnitudes: Magnitudes = "kaiming_normal"

    def __post_init__(self) -> None:
        check_knobs(type(self), vars(self))
        if self.scope == "global" and self.kappa:
            raise ValueError(f"kappa must be 0 with scope=global, got {self.kappa}")

    @property
    def only_planes(self) -> bool:
        """Whether the rule is that of edge-popup; see Method.only_planes."""
        is_same = self.keeps_methods(Biprop, "gains", "end", "after_step")
        return is_same and not self.has_scale and self.scope == "layer"

    @property
    def has_equal_steps(self) -> bool:
        """See Method.has_equal_steps. The gains read the density of the ramp on its device."""
        return self.keeps_methods(Biprop, "trained_names", "phase", "after_step")

    @property
    def has_scale(self) -> bool:
        """Whether a state stores a scale. Without a stored scale, it is 1."""
        return self.magnitudes != SIGNED_CONSTANT

    def scaling(self, tensor: MaskedTensor) -> Scaling | None:
        """Return the scaling of a tensor, for the scope "layer". A subclass has no fast step."""
        own = ("gains", "end", "after_step", "trained_names", "choose", "mask", "slope", "decay")
        if not self.has_scale or self.scope != "layer" or not self.keeps_methods(Biprop, *own):
            return None
        return Scaling(magnitude_of(tensor.name), _scale_of(tensor.name))

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane, which marks the kept weights.

        Raises:
            ValueError: the tensor has gains over units, which have no weights of their own.
        """
        if tensor.over != "weights":
            raise ValueError(
                f"network must have gains over weights for this method, got gains over units of "
                f"{tensor.name}"
            )
        return super().planes(tensor)

    def float_specs(self, network: Network) -> Sequence[FloatSpec]:
        """Describe the scales of the tensors.

        Raises:
            ValueError: the weights of the network are no signed constants.
        """
        if not network.has_constants:
            raise ValueError(
                f"network_options.init must be {SIGNED_CONSTANT}, because method_options.magnitudes"
                " is the distribution of the magnitudes, got another distribution"
            )
        if not self.has_scale:
            return ()
        return [FloatSpec(_scale_of(t.name), "scale", (), 1.0, t.name) for t in network.tensors]

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first scores, and the magnitudes |W| / c of the weights; see Method.begin."""
        scores = super().begin(network, task_id, seed, shared)
        if self.has_scale:
            for i, tensor in enumerate(network.tensors):
                own = stream(seed, Role.MAGNITUDES, i)
                scores[magnitude_of(tensor.name)] = self.draw_magnitudes(tensor.shape, own)
        if self._has_ramp:
            scores[_DENSITY] = np.array(FIRST_DENSITY, np.float32)
        return scores

    def draw_magnitudes(self, shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Draw |W| / c in float32, for weights W with the variance c^2."""
        magnitudes: np.ndarray = np.abs(draw_unscaled(shape, generator, self.magnitudes))
        return magnitudes

    def trained_names(
        self, network: Network, names: Collection[str], step: int, steps: int
    ) -> Collection[str]:
        """Return the names of the masked tensors, because only their scores are trained."""
        return [tensor.name for tensor in network.tensors]

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute gains of 0 and g / c. In the backward pass, d gain / d score is +-|W| / c."""
        found = {}
        masks = self.masks(network, scores, self._density(scores))
        for tensor in network.tensors:
            name, score, kept = tensor.name, scores[tensor.name], masks[tensor.name]
            value, mask = score.detach(), kept.to(score.dtype)
            slope = self.slope(tensor, value)
            if self.has_scale:
                magnitudes = scores[magnitude_of(name)].detach()
                slope = slope * magnitudes
                mask = mask * _mean(magnitudes, kept).reshape(-1, *(1 for _ in kept.shape[1:]))
            found[name] = mask + slope * (score - value)
        return found

    def masks(
        self, network: Network, scores: Scores, density: float | Float[Tensor, "1"]
    ) -> dict[str, Bool[Tensor, "B ..."]]:
        """Choose the kept weights of all tensors.

        Args:
            network: the fixed network.
            scores: a mapping from name to the scores of B tasks, (B, ...).
            density: with the scope "global", the fraction of all weights to keep.

        Returns:
            A mapping from the name of each masked tensor to its mask, (B, *shape).
        """
        values = {t.name: scores[t.name].detach() for t in network.tensors}
        if self.scope == "layer":
            return {t.name: self.mask(t, values[t.name]) for t in network.tensors}
        sizes = [(values[t.name].abs() / uniform_bound(t)).flatten(1) for t in network.tensors]
        kept = top_share(torch.cat(sizes, 1), _count(density, num_gains(network)))
        parts = kept.split([t.num_gains for t in network.tensors], 1)
        pairs = zip(network.tensors, parts, strict=True)
        return {tensor.name: part.unflatten(1, tensor.shape) for tensor, part in pairs}

    def after_step(
        self, network: Network, scores: Scores, shared: Shared | None, progress: Progress
    ) -> None:
        """Reduce the density, if it has a ramp; see Method.after_step."""
        if self._has_ramp:
            scores[_DENSITY].detach().fill_(self.density_after(progress.step, progress.steps))

    def density_after(self, step: int, steps: int) -> float:
        """Return the density in training after some steps, with the scope "global"."""
        left = max(0.0, 1 - step / max(1.0, self.ramp * steps))
        return self.density + (FIRST_DENSITY - self.density) * left**3

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks. They have the final density, also during the ramp."""
        masks = self.masks(network, scores, self.density)
        planes = [plane for name, kept in masks.items() for plane in self.bits(name, kept, scores)]
        floats: dict[str, np.ndarray] = {}
        if self.has_scale:
            floats = {
                _scale_of(name): _mean(scores[magnitude_of(name)].detach(), kept)
                .float()
                .cpu()
                .numpy()
                for name, kept in masks.items()
            }
        return [
            TaskState(own, {name: values[b, ...] for name, values in floats.items()})
            for b, own in enumerate(zip(*(plane.cpu().numpy() for plane in planes), strict=True))
        ]

    def bits(self, name: str, kept: Tensor, scores: Scores) -> Sequence[Bool[Tensor, "B ..."]]:
        """Make the planes of one tensor.

        Args:
            name: name of the masked tensor.
            kept: (B, *shape) the mask.
            scores: a mapping from name to the scores of B tasks, (B, ...).
        """
        return [kept]

    @property
    def _has_ramp(self) -> bool:
        return self.scope == "global" and self.ramp > 0 and self.density < FIRST_DENSITY

    def _density(self, scores: Mapping[str, Tensor]) -> float | Float[Tensor, "1"]:
        """Return the present density, which all tasks have.

        On a GPU, the density of a ramp stays on the GPU, so that the host does not wait for it.
        """
        if not self._has_ramp:
            return self.density
        density = scores[_DENSITY].detach()[:1]
        return float(density) if density.device.type == "cpu" else density


def magnitude_of(name: str) -> str:
    """Return the name of the scores with the magnitudes |W| / c of a tensor's weights."""
    return f"{name}.magnitude"


def _scale_of(name: str) -> str:
    return f"{name}.scale"


def _count(density: float | Float[Tensor, "1"], num: int) -> int | Int64[Tensor, "1"]:
    """Return the number of kept weights, as kept_count does; see there."""
    if isinstance(density, Tensor):
        return (density.double() * num).round().clamp(1, num).long()
    return kept_count(density, num)


def _mean(values: Tensor, kept: Bool[Tensor, "B ..."]) -> Tensor:
    """Return the mean of the kept values of each of B tasks, (B,); 0 if no value is kept.

    The sums are in float64, so that the order of the additions does not change the result.
    """
    sums = (values.double() * kept).flatten(1).sum(1)
    return (sums / kept.flatten(1).sum(1).clamp(min=1)).to(values.dtype)
