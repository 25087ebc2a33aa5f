"""The folders of several runs of one command, such as RUN_DIR/seed-0 and RUN_DIR/seed-1.

This module imports neither OmegaConf nor torch, so that harness/status.py starts fast.
"""

import re
from collections.abc import Mapping

from harness.places.places import Place

# The key with the values of all runs -> the key of one run.
SWEPT: Mapping[str, str] = {"output_sizes": "outputs", "seeds": "seed"}

_PART = re.compile("|".join(f"{key}-[0-9]+" for key in SWEPT.values()))


def label(values: Mapping[str, int]) -> str:
    """Name the folder of one of several runs, such as seed-1 or outputs-100-seed-1.

    Args:
        values: a mapping from key to value, for the keys in which the runs differ.
    """
    return "-".join(f"{key}-{value}" for key, value in values.items())


def runs_in(directory: Place) -> list[Place]:
    """List the run directories in a folder of several runs.

    Returns:
        The folders that have a config.yaml, and a name such as `label` returns, in the order of the
        numbers in their names. [] if `directory` is missing, or is itself the folder of a run.
    """
    if (directory / "config.yaml").exists():
        return []
    found: list[tuple[list[int], Place]] = []
    for one in directory.glob("*"):
        parts = _PART.findall(one.name)
        if parts and "-".join(parts) == one.name and (one / "config.yaml").exists():
            found.append(([int(part.rpartition("-")[2]) for part in parts], one))
    return [one for _, one in sorted(found, key=lambda pair: (len(pair[0]), pair[0]))]
