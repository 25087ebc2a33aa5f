"""Record the origin of a run's results: code, configuration, versions and machine."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.config.identity import result_values
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.durable import write_durably
from harness.places.places import Place
from harness.places.reading import read_json
from harness.run.products import ProductRates

PACKAGES = ("torch", "numpy", "numba", "zarr", "pyarrow", "ray", "hydra-core", "supermask-scaling")

_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")


def config_hash(config: Config) -> str:
    """Hash those values of a configuration that can change a result.

    Returns:
        16 hex digits.
    """
    return _hash(result_values(config))


def run_id(config: Config) -> str:
    """Compute the identity of a run: a hash of those configuration values that change the masks.

    Every table file of a run has this identity in its metadata. The settings of `evaluate.py` and
    `recall.py` do not change the identity.

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
    """Return a mapping from name to version, for Python and the packages that affect a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _commit() -> str | None:
    """Return this code's commit, with "-dirty" if files have changed; None if git knows none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpus": _gpus(),
    }


def _gpus() -> list[str]:
    """Return the models of the NVIDIA GPUs of this machine.

    The names come from files of the driver. If CUDA were asked, this process would hold memory of a
    GPU until its end.
    """
    found = []
    for file in sorted(_GPU_FOLDER.glob("*/information")):
        with suppress(OSError):
            lines = file.read_text().splitlines()
            found += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]
    return found


def _processor() -> str:
    """Return the processor's model, or its architecture if the system does not name the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def record_start(run_dir: Place, config: Config, licence: str = "") -> None:
    """Add this start to the run's provenance.json. The first entry is the start that began the run.

    Args:
        run_dir: the run directory.
        config: the run's configuration.
        licence: the licence of the data set; "" if it is not known.

    Raises:
        UserError: provenance.json exists and is not the record of earlier starts.
    """
    known = _known(run_dir)
    start = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "versions": versions(),
        "machine": _machine(),
        **({"licence_of_data": licence} if licence else {}),
    }
    starts = [*known["starts"], start]
    _write(run_dir, known | {"config_hash": config_hash(config), "starts": starts})


def record_rates(run_dir: Place, rates: ProductRates) -> None:
    """Add the measured rates of matrix products, in GFLOP/s, to provenance.json."""
    _write(run_dir, _known(run_dir) | {"product_gflops": asdict(rates)})


def read_rates(run_dir: Place) -> ProductRates | None:
    """Read the rates of matrix products that an earlier start measured.

    Returns:
        The rates; None if no start has measured rates, or if the rates in the file are damaged.

    Raises:
        UserError: see record_start.
    """
    match _known(run_dir).get("product_gflops"):
        case {
            "float32": int() | float() as float32,
            "bfloat16": int() | float() as bfloat16,
            "device": str(device),
        }:
            return ProductRates(float32, bfloat16, device)
    return None


def _known(run_dir: Place) -> dict[str, Any]:
    """Read provenance.json. If the file is missing, return a record without starts."""
    path = run_dir / "provenance.json"
    try:
        known = read_json(path)
    except FileNotFoundError:
        return {"starts": []}
    except ValueError:
        known = None
    match known:
        case {"starts": list()}:
            return dict(known)
    raise UserError(
        f"{path} must be JSON with a list `starts`, got something else: restore the file, or "
        "remove the file to begin a new list"
    )


def _write(run_dir: Place, record: dict[str, Any]) -> None:
    write_durably(run_dir / "provenance.json", (json.dumps(record, indent=2) + "\n").encode())
