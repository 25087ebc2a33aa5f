"""Write the state of a task as a file in the format safetensors, which many programs read."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from harness.places.durable import write_durably
from supsup_core.networks.protocol import Floats, Gains


def export(path: Path, gains: Gains, floats: Floats, about: Mapping[str, str]) -> None:
    """Write the mask, the gains and the floats of a task.

    Args:
        path: path of the file; an existing file is replaced.
        gains: a mapping from the name of each masked tensor to its gains.
        floats: a mapping from name to the floats of the task.
        about: texts for the metadata of the file.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, Tensor] = {f"mask.{name}": gain != 0 for name, gain in gains.items()}
    if any(bool(((gain != 0) & (gain != 1)).any()) for gain in gains.values()):
        arrays |= {f"gain.{name}": gain.to(torch.float32) for name, gain in gains.items()}
    arrays |= {f"float.{name}": values for name, values in floats.items()}
    together = {name: value.contiguous() for name, value in arrays.items()}
    write_durably(path, save(together, dict(about)))
