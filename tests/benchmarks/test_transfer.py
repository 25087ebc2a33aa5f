"""Steps to a target with and without transfer. The tests do not judge the numbers."""

import json
import runpy
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "transfer.py"


def test_a_finder_without_superfluous_outputs_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    options = "data=digits family=split network=mlp network_options.hidden=[8] outputs=10"
    options += " method=exssnet train.steps=4 train.batch_size=8"
    options += " --ways knn --tasks 3 --share-of-end 0.9 --every 2"
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *options.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    assert ended.value.code == 0
    told, *rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "method=exssnet" in told["options"]
    assert [row["transfer"] for row in rows] == ["none", "knn"]
