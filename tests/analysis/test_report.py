import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import zarr

from analysis import figures, report
from analysis.commandline import run_command
from analysis.sections import inference
from analysis.summary import wilson
from harness.reporting import html as reporting
from patience import PATIENCE


def test_the_report_stands_alone_and_says_what_the_run_was(run_dir):
    page = (run_dir / report.NAME).read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", page.replace("xlink:href", "href")) == []
    assert "@import" not in page
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert page.count("<figure>") == page.count("<figcaption>") == 10
    # Accuracy 2, rotations 1, confused tasks 1, time 2, training 3, layers 2, bytes 1
    assert page.count('role="img"') == 12
    assert (
        page.count("data:image/png;base64,") == 1 + 3 + 2 + 2
    )  # mean, masks, units, angles and query
    assert [path.name for path in run_dir.iterdir() if "partial" in path.name] == []


def test_the_report_begins_with_the_result_in_one_sentence(run_dir):
    page = (run_dir / report.NAME).read_text()
    begin = page.partition("</h1>")[2]
    assert begin.strip().startswith(
        '<p class="result">Among 2 masks, one_shot H infers the right task for 0 of 2 queries: '
        "accuracy 0.5000 with the task given (GG), 0.5000 with the task inferred (GNu).</p>"
    )


def test_ways_that_agree_are_named_together(run_dir):
    assert "2 ways, identical: binary G, one_shot H" in (run_dir / report.NAME).read_text()


def test_a_run_without_an_error_has_a_sentence_in_place_of_an_empty_panel():
    rows = pd.DataFrame(
        {"num_tasks": 4, "task_id": [0, 1] * 2, "algorithm": "one_shot", "objective": [*"HHGG"]}
    )
    rows = rows.assign(num_batches=50, task_accuracy=1.0, num_distractors=0, num_images=1)
    rows = rows.assign(batch_size=128, log_base=None, steps=None, rate=None)
    [part] = inference._wrong(rows)
    high = wilson(pd.Series([0.0]), pd.Series([100]))[1].iloc[0]
    assert part.text.startswith("0 wrong of 200 queries")
    assert f"is 0 to {high:.4f}" in part.text
    some = rows.assign(task_accuracy=rows["objective"].map({"H": 1.0, "G": 0.5}))
    figure, text = inference._wrong(some)
    assert (len(figure.panels), text.text) == (1, "With objective H: 0 wrong of 100 queries.")


def test_a_run_at_a_url_has_the_report_of_its_folder(run_dir, folder_of_methods, tmp_path):
    for folder in (run_dir, folder_of_methods):
        there = shutil.copytree(folder, tmp_path / folder.name)
        here = report.write(there).read_text()
        (there / report.NAME).unlink()
        assert report.write(f"file://{there}/") == f"file://{there}/{report.NAME}"
        # The speed of the memory is measured for each report.
        speed = re.compile(r"at [\d.]+ GB/s|<path [^>]*>|<use [^>]*>|<g [^>]*>")
        assert speed.sub("", (there / report.NAME).read_text()) == speed.sub("", here)


def test_few_checkpoints_have_no_exponent_in_the_report(run_dir):
    page = (run_dir / report.NAME).read_text()
    assert "It needs evaluations at 4 or more numbers of masks, and the largest number" in page
    assert "Growth of time" not in page


