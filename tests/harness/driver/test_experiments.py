"""The experiments of the paper's Figures 2 and 5 run, with sizes from the command line."""

import numpy as np
import pytest
from PIL import Image

from analysis.several import load_several
from harness import scale
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS

SMALL = (
    *("executor=serial", "run_dir=run", "tasks=2", "train.steps=2", "train.batch_size=8"),
    *("train.warmup=0", "evaluate.checkpoints=[1,2]", "evaluate.batches=1"),
    "evaluate.batch_size=8",
)
RIGHT = ("experiment=fig2_right", "data=digits", "family_options.classes=2")
RIGHT += ("network_options.width=2", "outputs=2")


@pytest.fixture
def images(tmp_path):
    """A folder of coloured images: two classes, in folders for training and for validation."""
    drawn = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    for i, pixels in enumerate(drawn):
        path = tmp_path / "images" / ("val" if i < 16 else "train") / "abcd"[i % 4] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return f"{tmp_path}/images/"


@pytest.mark.parametrize(
    "options",
    [
        ("methods=[{name: edge_popup, kappa: 4},{name: edge_popup, kappa: 16}]",),
        ("methods=[{name: edge_popup, kappa: 4}]", "train.transfer=none"),
        ("methods=[batche]", "train.transfer=none", "network_options.init=kaiming_normal"),
        (
            *("methods=[{name: heads, trunk: trained}]", "train.transfer=none"),
            "train.first_learning_rate=1e-3",
        ),
        ("methods=[{name: upper_bound, start: previous}]", "train.transfer=none"),
    ],
)
def test_figure_2_right_and_its_other_curves_run(options, typed, tmp_path):
    code, _, err = typed(scale, *RIGHT, *options, *SMALL)
    assert code == 0, err
    rows = load_several(tmp_path / "run", "evaluations").to_pylist()
    expected = [(1, 0, "given"), (2, 0, "given"), (2, 1, "given")]
    runs = {row["method"] for row in rows}
    assert len(runs) == options[0].count("name") or runs == {"batche"}
    for run in runs:
        found = [(r["num_tasks"], r["task_id"], r["algorithm"]) for r in rows if r["method"] == run]
        assert found == expected


def test_figure_2_left_runs_on_a_folder_of_images(images, typed, tmp_path):
    small = (
        "data_options.size=8",
        "family_options.classes=2",
        "network_options.width=2",
        "outputs=2",
    )
    code, out, err = typed(scale, "experiment=fig2_left", f"data={images}", *small, *SMALL)
    assert code == 0, err
    rows = read_tables(tmp_path / "run" / "evaluations", EVALUATIONS).to_pylist()
    assert [(row["num_tasks"], row["algorithm"]) for row in rows] == [
        (1, "given"),
        (2, "given"),
        (2, "given"),
    ]
    assert "After 2 tasks" in out


def test_figure_5_right_runs(typed, tmp_path):
    small = ("data=digits", "network=mlp", "network_options.hidden=[32]", "outputs=12")
    code, _, err = typed(scale, "experiment=fig5_right", *small, *SMALL)
    assert code == 0, err
    rows = read_tables(tmp_path / "run" / "evaluations", EVALUATIONS).to_pylist()
    assert {(row["algorithm"], row["objective"]) for row in rows} == {
        *(("one_shot", "H"), ("one_shot", "G")),
    }
