import io
import re
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from harness.driver.failures import Failures
from harness.executors.protocol import Outcome
from harness.plan.units import TrainUnit
from harness.reporting.end_table import print_summary, summarise
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RESERVOIR
from harness.tables.schemas import TASKS

RUN = "0123456789abcdef"  # the identity of the run


def evaluations(*rows):
    """Return a table of evaluations. Columns that a row leaves out have the defaults below."""
    same = {
        "num_tasks": 10,
        "num_distractors": 0,
        "task_id": 0,
        "algorithm": "one_shot",
        "objective": "H",
        "num_images": 1,
        "batch_size": 128,
        "log_base": None,
        "steps": None,
        "rate": None,
        "tasks_asked": 2,
        "batches": 4,
        "num_batches": 4,
        "task_accuracy": 1.0,
        "accuracy_gg": 1.0,
        "accuracy_gns": 1.0,
        "accuracy_gnu": 1.0,
        "seconds_per_inference": 1.0,
        "num_gradients": 1,
        "bits_read_fraction": 1.0,
        "agreement": None,
        "device": "cpu",
    }
    return pa.Table.from_pylist([same | row for row in rows], schema=EVALUATIONS)


TABLE = evaluations(
    {"num_tasks": 25, "task_accuracy": 0.5, "accuracy_gnu": 0.25, "num_batches": 3},
    {"task_id": 0, "task_accuracy": 0.5, "accuracy_gg": 0.75, "seconds_per_inference": 0.001},
    {"task_id": 9, "task_accuracy": 1.0, "accuracy_gg": 0.25, "seconds_per_inference": 0.003},
    {"task_id": 9, "objective": "G", "accuracy_gns": 0.125},
    {"algorithm": "max_logit", "objective": None, "task_accuracy": 0.125},
)


def test_summaries_are_means_over_tasks_and_sums_of_inferences():
    rows = summarise(TABLE).to_pylist()
    found = {(row["num_tasks"], row["algorithm"], row["objective"]): row for row in rows}
    assert len(found) == len(rows) == 4
    two = found[10, "one_shot", "H"]
    assert two["task_accuracy_mean"] == 0.75
    assert two["accuracy_gg_mean"] == 0.5
    assert two["accuracy_gns_mean"] == two["accuracy_gnu_mean"] == 1.0
    assert two["seconds_per_inference_mean"] == pytest.approx(0.002)
    assert two["num_batches_sum"] == 8
    assert found[10, "one_shot", "G"]["accuracy_gns_mean"] == 0.125
    assert found[10, "max_logit", None]["task_accuracy_mean"] == 0.125
    one = found[25, "one_shot", "H"]
    assert (one["accuracy_gnu_mean"], one["num_batches_sum"]) == (0.25, 3)


def test_summaries_are_in_order():
    rows = summarise(TABLE).to_pylist()
    assert [(row["num_tasks"], row["algorithm"], row["objective"]) for row in rows] == [
        (10, "max_logit", None),
        (10, "one_shot", "G"),
        (10, "one_shot", "H"),
        (25, "one_shot", "H"),
    ]


def test_distractors_make_a_row_of_their_own():
    table = evaluations(
        {"num_tasks": 15, "num_distractors": 5, "task_accuracy": 0.5},
        {"num_tasks": 15},
        {"num_tasks": 15, "task_accuracy": 0.0},
    )
    rows = summarise(table).to_pylist()
    found = [(r["num_tasks"], r["num_distractors"], r["task_accuracy_mean"]) for r in rows]
    assert found == [(15, 0, 0.5), (15, 5, 0.5)]


@pytest.mark.parametrize(
    "setting", ["num_images", "batch_size", "log_base", "steps", "tasks_asked", "batches"]
)
def test_another_setting_makes_a_row_of_its_own(setting):
    table = evaluations({"task_accuracy": 0.0}, {setting: 3})
    assert sorted(summarise(table)["task_accuracy_mean"].to_pylist()) == [0.0, 1.0]


