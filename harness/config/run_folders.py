"""The folders of several runs of one command, such as RUN_DIR/seed-0 and RUN_DIR/seed-1.

This module imports neither OmegaConf nor torch, so that harness/status.py starts fast.
"""

import re
from collections.abc import Mapping

from harness.places.places import Place

# The key with the values of all runs -> the key of one run. The name of a run's folder has the keys
# in this order.
SWEPT: Mapping[str, str] = {"methods": "method", "output_sizes": "outputs", "seeds": "seed"}

_FORMS = {"method": ".+?", "outputs": "[0-9]+", "seed": "[0-9]+"}  # regular expressions
_FOLDER = re.compile("".join(f"((^|-){key}-(?P<{key}>{form}))?" for key, form in _FORMS.items()))


def label(values: Mapping[str, int | str]) -> str:
    """Name the folder of one of several runs, such as seed-1 or outputs-100-seed-1.

    Args:
        values: a mapping from key to value, for the keys in which the runs differ, in the order of
            SWEPT.
    """
    return "-".join(f"{key}-{value}" for key, value in values.items())


def values_in(name: str) -> dict[str, str]:
    """Return the values in the name of a folder, the inverse of `label`.

    Returns:
        A mapping from key to value as text. {} if `label` cannot give this name.
    """
    found = _FOLDER.fullmatch(name)
    values = found.groupdict() if found else {}
    return {key: value for key, value in values.items() if value is not None}


def runs_in(directory: Place) -> list[Place]:
    """List the run directories in a folder of several runs.

    Returns:
        The folders that have a config.yaml, and a name such as `label` returns, in the order of
        their methods and numbers. [] if `directory` is missing, or is itself the folder of a run.
    """
    if (directory / "config.yaml").exists():
        return []
    found: list[tuple[list[tuple[int, str]], Place]] = []
    for one in directory.glob("*"):
        values = values_in(one.name)
        if values and (one / "config.yaml").exists():
            order = [(int(text), "") if text.isdecimal() else (0, text) for text in values.values()]
            found.append((order, one))
    return [one for _, one in sorted(found, key=lambda pair: (len(pair[0]), pair[0]))]
