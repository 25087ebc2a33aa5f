"""Reservoirs in the harness store and recall masks over units and over weights."""

import shutil

import numpy as np
import pytest
import zarr

from composing import configured
from harness import evaluate, recall, scale
from harness.config.identity import from_yaml
from harness.config.schema import ReservoirConfig
from harness.data.catalogue import load_dataset
from harness.driver.train import Train
from harness.plan.reservoirs import recall_units
from harness.plan.resolve import resolve_block
from harness.plan.units import RecallUnit
from harness.run.existing import evaluation_configuration, recall_configuration
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RESERVOIR
from harness.tables.schemas import TASKS

UNITS = (
    *("data=digits", "experiment=reservoir", "network_options.hidden=[1024]", "tasks=6"),
    *("train.steps=60",),
    *("train.block=2", "executor=serial", "evaluate.checkpoints=[3,6]", "evaluate.batches=1"),
    *("evaluate.batch_size=128", "evaluate.num_images=128"),
)
WEIGHTS = (
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=12", "tasks=4"),
    *("train.steps=20",),
    *("train.learning_rate=0.01", "executor=serial", "evaluate.batches=1"),
    *("evaluate.algorithms=[max_logit]", "evaluate.checkpoints=[4]"),
)
TIMES = ("seconds", "store_seconds")


@pytest.fixture
def typed(typed):
    """A function that runs a command with run_dir=run; returns (exit code, stdout, stderr)."""
    return lambda job, *arguments: typed(job, "run_dir=run", *arguments)


