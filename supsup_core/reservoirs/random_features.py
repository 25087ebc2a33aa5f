"""A dense associative memory that has constant size because it uses random features.

The energy of a state s with the stored patterns z_p is

    E(s) = -log sum_p exp(-beta |s - z_p|^2 / 2)  ~  -log <phi(s), sum_p phi(z_p)>

with the random features phi(s) = (cos Omega s, sin Omega s) / sqrt(F). The elements of the matrix
Omega have a normal distribution with variance beta (Rahimi & Recht 2007; Hoover et al. 2024,
arXiv:2410.24153). The memory keeps the sum of all phi(z_p), which is 2 F numbers for any number of
patterns. A seed is enough to draw Omega again.

Shape letters: D units, B states, F frequencies, P patterns, U chosen units.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape


class RandomFeatures:
    """A dense associative memory for patterns of -1 and +1.

    The memory is a sum of random features cos(Omega z) and sin(Omega z) of the patterns z.

    Args:
        dim: D, the number of units.
        num_frequencies: F, the number of rows of Omega.
        beta: a pattern attracts a state at distance d with a weight of exp(-beta d^2 / 2).
        generator: the generator that draws Omega, on the CPU.
        device: the device of Omega and of the sums.
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
        """Memory of the sums in bytes. Omega does not count, because it can be drawn again."""
        return self._sums.numel() * self._sums.element_size()

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern of -1 and +1.

        Raises:
            ValueError: the pattern does not have D units.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        angles = self._omega @ pattern
        self._sums += torch.stack([angles.cos(), angles.sin()])
        self.num_stored += 1

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns one by one, in their order."""
        for pattern in patterns:
            self.store(pattern)

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units; see Reservoir.field.

        The field at a state s is beta sum_p z_p k_p, with k_p = exp(-beta |s - z_p|^2 / 2) for each
        stored pattern z_p. Among states of equal length, this is the direction of lower energy. All
        states of -1 and +1 have equal length. The gradient of k_p is k_p beta (z_p - s). The term
        -k_p beta s would only change the length of s, so `field` leaves this term out.
        """
        omega = self._omega if units is None else self._omega[:, units]
        own = states if units is None else states[:, units]
        cos, sin = self._sums / len(self._omega)
        angles = states @ self._omega.t()
        slope: Tensor = (sin * angles.cos() - cos * angles.sin()) @ omega
        return slope + self._beta * own * self._kernels(states)[:, None]

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy of each state s: -log of the sum of exp(-beta |s - z_p|^2 / 2).

        The sum is over the stored patterns z_p. It is computed from random features, so it can be
        negative if there are too few features. If so, the smallest positive normal float32 replaces
        the sum.
        """
        return -self._kernels(states).clamp_min(torch.finfo(torch.float32).tiny).log()

    def _kernels(self, states: Tensor) -> Tensor:
        cos, sin = self._sums / len(self._omega)
        angles = states @ self._omega.t()
        kernels: Tensor = angles.cos() @ cos + angles.sin() @ sin
        return kernels