def test_a_report_that_fails_leaves_the_one_that_is_there(run_dir, monkeypatch):
    before = (run_dir / report.NAME).read_text()
    monkeypatch.setattr(report, "render", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(run_dir)
    assert (run_dir / report.NAME).read_text() == before


def failed(capsys):
    """Run the program with the arguments in sys.argv, and return its one line of error."""
    with pytest.raises(SystemExit) as ended:
        run_command(report.main)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert ": " in err.removeprefix("error: "), "no advice"
    return err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "are required: run_dir: try run_dir=runs/mnist5k-permuted-32"),
        (["run_dir="], "run_dir must be a run's folder or URL, got 'run_dir=': try run_dir="),
        (["a", "--b"], "unrecognized arguments: --b: try run_dir="),
        (["--frobnicate"], "try run_dir="),
        (["run_dir=ftp://host/run"], "ftp://host/run must be a folder, s3://BUCKET/FOLDER or gs"),
        (["run_dir=nowhere"], "nowhere/config.yaml must exist, got no file"),
        (["run_dir=~nosuchuser/x"], "must name an existing user after ~, got ~nosuchuser/x: "),
    ],
)
def test_bad_input_is_one_line_and_code_2(typed, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", *typed])
    assert said in failed(capsys)


def _edit_store(**attributes):
    def edit(run):
        zarr.open_group(run / "masks.zarr", mode="r+").attrs.put(attributes)

    return edit


def _write(name, text):
    return lambda run: (run / name).write_bytes(text)


def _as(name, make):
    def edit(run):
        (run / name).unlink()
        make(run / name)

    return edit


PLANES = [{"tensor": "layer1", "role": "keep", "byte_offset": 0, "num_bits": 8}]
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nnetwork: [*b, *b]\n"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (_write("config.yaml", b"seed: 0\n...\n"), "config.yaml must have the keys tasks, seed"),
        (_write("config.yaml", b""), "config.yaml must end with the line ..., got a file that may"),
        (_write("config.yaml", b"[1, 2]\n...\n"), "config.yaml must be YAML of keys and plain"),
        (_write("config.yaml", b"a: [1\n...\n"), "config.yaml must be YAML of keys and plain"),
        (_write("config.yaml", b"{a: " * 3000 + b"\n...\n"), "config.yaml must be YAML of keys"),
        (_write("config.yaml", BOMB.encode() + b"\n...\n"), "config.yaml must be YAML of keys"),
        (_write("config.yaml", b"\xff\xfe\xff"), "config.yaml must be UTF-8"),
        (_as("config.yaml", lambda path: None), "config.yaml must exist, got no file"),
        (
            _as("config.yaml", Path.mkdir),
            "config.yaml must be a regular file, got a link, a folder",
        ),
        (_as("config.yaml", os.mkfifo), "config.yaml must be a regular file, got a link"),
        (_write("provenance.json", b"[]"), "provenance.json must be JSON with a list `starts`"),
        (_write("provenance.json", b"{"), "provenance.json must be JSON with a list `starts`"),
        (_write("provenance.json", b'{"starts": [1]}'), "provenance.json must be JSON with"),
        (_write("provenance.json", b"[" * 9999), "provenance.json must be JSON with"),
        (_as("provenance.json", Path.mkdir), "provenance.json must be JSON with a list"),
        (_edit_store(), "masks.zarr must be the store of a run"),
        (_edit_store(planes=PLANES, tensors=[1], row_bytes=1), "masks.zarr must be the store"),
        (_edit_store(planes=PLANES, tensors=[], row_bytes=0), "masks.zarr must be the store"),
        (lambda run: shutil.rmtree(run / "masks.zarr"), "masks.zarr must be the store of a run"),
        (lambda run: shutil.rmtree(run / "log"), "log must hold a committed task, got none"),
        (_write("log/a.parquet", b"PAR1"), "a.parquet must be a whole Parquet file"),
    ],
)
def test_a_damaged_run_is_one_line_with_advice(
    break_it, said, run_dir, tmp_path, monkeypatch, capsys
):
    run = shutil.copytree(run_dir, tmp_path / "run")
    break_it(run)
    monkeypatch.setattr(sys, "argv", ["report", f"run_dir={run}"])
    assert said in failed(capsys)
    assert [path.name for path in run.glob("*.partial")] == []


def test_a_report_that_cannot_be_written_says_what_to_check(run_dir, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(run_dir, tmp_path / "run", ignore=lambda *_: [report.NAME])
    (run / report.NAME).mkdir()
    monkeypatch.setattr(report, "render", lambda run_dir: "")
    monkeypatch.setattr(sys, "argv", ["report", str(run)])
    assert "check the path, its permissions and the free space" in failed(capsys)


@pytest.mark.parametrize("module", [report, figures])
def test_help_and_version_are_those_of_the_other_commands(module, monkeypatch, capsys):
    for option, said in {
        "--help": module.__doc__.strip(),
        "-h": "usage: ",
        "--version": f"supermask-scaling {version('supermask-scaling')}\n",
    }.items():
        monkeypatch.setattr(sys, "argv", ["program", option])
        with pytest.raises(SystemExit) as ended:
            run_command(module.main)
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert said in out


def test_a_folder_named_analysis_hides_no_program_with_the_option_of_the_guide(tmp_path):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    root = Path(report.__file__).parents[1]
    assert "python -P -m analysis.report" in (root / "docs" / "results.md").read_text()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "analysis.report", "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "supermask-scaling")


def test_a_stopped_report_ends_as_other_stopped_commands(capsys):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(stopped)
    assert (ended.value.code, capsys.readouterr().err) == (130, "stopped\n")


def test_a_report_is_stale_once_a_table_has_grown(run_dir):
    assert not reporting.is_stale(run_dir)
    (run_dir / "log" / "new").touch()
    assert reporting.is_stale(run_dir)
    (run_dir / "log" / "new").unlink()


def test_a_failing_report_fails_no_run(tmp_path, caplog):
    reporting.write_reports([tmp_path / "nowhere"])
    assert "report not written: error:" in caplog.text