def rows(run, **wanted):
    table = read_tables(run / "reservoir", RESERVOIR).drop(list(TIMES))
    return [
        row for row in table.to_pylist() if all(row[key] == value for key, value in wanted.items())
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a complete run of masks over units, with reservoirs. Tests only read it."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert scale.run(configured(*UNITS, f"run_dir={run_dir}")) == 0
    return run_dir


@pytest.fixture
def run(whole, tmp_path):
    """A copy of this run, in the folder in which commands are typed."""
    return shutil.copytree(whole, tmp_path / "run")


def test_a_run_of_unit_masks_is_inferred_and_recalled(run):
    own = read_tables(run / "log", TASKS)
    assert own["mask_bytes"].to_pylist() == [192] * 6  # 1024 bits, a guard byte and padding
    assert min(own["accuracy"].to_pylist()) > 0.6
    inferred = read_tables(run / "evaluations", EVALUATIONS)
    assert set(inferred["algorithm"].to_pylist()) == {"one_shot"}
    assert np.mean(inferred["task_accuracy"].to_numpy()) > 0.8
    for k in (3, 6):
        found = {row["cue"]: row for row in rows(run, num_tasks=k)}
        assert set(found) == {"flipped", "erased", "data"}
        for row in found.values():
            assert (row["rule"], row["dim"], row["num_blocks"]) == ("projection", 1024, 1)
            assert row["num_cues"] == k
            assert row["reservoir_bytes"] == 4 * (1024 * 1024 + 1024)
            assert row["store_bytes"] == 192 * k
            assert row["capacity"] == 1024
            assert row["exact_recall"] == 1
            assert row["accuracy"] == row["accuracy_gg"]
        assert found["data"]["share"] is None
        assert found["erased"]["share"] == 0.1


def test_a_unit_mask_by_numpy_alone_has_the_accuracy_of_the_table(run):
    group = zarr.open_group(run / "masks.zarr", mode="r")
    (units,), (plane,) = group.attrs["tensors"], group.attrs["planes"]
    assert units == {"name": "units1", "source": "layer1", "shape": [1024], "over": "units"}
    assert (plane["role"], plane["coefficient"], plane["num_bits"]) == ("keep", 1.0, 1024)
    assert group.attrs["activation"] == "swish of normalised"
    first, last = (group[f"weights/{name}"][...] for name in ("layer1", "layer2"))
    test, scale_of = load_dataset("digits").test, group.attrs["normalisation"]
    in_table = {r["task_id"]: r["accuracy"] for r in read_tables(run / "log", TASKS).to_pylist()}
    num_parts = -(-len(test.labels) // 250)
    for task in range(2):
        mask = np.unpackbits(group["masks"][task], bitorder="little")[: plane["num_bits"]]
        shown = test.flat[:, group["inputs/permutations"][task]] / 255
        right = 0
        for part in range(num_parts):
            x = (shown[part::num_parts] - scale_of["mean"][0]) / scale_of["std"][0]
            drive = x @ first.T
            z = mask * (drive - drive.mean(axis=0)) / np.sqrt(drive.var(axis=0) + 1e-5)
            logits = (z / (1 + np.exp(-z))) @ last.T
            right += (logits.argmax(axis=1) == test.labels[part::num_parts]).sum()
        assert right / len(test.labels) == in_table[task]


def test_typing_it_again_does_nothing_and_what_is_lost_is_recalled_again(run, typed):
    before = rows(run)
    lost = sorted((run / "reservoir").glob("k000003-*"))
    assert [path.name.split("-")[2] for path in lost] == ["data", "erased", "flipped"]
    code, _, err = typed(scale, *UNITS)
    assert (code, "complete already" in err) == (0, True)
    lost[0].unlink()
    code, _, err = typed(scale, *UNITS)
    assert (code, "complete already" in err) == (0, False)
    assert sorted(rows(run), key=repr) == sorted(before, key=repr)


def test_an_evaluation_recalls_too_where_it_is_told_to(run, typed):
    lost = sorted((run / "reservoir").glob("k000003-*"))
    for path in lost:
        path.unlink()
    asked = ("evaluate.checkpoints=[3,6]", "evaluate.reservoir=true", "evaluate.batches=1")
    code, _, err = typed(evaluate, *asked)
    assert code == 0, err
    assert "recalling 3 masks: 9/9 recalls" in err  # three masks, three kinds of cues
    assert sorted((run / "reservoir").glob("k000003-*")) == lost
    code, _, err = typed(evaluate, *asked)
    assert (code, "nothing left to evaluate or recall" in err) == (0, True)


def test_other_reservoirs_stand_beside_the_run_s_own(run, typed):
    rules = "hebb,storkey,projection,projection_4bits,perceptron,random_features"
    code, out, err = typed(
        recall, f"reservoir.rules=[{rules}]", "reservoir.cues=[flipped]", "evaluate.tasks=2"
    )
    assert code == 0, err
    assert "recalled from a reservoir" in out
    assert "one_shot" not in out
    added = rows(run, num_cues=2)
    assert {row["rule"] for row in added} == set(rules.split(","))
    assert {row["num_tasks"] for row in added} == {6}  # six tasks have one default checkpoint
    exact = {row["rule"]: row["exact_recall"] for row in added}
    assert exact["projection"] == exact["storkey"] == exact["projection_4bits"] == 1
    of_bytes = {row["rule"]: row["reservoir_bytes"] for row in added}
    assert of_bytes["projection_4bits"] < of_bytes["projection"] / 7
    assert exact["perceptron"] == 1
    assert len(rows(run)) == 6 + len(added)


def test_ray_recalls_the_same(run, typed, ray_session):
    options = ("reservoir.cues=[flipped,data]", "evaluate.checkpoints=[3,6]", "evaluate.tasks=3")
    for path in (run / "reservoir").iterdir():
        path.unlink()
    code, _, err = typed(recall, *options, "executor=ray")
    assert code == 0, err
    by_ray = rows(run, num_cues=3)
    for path in (run / "reservoir").iterdir():
        path.unlink()
    code, _, err = typed(recall, *options)
    assert code == 0, err
    assert sorted(rows(run, num_cues=3), key=repr) == sorted(by_ray, key=repr)


def test_masks_over_weights_go_in_by_blocks(typed, tmp_path):
    code, _, err = typed(scale, *WEIGHTS)
    assert code == 0, err
    code, _, err = typed(
        recall, "reservoir.block=1000", "reservoir.cues=[flipped,data]", "reservoir.share=0.05"
    )
    assert code == 0, err
    num_bits = 64 * 24 + 24 * 12
    found = {row["cue"]: row for row in rows(tmp_path / "run")}
    assert (found["flipped"]["dim"], found["flipped"]["num_blocks"]) == (num_bits // 2, 2)
    assert found["flipped"]["reservoir_bytes"] == 4 * (2 * (num_bits // 2) ** 2 + num_bits)
    assert found["flipped"]["exact_recall"] == 1
    assert found["flipped"]["accuracy"] == found["flipped"]["accuracy_gg"]
    # Only one layer has a quadratic form. With two layers, recall from data may be inexact.
    assert 0.4 < found["data"]["bit_accuracy"] <= 1


def test_a_run_that_is_not_finished_recalls_what_is_committed(typed, tmp_path, monkeypatch):
    commit = Train._commit

    def commit_and_stop(stage, trained):
        commit(stage, trained)
        if len(stage._masks) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Train, "_commit", commit_and_stop)
        assert typed(scale, *UNITS)[0] == 130
    code, _, err = typed(recall, "reservoir.cues=[flipped]")
    assert code == 0, err
    assert [row["num_tasks"] for row in rows(tmp_path / "run")][-1] == 4


@pytest.mark.parametrize(
    ("job", "options", "line"),
    [
        (recall, ["evaluate.tasks=1"], "must hold a run, got no config.yaml"),
        (recall, ["tasks=5"], "evaluate.batch_size, reservoir, executor, actors, run_dir"),
        (recall, ["evaluate.objectives=[G]"], "key must be one of evaluate.checkpoints, evaluate."),
        (recall, ["reservoir.rule=[hebb]"], "got reservoir.rule: try reservoir.rules=[projection]"),
        (
            scale,
            ["reservoir.rules=[hopfield]"],
            "reservoir.rules must be a list with one or more of hebb,",
        ),
        (scale, ["reservoir.cues=[]"], "reservoir.cues must be a list with one or more of flipped"),
        (scale, ["reservoir.share=1.5"], "reservoir.share must be a number in [0, 1], got 1.5"),
        (scale, ["reservoir.block=0"], "reservoir.block must be auto or a whole number >= 1"),
        (scale, ["reservoir.most_steps=0"], "reservoir.most_steps must be a whole number in [1, "),
        (scale, ["method=unit_mask"], "method must be one of threshold, edge_popup, signed"),
        (scale, [*UNITS, "train.batch_size=1"], "train.batch_size must be >= 2 with"),
        (scale, [*UNITS, "evaluate.num_images=1"], "evaluate.num_images must be >= 2 with"),
        (scale, [*UNITS, "train.dtype=bfloat16"], "train.dtype must be auto or float32 with"),
        (scale, [*UNITS, "actors.shards=2"], "evaluate.reservoir must be false if"),
        (
            scale,
            [*UNITS, "actors.shards=2", "evaluate.reservoir=false"],
            "actors.shards must be 1 with network=units and method=threshold",
        ),
        (
            scale,
            [*UNITS, "evaluate.algorithms=[one_shot_ranked]"],
            "evaluate.algorithms must be a list with one or more of one_shot, binary",
        ),
    ],
)
def test_mistakes_get_one_line(job, options, line, typed, tmp_path):
    code, out, err = typed(job, *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run" / "masks.zarr").exists()


def test_what_was_not_typed_is_as_the_run_has_it(run):
    stored, asked = from_yaml(run / "config.yaml"), from_yaml(run / "config.yaml")
    asked.run_dir, asked.evaluate.tasks, asked.reservoir.share = str(run), 7, 0.2
    config = recall_configuration(asked, ["run_dir", "evaluate.tasks"])
    assert config.evaluate.tasks == 7
    assert config.evaluate.batch_size == stored.evaluate.batch_size == 128
    assert config.evaluate.checkpoints == "auto"
    # All keys of reservoir.* come from this command line, even if they were not typed.
    assert config.reservoir.share == 0.2
    asked.evaluate.num_images, asked.evaluate.reservoir = 64, False  # the values of a command line
    evaluated = evaluation_configuration(asked, ["run_dir", "evaluate.num_images"]).evaluate
    assert (evaluated.num_images, evaluated.algorithms) == (64, ["one_shot"])
    assert not evaluated.reservoir


def test_a_reservoir_larger_than_memory_is_refused(run, typed, monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    code, out, err = typed(recall, "evaluate.tasks=5")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "reservoir.block must be smaller: a reservoir with rule projection takes" in err
    assert "try reservoir.block=250" in err


def test_recall_wants_one_actor_to_hold_all_masks(run, typed):
    code, _, err = typed(recall, "actors.shards=2")
    assert (code, "actors.shards must be 1" in err) == (2, True)


def test_blocks_follow_the_mask_s_size():
    def resolved(block, mask_bits):
        return resolve_block(ReservoirConfig(block=block), mask_bits).block

    assert resolved("auto", 8192) == 8192
    assert resolved("auto", 8193) == 1024
    assert resolved(300, 512) == 300
    assert resolved(600, 512) == 512


def test_a_command_without_options_repeats_what_the_run_recalled(run, typed):
    before = len(rows(run))
    code, _, err = typed(recall, "evaluate.checkpoints=[3,6]")
    assert (code, "nothing left to recall" in err) == (0, True)
    assert len(rows(run)) == before


def test_a_unit_is_named_by_what_its_row_follows_from(run):
    config = from_yaml(run / "config.yaml")
    unit = RecallUnit(6, "projection", "flipped", (0, 5), "abc")
    assert (unit.name, unit.num_rows) == ("k000006-projection-flipped-abc", 1)
    names = []
    for share in (0.1, 0.2):
        config.reservoir.share = share
        names.append({u.name for u in recall_units(config, 6)})
    [same] = names[0] & names[1]
    assert same.startswith("k000006-projection-data-")  # cues from data read no share


def test_a_recall_that_exists_is_not_made_again_for_another_list_of_cues(run, typed):
    before = rows(run)
    asked = ("evaluate.checkpoints=[3,6]", "reservoir.cues=[data,flipped]")
    code, _, err = typed(recall, *asked)
    assert (code, "nothing left to recall" in err) == (0, True)
    code, _, err = typed(recall, *asked, "reservoir.share=0.2")
    assert code == 0, err
    added = [row for row in rows(run) if row not in before]
    assert [(row["num_tasks"], row["cue"], row["share"]) for row in added] == [
        (3, "flipped", 0.2),
        (6, "flipped", 0.2),
    ]


def test_each_setting_that_makes_another_recall_is_a_column(run, typed):
    asked = ("evaluate.checkpoints=[3]", "reservoir.cues=[flipped]")
    for option in ("reservoir.most_steps=7", "reservoir.block=64", "evaluate.batch_size=64"):
        code, _, err = typed(recall, *asked, option)
        assert code == 0, err
    found = rows(run, num_tasks=3, cue="flipped")
    settings = [tuple(row[key] for key in ("most_steps", "block", "batch_size")) for row in found]
    assert sorted(settings) == [(7, 1024, 128), (50, 64, 128), (50, 1024, 64), (50, 1024, 128)]
