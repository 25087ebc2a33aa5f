"""The wheel has the three packages and nothing else, and its command works without the checkout."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from page_blocks import make_runs, make_search, pages, run_page
from patience import PATIENCE

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "harness", "supsup_core")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    [path] = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(path)


def test_the_wheel_has_the_packages_their_types_and_their_recipes_only(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {*PACKAGES}
    written = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for kind in ("*.py", "*.yaml", "*.j2", "*.css", "*.js", "py.typed")
        for path in (ROOT / package).rglob(kind)
    }
    assert names == written
    assert {f"{package}/py.typed" for package in PACKAGES} <= written


@pytest.mark.long
def test_an_installed_wheel_runs_without_the_checkout(wheel, tmp_path):
    there = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(there), str(wheel)], check=True, timeout=PATIENCE)
    own = {"PYTHONPATH": str(there), "XDG_CACHE_HOME": str(tmp_path)}

    def typed(*arguments):
        return subprocess.run(
            [str(there / "bin" / "supermask"), *arguments],
            cwd=tmp_path,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    small = ("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=2")
    cheap = ("train.steps=2", "train.batch_size=8", "evaluate.batches=1", "executor=serial")
    done = typed("scale", *small, *cheap, "quiet=true", "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path / 'run' / 'report.html'}" in done.stderr
    (tmp_path / "run" / "report.html").unlink()
    assert typed("report", "run_dir=run").stdout == f"{tmp_path / 'run' / 'report.html'}\n"
    assert "complete" in typed("status", "run_dir=run").stdout
    # The code on the pages runs with the wheel alone.
    make_runs(tmp_path, there)
    make_search(tmp_path, there)
    for page in pages():
        run_page(page, tmp_path, there)
    # The commands come from the wheel, not from the checkout that the environment may know.
    code = "import analysis, harness, supsup_core; print(analysis, harness, supsup_core)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    assert found.stdout.count(str(there)) == 3


def test_version_and_licence_agree_in_all_files():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert cited["version"] == newest[1] == project["version"]
    # The owner has not chosen a licence. If there is one, all files must name it.
    has_file = (ROOT / "LICENSE").exists()
    assert has_file == ("license" in cited) == ("license" in project)


def test_the_hooks_call_what_make_check_calls():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in hooks} == {"local"}
    called = {hook["entry"].split()[0] for repository in hooks for hook in repository["hooks"]}
    checks = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    assert called == {f".venv/bin/{name}" for name in re.findall(r"\$\(BIN\)/(\w+)", checks)}
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert "bash .ci/run" in str(workflow["jobs"])
