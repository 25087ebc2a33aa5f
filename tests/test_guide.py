"""The code examples of docs/extending.md work exactly as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from analysis.load import load

ROOT = Path(__file__).parents[1]
ASKED = ["evaluate.checkpoints=[3]", "evaluate.algorithms=[one_shot]"]


def changed(text: str, change: str) -> str:
    """Apply a diff that has no line numbers. Search its context lines from the top down."""
    lines, at = text.splitlines(), 0
    for line in filter(None, change.splitlines()):
        if line.startswith("+"):
            lines.insert(at, line[1:])
            at += 1
        else:
            at = lines.index(line[1:], at)
            if line.startswith("-"):
                del lines[at]
            else:
                at += 1
    return "\n".join(lines) + "\n"


def blocks() -> list[tuple[str, str, str]]:
    """Return (file, kind, code) of each code block. The text before a block names its file."""
    page = (ROOT / "docs" / "extending.md").read_text()
    found = re.finditer(r"```(python|diff)\n(.*?)```", page, re.DOTALL)
    return [(re.findall(r"`([\w/]+\.py)`", page[: b.start()])[-1], b[1], b[2]) for b in found]


@pytest.fixture(scope="module")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files that are outside the project."""
    folder = tmp_path_factory.mktemp("own")
    for name, _, code in blocks():
        if "/" not in name:
            (folder / name).write_text(code)
    return folder


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a copy of the project, changed by the page's blocks for its files."""
    folder = tmp_path_factory.mktemp("extended")
    for package in ("harness", "supsup_core"):
        shutil.copytree(ROOT / package, folder / package)
    for name, kind, code in blocks():
        path = folder / name
        if "/" in name:
            if kind == "python" and path.exists():
                pytest.skip(f"{name} exists already")
            path.write_text(changed(path.read_text(), code) if kind == "diff" else code)
    return folder


def run(folder: Path, code: Path, *arguments: str) -> str:
    """Run Python in a folder, with the project from another folder."""
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_data_family_method_and_network_of_the_guide_train(own_files: Path) -> None:
    """The code also reaches the processes of Ray's actors."""
    options = ["data=spots:spots", "family=jigsaw:Jigsaw", "method=finders:TopScores"]
    options += ["network=mynets:bottleneck", "network_options.width=96", "outputs=20"]
    options += ["tasks=3", "train.steps=150", "train.learning_rate=0.002", "executor=ray"]
    run(own_files, ROOT, str(ROOT / "harness/scale.py"), *options, "run_dir=own", *ASKED)
    tasks = load(own_files / "own", "tasks").to_pandas()
    assert tasks["accuracy"].min() > 0.5  # 0.25 by chance
    assert tasks["density"].to_numpy() == pytest.approx([0.5] * 3)
    evaluations = load(own_files / "own", "evaluations").to_pandas()
    assert set(evaluations["num_tasks"]) == {3}
    store = zarr.open_group(own_files / "own" / "masks.zarr", mode="r")
    tiles = np.asarray(store["inputs"]["permutations"][:], int).reshape(3, 4, 2, 4, 2)
    within = tiles - tiles[:, :, :1, :, :1]  # each tile keeps its pixels, at any position
    assert (within == np.array([[0, 1], [8, 9]])[:, None, :]).all()
    assert len({task.tobytes() for task in tiles}) == 3
    assert set(store.attrs["code"]) == {"data", "family", "method", "network"}


def test_a_finder_of_the_guide_continues_with_the_scores_of_the_previous_task(
    own_files: Path,
) -> None:
    options = ["data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20"]
    options += ["method=continued:Continued", "tasks=3", "train.steps=5", "executor=serial"]
    run(own_files, ROOT, str(ROOT / "harness/scale.py"), *options, "run_dir=continued", *ASKED)
    store = zarr.open_group(own_files / "continued" / "masks.zarr", mode="r")
    assert store.attrs["after_task"] == [2]
    for layer, plane in zip(("layer1", "layer2"), store.attrs["planes"], strict=True):
        scores = store[f"shared/scores {layer}"][0]
        packed = store["masks"][2][plane["byte_offset"] :]
        bits = np.unpackbits(packed, count=plane["num_bits"], bitorder="little")
        assert np.array_equal(bits.reshape(scores.shape), scores >= 0)


def test_a_family_takes_less_than_40_lines() -> None:
    (lines,) = [code.splitlines() for name, _, code in blocks() if name == "jigsaw.py"]
    assert len(lines) < 40


@pytest.mark.slow
def test_a_reservoir_rule_of_the_guide_forgets_the_old_and_keeps_the_new(extended: Path) -> None:
    said = run(
        extended,
        extended,
        "-c",
        "import torch\n"
        "from supsup_core.reservoirs.rules import named_rule\n"
        "generator = torch.Generator().manual_seed(0)\n"
        "patterns = torch.randint(2, (300, 256), generator=generator) * 2.0 - 1\n"
        "reservoir = named_rule('fading').make(256, torch.device('cpu'))\n"
        "for pattern in patterns: reservoir.store(pattern)\n"
        "same = (reservoir.field(patterns).sign() == patterns).float().mean(1)\n"
        "print(same[-5:].min().item(), same[:100].mean().item())\n",
    )
    new, old = map(float, said.split())
    assert new > 0.99
    assert old < 0.7