def test_agreement_is_a_mean_of_what_was_compared():
    table = evaluations(
        {"algorithm": "one_shot_ranked", "agreement": 0.5, "bits_read_fraction": 0.25},
        {"algorithm": "one_shot_ranked", "agreement": 1.0, "bits_read_fraction": 0.5},
        {"algorithm": "one_shot_ranked", "agreement": None, "bits_read_fraction": 0.75},
        {},
    )
    exact, ranked = summarise(table).to_pylist()
    assert (exact["agreement_mean"], exact["bits_read_fraction_mean"]) == (None, 1.0)
    assert (ranked["agreement_mean"], ranked["bits_read_fraction_mean"]) == (0.75, 0.5)


def test_nothing_evaluated_has_an_empty_summary():
    assert summarise(EVALUATIONS.empty_table()).num_rows == 0


def task(task_id, accuracy):
    return {
        "task_id": task_id,
        "method": "threshold",
        "accuracy": accuracy,
        "loss": 0.5,
        "steps": 3,
        "train_seconds": 1.5,
        "density": 0.5,
        "mask_bytes": 128,
        "row_crc32c": 7,
        "worker": "serial",
        "device": "cpu",
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def printed(folder, width=110):
    console = Console(file=io.StringIO(), width=width)
    print_summary(console, folder, RUN)
    return console.file.getvalue()


def cells(text):
    """Return the cells of each line of a printed table, the header first."""
    table = text.split("k: number", 1)[0].split("\n\n", 1)[1].splitlines()[1:]
    return [re.split(r" {2,}", line.strip()) for line in table if "─" not in line]


def test_the_printed_summary_says_how_well_and_where(tmp_path):
    for name in ("log", "evaluations"):
        (tmp_path / name).mkdir()
    rows = [task(0, 0.75), task(1, 0.25)]
    write_table(pa.Table.from_pylist(rows, schema=TASKS), tmp_path / "log" / "unit.parquet", RUN)
    write_table(TABLE, tmp_path / "evaluations" / "k.parquet", RUN)
    text = printed(tmp_path)
    assert "2 masks" in text
    assert "mean 0.5000, lowest 0.2500; 1.50 s of" in text
    [row] = [row for row in cells(text) if row[:2] == ["10", "one_shot H"]]
    assert row == ["10", "one_shot H", "8", "0.7500", "0.5000", "1.0000", "1.0000", "2.00"]
    [line] = [line for line in text.splitlines() if "max_logit" in line]
    assert "None" not in line
    assert str(tmp_path) in text


def test_the_summary_says_how_many_weights_are_free(tmp_path):
    (tmp_path / "log").mkdir()
    rows = [task(0, 0.75) | {"free_share": 0.9}, task(1, 0.25) | {"free_share": 0.8125}]
    write_table(pa.Table.from_pylist(rows, schema=TASKS), tmp_path / "log" / "unit.parquet", RUN)
    assert "per mask; no mask keeps 81.2% of the weights" in printed(tmp_path, 200)


def test_the_summary_compares_the_mask_of_task_0_with_its_dense_base(tmp_path):
    (tmp_path / "log").mkdir()
    rows = [task(0, 0.75) | {"base_accuracy": 0.8125}, task(1, 0.25) | {"base_accuracy": 0.1}]
    write_table(pa.Table.from_pylist(rows, schema=TASKS), tmp_path / "log" / "unit.parquet", RUN)
    assert "per mask; task 0: mask 0.7500, dense base 0.8125" in printed(tmp_path, 200)


def test_the_summary_begins_with_the_result_in_one_sentence(tmp_path):
    (tmp_path / "evaluations").mkdir()
    asked_first = {"num_tasks": 25, "algorithm": "one_shot", "objective": "H"}
    table = evaluations(
        {"num_tasks": 10, "task_accuracy": 0.0},
        asked_first | {"task_accuracy": 0.75, "accuracy_gg": 0.9, "accuracy_gnu": 0.7},
        asked_first
        | {"num_batches": 3, "task_accuracy": 1 / 3, "accuracy_gg": 0.8, "accuracy_gnu": 0.6},
        {"num_tasks": 25, "algorithm": "binary", "task_accuracy": 0.0},
        {"num_tasks": 30, "num_distractors": 5, "task_accuracy": 0.0},
    )
    write_table(table, tmp_path / "evaluations" / "k.parquet", RUN)
    assert printed(tmp_path).partition("\n\n")[0] == (
        "Among 25 masks, one_shot H infers the right task for 4 of 7 queries: accuracy 0.8500 "
        "with the task given (GG), 0.6500 with the task inferred (GNu)."
    )


def on_a_terminal(folder, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_summary(console, folder, RUN)
    return console.file.getvalue()


def test_no_number_is_broken_on_a_terminal_of_80_columns(tmp_path):
    """A terminal breaks a longer line anywhere, so no line but that of the folder is longer."""
    folder = tmp_path / ("a" * 80)
    for name in ("log", "evaluations", "reservoir"):
        (folder / name).mkdir(parents=True)
    rows = [task(i, 0.93512 + i / 10**5) | {"train_seconds": 4.25 + i} for i in range(9)]
    write_table(pa.Table.from_pylist(rows, schema=TASKS), folder / "log" / "u.parquet", RUN)
    huge = {"num_batches": 1_234_567, "seconds_per_inference": 123.45678, "agreement": 0.995}
    long = {"algorithm": "gradient_descent", "objective": "G_first_layer"}
    table = evaluations(
        huge | RANKED | {"num_tasks": 2500},
        huge | long | {"num_tasks": 100_000, "task_accuracy": 0.12345},
        huge | RANKED | {"num_tasks": 102_500, "num_distractors": 100_000},
    )
    write_table(table, folder / "evaluations" / "k.parquet", RUN)
    recalls = [RECALL, RECALL | {"num_tasks": 12_500, "rule": "random_features", "cue": "erased"}]
    table = pa.Table.from_pylist(recalls, schema=RESERVOIR)
    write_table(table, folder / "reservoir" / "k.parquet", RUN)
    lines = on_a_terminal(folder).splitlines()
    said = " ".join(" ".join(lines).split())
    assert [line for line in lines if len(line) > 80] == [str(folder)]
    assert "…" not in said
    for number in ("100000", "2500+100000", "1234567", "123456.78", "0.1235", "12500"):
        assert f" {number} " in said
    assert "mean 0.9352, lowest 0.9351; 8.25 s of one actor per mask" in said


def test_the_summary_fits_a_terminal_of_80_columns(tmp_path):
    for name in ("log", "evaluations"):
        (tmp_path / name).mkdir()
    many = {"num_tasks": 10_000, "num_batches": 200_000, "seconds_per_inference": 1.25}
    table = evaluations(many | {"algorithm": "min_entropy", "objective": None}, many)
    write_table(table, tmp_path / "evaluations" / "k.parquet", RUN)
    text = printed(tmp_path, width=80)
    table, caption = text.split("\n\n", 1)[1].split("k: number", 1)
    assert "…" not in table
    assert max(len(line) for line in table.splitlines()) <= 80
    assert cells(text) == [
        ["k", "inferred by", "queries", "task", "GG", "GNs", "GNu", "ms"],
        ["10000", "min_entropy", "200000", *4 * ["1.0000"], "1250.00"],
        ["10000", "one_shot H", "200000", *4 * ["1.0000"], "1250.00"],
    ]
    for name in ("ms:", "GG", "GNs", "GNu"):
        assert name in " ".join(caption.split())


RANKED = {
    "algorithm": "one_shot_ranked", "num_batches": 200, "bits_read_fraction": 0.117,
    "agreement": 0.995, "seconds_per_inference": 0.00234,
}  # fmt: skip


@pytest.mark.parametrize(
    ("width", "extra"),
    [(110, {"agree": "0.995", "bits": "0.117"}), (84, {"agree": "0.995"}), (78, {})],
)
def test_agreement_and_bits_are_shown_where_there_is_room(tmp_path, width, extra):
    (tmp_path / "evaluations").mkdir()
    table = evaluations(RANKED | {"num_tasks": 2500, "num_distractors": 2250})
    write_table(table, tmp_path / "evaluations" / "k.parquet", RUN)
    text = printed(tmp_path, width)
    assert cells(text) == [
        ["k", "inferred by", "queries", "task", "GG", "GNs", "GNu", *extra, "ms"],
        ["250+2250", "one_shot_ranked H", "200", *4 * ["1.0000"], *extra.values(), "2.34"],
    ]
    lines = text.split("\n\n", 1)[1].splitlines()
    assert max(len(line) for line in lines[:-1]) <= width  # the last line is the folder
    for name in ("agree", "bits"):
        assert (f"{name}:" in text) == (name in extra)


def test_a_long_name_breaks_before_its_objective(tmp_path):
    (tmp_path / "evaluations").mkdir()
    long = {"algorithm": "gradient_descent", "objective": "H_first_layer", "num_batches": 200_000}
    write_table(evaluations(long), tmp_path / "evaluations" / "k.parquet", RUN)
    lines = printed(tmp_path, 80).splitlines()
    [first] = [i for i, line in enumerate(lines) if re.search("^10  gradient_descent ", line)]
    assert lines[first + 1].strip() == "H_first_layer"


def test_only_the_files_that_are_asked_for_are_summarised(tmp_path):
    folder = tmp_path / "evaluations"
    folder.mkdir()
    write_table(evaluations({"num_tasks": 10}), folder / "a.parquet", RUN)
    write_table(evaluations({"num_tasks": 20}), folder / "b.parquet", RUN)
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, tmp_path, RUN, [folder / "b.parquet"])
    assert [row[0] for row in cells(console.file.getvalue())] == ["k", "20"]


@pytest.mark.parametrize("name", ["[red]run", "run[/red]", "a[b]c"])
def test_brackets_in_a_folder_s_name_are_printed_as_they_are(name, tmp_path):
    folder = tmp_path.joinpath(*name.split("/"))
    for table in ("log", "evaluations"):
        (folder / table).mkdir(parents=True)
    assert str(folder) in printed(folder)


def test_a_run_without_masks_can_be_summarised(tmp_path):
    text = printed(tmp_path)
    assert "0 masks" in text
    assert "nan" not in text


RECALL = {
    "rule": "projection", "dim": 8192, "num_blocks": 1, "num_tasks": 2500, "cue": "flipped",
    "block": 8192, "most_steps": 50, "batch_size": 128, "batches": 4,
    "share": 0.1, "num_cues": 50, "bit_accuracy": 1.0, "exact_recall": 0.98, "other": 0.0,
    "spurious": 0.0, "unsettled": 0.02, "steps": 2.0, "accuracy": 0.861, "accuracy_gg": 0.862,
    "capacity": 8192.0, "reservoir_bytes": 268_468_224, "store_bytes": 2_720_000,
    "seconds": 0.0123, "store_seconds": 0.05, "device": "cpu",
}  # fmt: skip


def test_what_was_recalled_fits_a_terminal_of_80_columns(tmp_path):
    for name in ("log", "reservoir"):
        (tmp_path / name).mkdir()
    rows = [RECALL, RECALL | {"cue": "data", "share": None, "seconds": 1.25}]
    table = pa.Table.from_pylist(rows, schema=RESERVOIR)
    write_table(table, tmp_path / "reservoir" / "k.parquet", RUN)
    text = printed(tmp_path, width=80)
    sentence, lines = text.split("k: number", 1)[0].split("\n\n", 1)
    assert " ".join(sentence.split()) == (
        "Among 2500 masks in a reservoir, projection recalls 49 of 50 masks without a wrong bit "
        "from cues with 10% of the bits flipped: accuracy 0.8610 with the recalled masks, 0.8620 "
        "with the stored masks."
    )
    lines = lines.splitlines()
    assert "…" not in text
    assert max(map(len, lines)) <= 80
    found = [line.split() for line in lines if "projection" in line]
    shared = ["50", "0.980", "1.000", "0.861", "0.862", "268", "2.7"]
    assert found == [
        ["2500", "projection", "data", *shared, "1250.0"],
        ["2500", "projection", "flipped", "10%", *shared, "12.3"],
    ]


def test_what_was_set_aside_is_named_and_the_rest_is_counted(tmp_path):
    failures = Failures(tmp_path / "failures", RUN)
    for i in range(7):
        unit = TrainUnit(f"unit-{i:06d}", (i,), (i,))
        failures.add(Outcome("train", unit, error=f"OSError: [no] page {i}\nand more"))
    said = printed(tmp_path)
    assert "set aside after 3 tries: task 0 of unit-000000: OSError: [no] page 0 and more" in said
    assert "page 4" in said
    assert "page 5" not in said
    assert "and 2 more in the table failures" in said
    again = Failures(tmp_path / "failures", RUN)  # opened by a later start
    for i in range(7):
        again.forget(f"unit-{i:06d}", [i])
    assert "set aside" not in printed(tmp_path)
