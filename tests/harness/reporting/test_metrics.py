"""A run reports the numbers of its tables as metrics, and Ray serves them to Prometheus."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import ray.util.metrics

from composing import configured
from harness.scale import run as run_job
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS
from harness.workers.several import RunsWorker
from patience import PATIENCE

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=5"),
    *("train.block=2",),
    *("train.steps=2", "train.batch_size=8", "evaluate.batches=1"),
    *("evaluate.algorithms=[max_logit,one_shot]", "evaluate.checkpoints=[2,5]"),
)

# Packages of ray[default] that Ray's metrics agent needs.
OF_THE_AGENT = ("aiohttp", "aiohttp_cors", "opencensus", "opentelemetry", "prometheus_client")

# Run on a separate Ray. Read the metrics until all have arrived: Ray reports them at intervals.
SCRAPED = """
import sys, time, urllib.request
import ray
from harness.scale import run
from tests_metrics import configure, total

ray.init(
    num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
    _metrics_export_port=28181, _system_config={"metrics_report_interval_ms": 500},
)
assert run(configure("executor=ray", f"run_dir={sys.argv[1]}", "quiet=true")) == 0
found = []
for _ in range(1800):
    time.sleep(0.5)
    try:
        page = urllib.request.urlopen("http://127.0.0.1:28181/metrics", timeout=5).read().decode()
    except OSError:
        continue
    found = [line for line in page.splitlines() if line.startswith("ray_supermask_")]
    if total(found, "tasks_committed_total") == 5 and total(found, "inference_seconds_count") == 21:
        break
print("\\n".join(found))
ray.shutdown()
"""


def configure(*overrides):
    return configured(*SMALL, *overrides)


def total(lines, name):
    """Return the sum of a metric over all its tags."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(f"ray_supermask_{name}{{")
    )


@pytest.fixture
def told(monkeypatch):
    """The metrics that were reported to Ray: name -> list of (value, tags)."""
    values = defaultdict(list)

    class Recorder:
        def __init__(self, name, description, *rest):
            self.name, self.keys = name, rest[-1]

        def record(self, value, tags):
            assert set(tags) == set(self.keys)  # Ray refuses other tags
            values[self.name].append((value, tags))

        inc = set = observe = record

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray.util.metrics, kind, Recorder)
    return values


def test_a_run_tells_what_its_tables_say(told, tmp_path, ray_session, monkeypatch):
    work = RunsWorker.run

    def fail(self, unit, *arguments):
        if unit.name.startswith("k000005-max_logit"):
            raise RuntimeError("no")
        return work(self, unit, *arguments)

    # Ray sends the patched methods of the class of an actor, but not those of other classes.
    monkeypatch.setattr(RunsWorker, "run", fail)
    assert run_job(configure("executor=ray", f"run_dir={tmp_path}")) == 1
    tasks = read_tables(tmp_path / "log", TASKS)
    run = {"run": str(tmp_path)}
    assert sum(value for value, _ in told["supermask_tasks_committed"]) == 5
    assert {tuple(tags.items()) for _, tags in told["supermask_tasks_committed"]} == {
        tuple(run.items())
    }
    mean = sum(tasks["accuracy"].to_pylist()) / 5
    assert told["supermask_accuracy"][-1] == (pytest.approx(mean), run)
    rows = read_tables(tmp_path / "evaluations", EVALUATIONS).to_pylist()
    expected = [(r["seconds_per_inference"], r["algorithm"], r["objective"] or "") for r in rows]
    observed = [
        (value, tags["algorithm"], tags["objective"])
        for value, tags in told["supermask_inference_seconds"]
    ]
    assert sorted(observed) == sorted(expected)
    for name in ("supermask_units_waiting", "supermask_units_running"):
        last = {tags["pool"]: value for value, tags in told[name]}
        assert last == {"train": 0, "evaluate": 0}
    assert max(value for value, _ in told["supermask_units_running"]) > 0
    assert told["supermask_units_set_aside"] == [(1, {"pool": "evaluate", "run": str(tmp_path)})]


def test_without_ray_nothing_is_told(told, tmp_path):
    assert run_job(configure("executor=serial", f"run_dir={tmp_path}")) == 0
    assert not told


def test_rays_endpoint_serves_them(tmp_path):
    """Run in a network namespace with loopback only: Ray opens this port to every network."""
    missing = [name for name in OF_THE_AGENT if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"ray[default] is not installed: no {', '.join(missing)}")
    if os.geteuid() or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs root, unshare and ip for a network with loopback only")
    shutil.copy(__file__, tmp_path / "tests_metrics.py")
    (tmp_path / "scraped.py").write_text(SCRAPED)
    tests, root = Path(__file__).parents[2], Path(__file__).parents[3]
    paths = [str(tmp_path), str(tests), str(root), os.environ.get("PYTHONPATH", "")]
    inside = 'ip link set lo up; exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "-n", "-p", "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-c", inside, "bash"),
            *(sys.executable, str(tmp_path / "scraped.py"), str(tmp_path / "run")),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ray_supermask_")]
    assert total(lines, "tasks_committed_total") == 5
    # Each task has 3 rows: max_logit, one_shot with H, one_shot with G. 3 * (2 + 5) = 21.
    assert total(lines, "inference_seconds_count") == 21
    assert [line for line in lines if f'run="{tmp_path / "run"}"' not in line] == []
