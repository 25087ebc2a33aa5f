"""Complete runs in this process. Every executor and every restart gives the same results."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from composing import configured
from harness.config.identity import from_yaml, result_values
from harness.config.names import AUTO
from harness.config.schema import Config
from harness.driver.train import Train
from harness.errors import UserError
from harness.scale import run
from harness.storage.lock import run_lock
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS

# Columns that may differ between two runs of one configuration.
NOT_COMPARED = ("train_seconds", "worker", "finished_at", "seconds_per_inference")


def configure(run_dir: Path, *overrides: str) -> Config:
    """Configure a run that takes a second: six small tasks of digits, in blocks of two."""
    given = (
        "data=digits network=mlp network_options.hidden=[24] outputs=20 tasks=6 "
        "train.steps=20 train.block=2 train.learning_rate=0.01 train.smoothing=0.9 "
        f"evaluate.batches=1 evaluate.checkpoints=[2,6] executor=serial run_dir={run_dir}"
    )
    return configured(*given.split(), *overrides)


def mask_bytes(run_dir: Path) -> bytes:
    """Return the bytes of all rows of the array `masks`."""
    rows = zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[...]
    return np.asarray(rows).tobytes()


def observations(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of both tables, sorted so that the order of commits has no effect."""
    rows = [
        *read_tables(run_dir / "log", TASKS).to_pylist(),
        *read_tables(run_dir / "evaluations", EVALUATIONS).to_pylist(),
    ]
    kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in rows]
    return sorted(kept, key=repr)


