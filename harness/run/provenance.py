"""The origin of a run's numbers: code, configuration, versions and machine."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.config.identity import result_values
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.durable import write_durably
from harness.places.places import Place
from harness.places.reading import read_json

PACKAGES = ("torch", "numpy", "numba", "zarr", "pyarrow", "ray", "hydra-core", "supermask-scaling")


def has_bfloat16_matrices() -> bool:
    """Return whether the training device multiplies bfloat16 matrices faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # A CPU needs AMX. On a Sapphire Rapids whose host hides AMX, products with avx512_bf16 alone
    # took 1.7 times as long as in float32 (benchmarks/train.py, both dtypes).
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def config_hash(config: Config) -> str:
    """Hash all values of a configuration that change a result.

    Returns:
        16 hex digits.
    """
    return _hash(result_values(config))


def run_id(config: Config) -> str:
    """Hash all values of a configuration that decide the masks: the identity of a run.

    Every table file of a run has this identity in its metadata. `evaluate.py` and `recall.py` do
    not change it.

    Args:
        config: the configuration, with every `auto` resolved.

    Returns:
        16 hex digits.
    """
    values = result_values(config).items()
    return _hash({k: v for k, v in values if k.split(".")[0] not in ("evaluate", "reservoir")})


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect a result, by name."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _commit() -> str | None:
    """Return this code's commit, with "-dirty" if files have changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpus": gpus,
    }


def _processor() -> str:
    """Return the processor's model, or its architecture if the system does not name the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def record_start(run_dir: Place, config: Config) -> None:
    """Add this start to the run's provenance.json. The first entry is the start that began the run.

    Raises:
        UserError: provenance.json exists and is not the record of earlier starts.
    """
    path = run_dir / "provenance.json"
    starts = _known_starts(path)
    start = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "versions": versions(),
        "machine": _machine(),
    }
    record = {"config_hash": config_hash(config), "starts": [*starts, start]}
    write_durably(path, (json.dumps(record, indent=2) + "\n").encode())


def _known_starts(path: Place) -> list[Any]:
    """Read the starts that are recorded in a provenance.json; none if the file is missing."""
    try:
        starts = read_json(path)["starts"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        starts = error
    if not isinstance(starts, list):
        raise UserError(
            f"{path} must be JSON with a list of starts, got something else: restore the file, or "
            "remove it to begin a new list"
        )
    return starts
