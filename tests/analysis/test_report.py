import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from analysis import report
from harness.reporting import html as reporting
from harness.tables import schemas as results

CHROMIUM = shutil.which("chromium")


def _rows(schema, num_rows, **columns):
    plain = {"string": "x", "int64": 1, "uint32": 1, "double": 0.5}
    made = {f.name: [plain.get(str(f.type))] * num_rows for f in schema}
    made["finished_at"] = [pd.Timestamp(0, tz="UTC")] * num_rows
    return pa.table({f.name: (made | columns)[f.name] for f in schema}, schema=schema)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run directory with three tasks, two of them evaluated, and a report."""
    run = tmp_path_factory.mktemp("runs") / "a<b"
    for folder in ("log", "evaluations"):
        (run / folder).mkdir(parents=True)
    named = "tasks: 3\nnetwork: n\ndata: d\nfamily: rotated\nmethod: m\nseed: 0\n"
    (run / "config.yaml").write_text(named + "train: {name: <i>}\n")
    (run / "provenance.json").write_text(json.dumps({"starts": [{"command": ["scale.py"]}]}))
    tasks = _rows(results.TASKS, 3, task_id=[0, 1, 2], accuracy=[0.9, 0.11, 0.8])
    pq.write_table(tasks, run / "log" / "a.parquet")
    asked = {"task_id": [0, 1] * 2, "num_tasks": [2] * 4, "num_distractors": [0] * 4}
    asked |= {"objective": ["H", "H", "G", "G"], "algorithm": ["one_shot"] * 2 + ["binary"] * 2}
    evaluations = _rows(results.EVALUATIONS, 4, **asked)
    pq.write_table(evaluations, run / "evaluations" / "a.parquet")
    root = zarr.open_group(run / "masks.zarr", mode="w")
    planes = [{"tensor": "layer1", "role": "keep", "byte_offset": 0, "num_bits": 8}]
    tensors = [{"name": "layer1", "shape": [2, 4]}]
    root.attrs.update({"tensors": tensors, "planes": planes, "row_bytes": 1})
    root.create_array("weights/layer1", data=np.zeros((2, 4), np.float32))
    root.create_array("masks", data=np.array([[15], [3], [9]], np.uint8))
    root.create_array("inputs/angles", data=np.array([0.0, 90.0, 180.0]))
    report.write(run)
    return run


def test_the_report_stands_alone_and_says_what_the_run_was(run_dir):
    page = (run_dir / report.NAME).read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", page.replace("xlink:href", "href")) == []
    assert "@import" not in page
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert page.count('<svg role="img" aria-label="') == page.count("<figcaption>") == 6
    assert [path.name for path in run_dir.iterdir() if "partial" in path.name] == []


def test_a_report_that_fails_leaves_the_one_that_is_there(run_dir, monkeypatch):
    before = (run_dir / report.NAME).read_text()
    monkeypatch.setattr(report, "render", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(run_dir)
    assert (run_dir / report.NAME).read_text() == before


@pytest.mark.parametrize("typed", [[], ["run_dir="], ["a", "b"], ["run_dir=nowhere"]])
def test_bad_input_is_one_line_and_code_2(typed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", *typed])
    with pytest.raises(SystemExit) as ended:
        report.main()
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert said.startswith("error: ")


def test_a_report_is_stale_once_a_table_has_grown(run_dir):
    assert not reporting.is_stale(run_dir)
    (run_dir / "log" / "new").touch()
    assert reporting.is_stale(run_dir)
    (run_dir / "log" / "new").unlink()


def test_a_failing_report_fails_no_run(tmp_path, caplog):
    reporting.write_report(tmp_path / "nowhere")
    assert "report not written: error:" in caplog.text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_shows_the_figures_and_sorts_without_an_error_or_a_request(run_dir, tmp_path):
    # This script is added to a copy of the page. The script clicks twice on "accuracy" in the
    # table of tasks, and writes the resulting rows, figures and requests into the title.
    probe = """<script>
      const table = document.querySelectorAll("table")[1], column = 1;
      table.tHead.rows[0].cells[column].firstChild.click();
      const up = [...table.tBodies[0].rows].map(row => row.cells[column].innerText);
      table.tHead.rows[0].cells[column].firstChild.click();
      const down = [...table.tBodies[0].rows].map(row => row.cells[column].innerText);
      const shown = [...document.querySelectorAll("svg")].map(
        svg => svg.getBoundingClientRect().height > 100 && svg.querySelectorAll("path").length > 5);
      const asked = performance.getEntriesByType("resource").map(entry => entry.name);
      document.title = JSON.stringify({up, down, shown,
        asked: asked.filter(name => !name.startsWith("data:"))});
    </script></body>"""
    page = (run_dir / report.NAME).read_text().replace("</body>", probe)
    page = page.replace("<details>", "<details open>")
    (tmp_path / "probe.html").write_text(page)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    done = subprocess.run(
        [
            CHROMIUM,
            *options,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (tmp_path / "probe.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    saw = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert saw["up"] == ["0.1100", "0.8000", "0.9000"]
    assert saw["down"] == saw["up"][::-1]
    assert saw["shown"] == [True] * 6
    assert saw["asked"] == []
    assert "CONSOLE" not in done.stderr
