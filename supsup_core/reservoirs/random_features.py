"""A dense associative memory held to constant size by random features.

    E(s) = -log sum_p exp(-beta |s - z_p|^2 / 2)  ~  -log <phi(s), sum_p phi(z_p)>

with phi(s) = (cos Omega s, sin Omega s) / sqrt(F) and Omega normal of variance beta (Rahimi &
Recht 2007; Hoover et al. 2024, arXiv:2410.24153). What is kept is the sum of phi(z_p), 2 F
numbers, whatever the number of patterns; Omega follows from a seed.

Shape letters: D units, B states, F frequencies, U chosen units.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape


class RandomFeatures:
    """The memory; patterns of -1 and +1.

    Args:
        dim: D.
        num_frequencies: F.
        beta: how fast a pattern's pull falls off with the square of the distance.
        generator: draws Omega, on the CPU.
        device: where it is kept.
    """

    def __init__(
        self,
        dim: int,
        num_frequencies: int,
        beta: float,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> None:
        self.dim, self.num_stored, self._beta = dim, 0, beta
        omega = torch.randn(num_frequencies, dim, generator=generator).mul_(beta**0.5)
        self._omega = omega.to(device)
        self._sums = torch.zeros(2, num_frequencies, device=device)

    @property
    def num_bytes(self) -> int:
        """Of the sums; Omega is drawn again from its seed."""
        return self._sums.numel() * self._sums.element_size()

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern in.

        Raises:
            ValueError: another length than D.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        angles = self._omega @ pattern
        self._sums += torch.stack([angles.cos(), angles.sin()])
        self.num_stored += 1

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """-dE/ds where all states are as long, as corners are: beta sum_p z_p exp(...).

        The gradient of the kernels is beta (z_p - s) times each; what it says of s itself is
        the change of length, and is put back.
        """
        omega = self._omega if units is None else self._omega[:, units]
        own = states if units is None else states[:, units]
        cos, sin = self._sums / len(self._omega)
        angles = states @ self._omega.t()
        slope: Tensor = (sin * angles.cos() - cos * angles.sin()) @ omega
        return slope + self._beta * own * self._kernels(states)[:, None]

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """-log of the sum of kernels; features that are too few can make that negative."""
        return -self._kernels(states).clamp_min(torch.finfo(torch.float32).tiny).log()

    def _kernels(self, states: Tensor) -> Tensor:
        cos, sin = self._sums / len(self._omega)
        angles = states @ self._omega.t()
        kernels: Tensor = angles.cos() @ cos + angles.sin() @ sin
        return kernels
