import json
import re
import subprocess
from dataclasses import replace
from datetime import datetime

import pytest

from harness.config.schema import ActorsConfig, Config, EvaluateConfig, TrainConfig
from harness.errors import UserError
from harness.run import provenance
from harness.run.provenance import PACKAGES, config_hash, record_start, run_id

CONFIG = Config(
    train=TrainConfig("paper", 1000, 128, 1e-4, 0.99, "none", "float32", 8),
    evaluate=EvaluateConfig(checkpoints=[10, 32]),
)


def test_every_start_is_added_and_the_first_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scale.py", "tasks=32"])
    record_start(tmp_path, CONFIG)
    first = json.loads((tmp_path / "provenance.json").read_text())
    monkeypatch.setattr("sys.argv", ["scale.py", "tasks=32", "quiet=true"])
    record_start(tmp_path, CONFIG)
    second = json.loads((tmp_path / "provenance.json").read_text())
    assert first["config_hash"] == second["config_hash"] == config_hash(CONFIG)
    assert second["starts"][:1] == first["starts"]
    assert [start["command"][1:] for start in second["starts"]] == [
        ["tasks=32"],
        ["tasks=32", "quiet=true"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["provenance.json"]


def test_a_start_names_the_licence_of_the_data(tmp_path):
    record_start(tmp_path, CONFIG, "CC-BY 4.0")
    [start] = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert start["licence_of_data"] == "CC-BY 4.0"


def test_a_start_names_code_versions_and_machine(tmp_path):
    record_start(tmp_path, CONFIG)
    [start] = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert "licence_of_data" not in start
    assert start["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", start["commit"])
    assert set(start["versions"]) == {"python", *PACKAGES}
    assert all(start["versions"].values())
    assert start["machine"]["cpus"] >= 1
    assert datetime.fromisoformat(start["at"]).utcoffset().total_seconds() == 0


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_no_git_is_no_commit(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    record_start(tmp_path, CONFIG)
    [start] = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert start["commit"] is None


def test_the_hash_is_sixteen_hex_digits_and_stays():
    assert re.fullmatch("[0-9a-f]{16}", config_hash(CONFIG))
    assert config_hash(CONFIG) == config_hash(replace(CONFIG))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"tasks": 33},
        {"outputs": 400},
        {"train": replace(CONFIG.train, learning_rate=1e-3)},
        {"train": replace(CONFIG.train, block=7)},
        {"evaluate": replace(CONFIG.evaluate, batches=None)},
    ],
)
def test_the_hash_changes_with_what_changes_results(change):
    assert config_hash(replace(CONFIG, **change)) != config_hash(CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        {"executor": "serial"},
        {"actors": ActorsConfig(train=1)},
        {"run_dir": "elsewhere"},
        {"data_dir": "elsewhere"},
        {"download": False},
        {"quiet": True},
    ],
)
def test_the_hash_stays_with_what_changes_no_result(change):
    assert config_hash(replace(CONFIG, **change)) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        ({"seed": 1}, True),
        ({"tasks": 33}, True),
        ({"train": replace(CONFIG.train, dtype="bfloat16")}, True),
        ({"method_options": {"density": 0.3}}, True),
        ({"evaluate": replace(CONFIG.evaluate, batches=None)}, False),
        ({"reservoir": replace(CONFIG.reservoir, share=0.2)}, False),
        ({"executor": "serial", "run_dir": "elsewhere", "actors": ActorsConfig(train=1)}, False),
    ],
)
def test_the_identity_of_a_run_changes_with_what_decides_its_masks(change, is_other):
    assert re.fullmatch("[0-9a-f]{16}", run_id(CONFIG))
    assert (run_id(replace(CONFIG, **change)) != run_id(CONFIG)) == is_other


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"starts": 3}', "{", "[" * 9_999, "null"])
def test_a_file_that_is_no_record_is_one_line_and_stays(text, tmp_path):
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"must be JSON with a list `starts`, got .*: re") as one:
        record_start(tmp_path, CONFIG)
    assert "\n" not in str(one.value)
    assert path.read_text() == text


def test_a_folder_is_no_record(tmp_path):
    (tmp_path / "provenance.json").mkdir()
    with pytest.raises(UserError, match="must be a regular file, got a folder"):
        record_start(tmp_path, CONFIG)


def test_gpus_are_named_without_cuda(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("this process would hold memory of the GPU")

    for place in ("0000:17:00.0", "0000:65:00.0"):
        folder = tmp_path / "gpus" / place
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t NVIDIA H100 80GB HBM3\nIRQ: 18\n")
    monkeypatch.setattr(provenance, "_GPU_FOLDER", tmp_path / "gpus")
    monkeypatch.setattr("torch._C._cuda_init", never, raising=False)
    record_start(tmp_path, CONFIG)
    [start] = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert start["machine"]["gpus"] == ["NVIDIA H100 80GB HBM3"] * 2