def files(run_dir: Path) -> dict[str, bytes]:
    """Return every file of a run: path relative to the run directory -> content."""
    return {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in run_dir.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("serial")
    assert run(configure(run_dir)) == 0
    return run_dir


def test_ray_gives_the_results_of_the_serial_executor(
    serial: Path, tmp_path: Path, ray_session: ModuleType
) -> None:
    assert run(configure(tmp_path, "executor=ray", "actors.train=2")) == 0
    assert mask_bytes(tmp_path) == mask_bytes(serial)
    assert observations(tmp_path) == observations(serial)
    workers = read_tables(tmp_path / "log", TASKS)["worker"].to_pylist()
    assert 1 <= len(set(workers)) <= 2  # the first actor that is up may train all units


CONV = ("~network_options.hidden", "network=small_conv")


@pytest.mark.parametrize(
    ("options", "on_ray"),
    [
        ((*CONV, "method=edge_popup"), False),
        ((*CONV, "method=signed", "method_options.threshold=0.2"), True),
    ],
)
def test_states_of_planes_and_floats_are_the_same_on_two_actors_and_after_a_stop(
    options: tuple[str, ...],
    on_ray: bool,
    tmp_path: Path,
    ray_session: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after_a_commit(patched)
        assert run(configure(tmp_path / "stopped", *options)) == 130
    ways = {"stopped": ("executor=serial",), "serial": ("executor=serial",)}
    if on_ray:
        ways["two"] = ("executor=ray", "actors.train=2")
    for name, way in ways.items():
        assert run(configure(tmp_path / name, *options, *way)) == 0
    expected = mask_bytes(tmp_path / "serial"), observations(tmp_path / "serial")
    for name in ways:
        assert (mask_bytes(tmp_path / name), observations(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("dtype", "actors"),
    [("float32", 2), pytest.param("bfloat16", 1, marks=pytest.mark.long)],
)
def test_the_real_network_has_the_same_masks_on_any_number_of_actors(
    dtype: str, actors: int, tmp_path: Path, ray_session: ModuleType
) -> None:
    options = [
        *("data=mnist5k", "network=lenet_300_100", "~network_options.hidden", "outputs=500"),
        *("tasks=4", "train.block=2", "train.steps=5", f"train.dtype={dtype}"),
        *("evaluate.checkpoints=[2]", "evaluate.tasks=1", "evaluate.algorithms=[max_logit]"),
    ]
    serial = tmp_path / "serial"
    assert run(configure(serial, *options, "executor=serial")) == 0
    expected = mask_bytes(serial), observations(serial)
    assert len(expected[1]) == 4 + 1  # four tasks, and one evaluated task
    run_dir = tmp_path / "ray"
    assert run(configure(run_dir, *options, "executor=ray", f"actors.train={actors}")) == 0
    assert (mask_bytes(run_dir), observations(run_dir)) == expected


def test_a_run_may_go_on_with_another_executor_and_other_actors(
    serial: Path, tmp_path: Path, ray_session: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after_a_commit(patched)
        assert run(configure(tmp_path)) == 130
    assert len(read_tables(tmp_path / "log", TASKS)) == 2
    begun = files(tmp_path)

    assert run(configure(tmp_path, "executor=ray", "actors.train=1", "actors.evaluate=2")) == 0
    assert mask_bytes(tmp_path) == mask_bytes(serial)
    assert observations(tmp_path) == observations(serial)
    ended = files(tmp_path)
    for name in ("log/unit-000000.parquet", "config.yaml"):
        assert ended[name] == begun[name]


def interrupt_after_a_commit(patched: pytest.MonkeyPatch) -> None:
    commit = Train._commit

    def commit_and_stop(stage: Train, trained: Any) -> None:
        commit(stage, trained)
        raise KeyboardInterrupt

    patched.setattr(Train, "_commit", commit_and_stop)


def test_an_interrupted_run_says_what_is_committed_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_after_a_commit(monkeypatch)
    assert run(configure(tmp_path)) == 130
    said = capsys.readouterr().out
    assert "2 of 6 tasks are committed" in said
    assert "type the same command again" in said
    assert str(tmp_path) in said


def test_evaluation_starts_before_training_ends(serial: Path) -> None:
    last_commit = max(path.stat().st_mtime_ns for path in serial.glob("log/*.parquet"))
    evaluated = {
        k: [path.stat().st_mtime_ns for path in serial.glob(f"evaluations/k{k:06d}-*.parquet")]
        for k in (2, 6)
    }
    assert len(evaluated[2]) == len(evaluated[6]) == 8
    assert max(evaluated[2]) < last_commit < min(evaluated[6])


def test_the_tables_hold_every_task_and_every_evaluation_once(serial: Path) -> None:
    tasks = read_tables(serial / "log", TASKS).to_pylist()
    assert [row["task_id"] for row in tasks] == list(range(6))
    rows = read_tables(serial / "evaluations", EVALUATIONS).to_pylist()
    found = [(r["num_tasks"], r["task_id"], r["algorithm"], r["objective"]) for r in rows]
    asked = [
        *(("one_shot", "H"), ("one_shot", "G"), ("binary", "H"), ("binary", "G")),
        *(("one_shot_ranked", "H"), ("one_shot_ranked", "G")),
        *(("min_entropy", None), ("max_logit", None)),
    ]
    assert sorted(found, key=str) == sorted(
        ((k, task_id, *how) for k in (2, 6) for task_id in range(k) for how in asked), key=str
    )


def test_the_sample_is_bounded_by_tasks_and_batches(tmp_path: Path) -> None:
    options = ("evaluate.tasks=3", "evaluate.batches=null", "evaluate.algorithms=[max_logit]")
    assert run(configure(tmp_path, *options, "evaluate.batch_size=100")) == 0
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    found = sorted((row["num_tasks"], row["task_id"], row["num_batches"]) for row in rows)
    # 359 test images make three batches of 100 and a batch of 59. The evaluated tasks include
    # the first and the last task.
    assert found == [(2, 0, 4), (2, 1, 4), (6, 0, 4), (6, 2, 4), (6, 5, 4)]


def test_the_last_checkpoint_is_evaluated_again_among_distractors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("evaluate.distractors=5", "evaluate.algorithms=[one_shot,max_logit]")
    for _ in range(2):
        assert run(configure(tmp_path, *options, "evaluate.objectives=[H]")) == 0
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    found = {(r["num_tasks"], r["num_distractors"], r["algorithm"]) for r in rows}
    plain = {(k, 0, by) for k in (2, 6) for by in ("one_shot", "max_logit")}
    assert found == plain | {(11, 5, "one_shot")}
    assert sorted(r["task_id"] for r in rows if r["num_distractors"]) == list(range(6))
    said = capsys.readouterr()
    assert "6+5  one_shot H" in said.out
    assert "complete already" in said.err


def test_evaluations_of_another_version_are_refused_and_left_alone(
    serial: Path, tmp_path: Path
) -> None:
    shutil.copytree(serial, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "evaluations").iterdir():
        metadata = EVALUATIONS.metadata | {b"schema_version": b"2"}
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    before = files(tmp_path)
    with pytest.raises(UserError, match="must have schema_version 3, got 2: choose another"):
        run(configure(tmp_path))
    after = files(tmp_path)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"provenance.json"}


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_second_start_of_a_complete_run_does_nothing(
    executor: str, serial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(serial, tmp_path, dirs_exist_ok=True)
    before = files(tmp_path)
    capsys.readouterr()
    # No Ray is running: a start that has nothing to do must not wait for Ray.
    assert run(configure(tmp_path, f"executor={executor}")) == 0
    after = files(tmp_path)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"provenance.json"}
    said = capsys.readouterr()
    assert "complete already" in said.err
    assert "6 masks" in said.out


def test_a_second_start_evaluates_what_is_missing_and_trains_nothing(
    serial: Path, tmp_path: Path
) -> None:
    shutil.copytree(serial, tmp_path, dirs_exist_ok=True)
    before = files(tmp_path)
    lost = tmp_path / "evaluations" / "k000002-binary-G-000000.parquet"
    lost.unlink()
    assert run(configure(tmp_path)) == 0
    after = files(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"provenance.json", str(lost.relative_to(tmp_path))}
    assert observations(tmp_path) == observations(serial)


def test_a_run_keeps_its_configuration_with_every_auto_resolved(tmp_path: Path) -> None:
    options = ("train.block=auto", "train.dtype=auto", "evaluate.checkpoints=auto", "train.steps=2")
    typed = configure(tmp_path, *options, "tasks=11")
    assert run(typed) == 0
    kept = result_values(from_yaml(tmp_path / "config.yaml"))
    assert AUTO not in kept.values()
    assert kept["train.block"] == 3  # a quarter of the tasks, rounded up
    assert kept["evaluate.checkpoints"] == [10, 11]
    assert kept["train.dtype"] in ("float32", "bfloat16")
    differing = {key for key, value in result_values(typed).items() if kept[key] != value}
    automatic = {
        "train.block",
        "train.dtype",
        "train.device",
        "reservoir.block",
        "allocation.budget",
    }
    automatic |= {f"evaluate.{name}" for name in ("checkpoints", "algorithms", "num_images")}
    assert differing <= automatic
    assert run(typed) == 0  # `auto` agrees with the stored value


def test_provenance_names_each_start(serial: Path, tmp_path: Path) -> None:
    shutil.copytree(serial, tmp_path, dirs_exist_ok=True)
    assert run(configure(tmp_path)) == 0
    record = json.loads((tmp_path / "provenance.json").read_text())
    attributes = zarr.open_group(tmp_path / "masks.zarr", mode="r").attrs
    assert record["config_hash"] == attributes["config_hash"]
    assert len(record["starts"]) == 2
    for start in record["starts"]:
        assert start["command"]
        assert {"torch", "numpy", "zarr", "python"} <= start["versions"].keys()
        assert start["machine"]["cpus"] >= 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "evaluate.checkpoints=[2,4,6]",
            "evaluate.checkpoints is [2, 6] in the folder, [2, 4, 6] in this command",
        ),
        (
            "evaluate.checkpoints=[6]",
            "evaluate.checkpoints is [2, 6] in the folder, [6] in this command",
        ),
        ("tasks=7", "tasks is 6 in the folder, 7 in this command"),
        ("seed=1", "seed is 0 in the folder, 1 in this command"),
        ("train.steps=21", "train.steps is 20 in the folder, 21 in this command"),
        ("train.block=3", "train.block is 2 in the folder, 3 in this command"),
    ],
)
def test_a_run_of_another_configuration_is_refused_by_key(
    override: str, said: str, serial: Path
) -> None:
    before = files(serial)
    with pytest.raises(UserError) as refused:
        run(configure(serial, override))
    assert said in str(refused.value)
    assert "choose another run_dir" in str(refused.value)
    assert files(serial) == before


