"""The code of docs/python.md and docs/data_frames.md works exactly as it is printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `runs/first`, which both pages read."""
    folder = tmp_path_factory.mktemp("pages")
    options = ["data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20"]
    options += ["tasks=3", "train.steps=100", "train.learning_rate=0.01", "executor=serial"]
    options += ["evaluate.checkpoints=[3]", "run_dir=runs/first"]
    python(folder, str(ROOT / "harness/scale.py"), *options)
    return folder


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(page: str) -> list[str]:
    """Return the blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_blocks_about_python_run(folder: Path) -> None:
    (folder / "page.py").write_text("\n".join(blocks("python.md")))
    assert "3 of 3 tasks" in python(folder, "page.py")
    assert (folder / "mask1.safetensors").stat().st_size > 0


@pytest.mark.slow
def test_three_programs_for_data_frames_give_the_same_means(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "runs" / "first", folder / "runs" / "second")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    means = []
    for block in blocks("data_frames.md"):
        exec(block, names)
        if "means = " in block:
            means.append(names["means"])
    frames = [means[0].reset_index(), means[1].to_pandas(), means[2].df()]
    by_pandas, by_polars, by_duckdb = (frame.fillna({"objective": ""}) for frame in frames)
    assert set(by_pandas["objective"]) == {"G", "H", ""}
    pd.testing.assert_frame_equal(by_polars, by_pandas, check_dtype=False)
    pd.testing.assert_frame_equal(by_duckdb, by_pandas, check_dtype=False)
    assert names["lost"]["lost"].is_monotonic_decreasing
    assert len(names["lost"]) == 3
    assert len(names["both"]) == 6
