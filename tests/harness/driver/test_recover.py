"""Masks over units are recovered by gradient descent, as in Figure 7 of the paper."""

import numpy as np
import pytest
import zarr

from harness import recall, scale, status
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RECOVERY

FIGURE_7 = (
    *("experiment=fig7", "data=digits", "network_options.hidden=[64,48]", "train.steps=8"),
    *("train.batch_size=32", "reservoir.gradients=4", "executor=serial", "run_dir=run"),
    "evaluate.batch_size=16",
)


@pytest.fixture
def run(typed, tmp_path):
    """The folder of a complete small run of experiment=fig7."""
    code, out, err = typed(scale, *FIGURE_7)
    assert code == 0, err
    assert "storkey and gradient descent recover" in out
    return tmp_path / "run"


def test_each_step_of_each_task_is_a_row(run, typed, capsys):
    table = read_tables(run / "recovery", RECOVERY).to_pandas()
    assert table.groupby("task_id")["step"].apply(list).to_list() == [[0, 1, 2, 3, 4]] * 5
    # The descent starts from the mean of the masks; a bit of 1 wins a draw.
    masks = zarr.open_group(run / "masks.zarr", mode="r")["masks"][:5]
    bits = np.unpackbits(masks, axis=1, bitorder="little")
    layers = [bits[:, :64].astype(int), bits[:, 512 : 512 + 48].astype(int)]
    for row in table[table["step"] == 0].itertuples():
        start = [2 * layer.sum(axis=0) >= 5 for layer in layers]
        pairs = zip(start, layers, strict=True)
        assert row.wrong_bits.tolist() == [(a != b[row.task_id]).sum() for a, b in pairs]
    last = table["step"] == 4
    assert table.loc[last, "entropy"].isna().all()
    assert not table.loc[~last, "entropy"].isna().any()
    given = read_tables(run / "evaluations", EVALUATIONS).to_pandas().set_index("task_id")
    of_stored = table[last].set_index("task_id")["accuracy_gg"]
    assert of_stored.to_dict() == given["accuracy_gg"].to_dict()
    assert set(table["reservoir_bytes"]) == {4 * (64**2 + 48**2)}
    found = table["wrong_bits"].map(sum) == 0
    assert (table.loc[found, "accuracy"] == table.loc[found, "accuracy_gg"]).all()

    code, _, err = typed(scale, *FIGURE_7)
    assert (code, "complete already" in err) == (0, True)
    capsys.readouterr()
    assert status.main(["run_dir=run"]) == 0
    assert "checkpoint 5: complete\n" in capsys.readouterr().out


def test_a_recall_recovers_with_other_rules_and_more_steps(run, typed):
    asked = ("reservoir.cues=[descent,flipped]", "reservoir.gradients=2", "evaluate.tasks=2")
    rules = "reservoir.rules=[projection,perceptron]"
    code, out, err = typed(recall, "run_dir=run", *asked, rules)
    assert code == 0, err
    assert "recalled from a reservoir" in out
    rows = read_tables(run / "recovery", RECOVERY).to_pandas()
    added = rows[rows["gradients"] == 2]
    assert added.groupby(["rule", "task_id"]).size().to_dict() == {
        (rule, task): 3 for rule in ("perceptron", "projection") for task in (0, 4)
    }