def test_a_checkpoint_beyond_the_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.checkpoints must be at most tasks=6"):
        configure(tmp_path, "evaluate.checkpoints=[7]")


def test_a_second_driver_is_kept_out(serial: Path) -> None:
    with run_lock(serial), pytest.raises(UserError, match="in use by process"):
        run(configure(serial))


def test_the_empty_store_of_a_start_that_crashed_gives_way(
    serial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("harness.run.directory.write_durably", crash)  # cannot write config.yaml
        with pytest.raises(KeyboardInterrupt):
            run(configure(tmp_path, "seed=1", "tasks=4", "evaluate.checkpoints=[4]"))
    assert (tmp_path / "masks.zarr").exists()
    assert not (tmp_path / "config.yaml").exists()

    assert run(configure(tmp_path)) == 0
    assert mask_bytes(tmp_path) == mask_bytes(serial)
    attributes = [
        zarr.open_group(run_dir / "masks.zarr", mode="r").attrs.asdict()
        for run_dir in (tmp_path, serial)
    ]
    assert attributes[0] == attributes[1]


def test_masks_without_their_configuration_are_left_alone(serial: Path, tmp_path: Path) -> None:
    shutil.copytree(serial, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.yaml").unlink()
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"holds masks but no config\.yaml"):
        run(configure(tmp_path))
    assert files(tmp_path) == before


EQUAL = (
    "only 24 of 25 tasks are different with family=rotated; for example, tasks 12 and 13 show the "
    "same images: choose fewer tasks or other family_options"
)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (["tasks=25"], 1),
        (["tasks=24"], 0),
        (["tasks=25", "family_options.interpolation=bilinear"], 0),
    ],
)
def test_equal_tasks_are_warned_about_when_a_run_begins(
    options: list[str], warned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(
        tmp_path, *options, "family=rotated", "train.steps=1", "train.block=40",
        "train.batch_size=2", "network_options.hidden=[2]", "evaluate.checkpoints=[1]",
    )  # fmt: skip
    assert run(config) == 0
    assert " ".join(capsys.readouterr().err.split()).count(EQUAL) == warned
    assert run(config) == 0
    assert EQUAL not in " ".join(capsys.readouterr().err.split())


def test_interpolated_rotations_are_trained_stored_and_inferred(tmp_path: Path) -> None:
    config = configure(
        tmp_path, "tasks=60", "family=rotated", "family_options.interpolation=bilinear",
        "train.steps=30", "train.block=20", "evaluate.checkpoints=[60]", "evaluate.batches=1",
        "evaluate.tasks=null", "evaluate.algorithms=[one_shot]", "evaluate.objectives=[G]",
    )  # fmt: skip
    assert run(config) == 0
    store = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert [name for name, _ in store["inputs"].arrays()] == ["angles"]
    assert store["inputs/angles"][:].tolist() == [6.0 * i for i in range(60)]
    assert store.attrs["images"].startswith("rotated by bilinear interpolation")
    found = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pandas()
    assert len(found) == 60
    assert found["accuracy_gg"].mean() > 0.3  # 0.1 by chance
    assert found["task_accuracy"].mean() > 2 / 60  # 1 / 60 by chance


def test_a_change_that_makes_other_pixels_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = "supsup_core.tasks.rotated.BilinearRotation.__call__"
    monkeypatch.setattr(change, lambda self, pixels: pixels / 2)
    options = ("family=rotated", "family_options.interpolation=bilinear")
    with pytest.raises(UserError, match=r"got: task 0 must make images of uint8 \(8, 64\), got f"):
        run(configure(tmp_path, *options))
    assert not (tmp_path / "masks.zarr").exists()


def test_actors_that_ray_would_never_start_are_refused(
    tmp_path: Path, ray_session: ModuleType
) -> None:
    with pytest.raises(UserError, match=r"actors\.train must be at most 2, because Ray has 2 CPUs"):
        run(configure(tmp_path, "executor=ray", "actors.train=3"))
    # The run directory exists now, and a later start that fits the machine completes the run.
    assert run(replace(configure(tmp_path), executor="serial")) == 0
