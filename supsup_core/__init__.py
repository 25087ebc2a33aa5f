"""The mathematics of supermasks in superposition, without files, clocks or global random state.

Source of the idea: Wortsman et al., "Supermasks in Superposition", NeurIPS 2020,
arXiv:2006.14769.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supsup_core.networks.masked import MaskedModel
    from supsup_core.supermasks import Supermasks

__all__ = ["MaskedModel", "Supermasks"]


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used, because torch takes seconds to import."""
    if name == "Supermasks":
        from supsup_core.supermasks import Supermasks

        return Supermasks
    if name == "MaskedModel":
        from supsup_core.networks.masked import MaskedModel

        return MaskedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
