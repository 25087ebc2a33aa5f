"""A run directory in object storage, tested with an S3 server on this machine."""

import json
import logging
import os
import socket
import time
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
import zarr
from moto.server import ThreadedMotoServer
from obstore.store import S3Store
from zarr.storage import ObjectStore

from analysis import report, stored
from analysis.load import load
from harness import evaluate, scale
from harness.driver.train import Train
from harness.errors import UserError
from harness.places import bucket as bucket_module
from harness.places.bucket import Bucket, Patience
from harness.places.objects import ObjectPath
from harness.places.places import place
from harness.storage import lease
from harness.storage.lease import Lease, run_lease
from harness.storage.lock import run_lock
from harness.storage.store import MaskStore
from harness.tables.files import create_table_file, read_table_file, read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS

RUN = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=5"),
    *("train.block=2",),
    *("train.steps=2", "train.batch_size=8", "executor=serial", "evaluate.batches=1"),
    *("evaluate.algorithms=[max_logit]", "evaluate.checkpoints=[2,5]", "evaluate.tasks=2"),
)
_SERVER = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # so that Arrow asks no metadata service
}
HTTP = {"allow_http": True}
_number = count()


@pytest.fixture(scope="session")
def server():
    """The URL of an S3 server with one bucket, named `bucket`."""
    import boto3

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line per request
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="bucket")
    client.close()
    yield url
    running.stop()


@pytest.fixture(autouse=True)
def _environment(server, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**_SERVER, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url():
    """The URL of an unused run directory."""
    return f"s3://bucket/runs/{next(_number)}"


@pytest.fixture
def hasty(monkeypatch):
    """Renew the lock every 0.1 s, and look at a lock of another driver every 0.05 s."""
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.1)
    monkeypatch.setattr(lease, "_LOOK_EVERY", 0.05)


@pytest.fixture
def short(hasty, monkeypatch):
    """Shorten the lease to 1.5 s. After 0.5 s a holder must renew the lease before a write."""
    monkeypatch.setattr(lease, "HELD_UNRENEWED", 0.5)
    monkeypatch.setattr(lease, "LEASE", 1.5)


def below(path):
    """Return every object below a path: name relative to the path -> content."""
    found = {}
    for one in path.glob("*"):
        if one.is_dir():
            found |= {f"{one.name}/{name}": data for name, data in below(one).items()}
        else:
            found[one.name] = one.read_bytes()
    return found


def masks(store):
    return zarr.open_group(store, mode="r")["masks"][...]


def crash_after(monkeypatch, num_tasks, error):
    """Make the driver raise `error` when at least `num_tasks` tasks are committed."""
    commit = Train._commit

    def commit_and_crash(stage, trained):
        commit(stage, trained)
        if len(stage._masks) >= num_tasks:
            raise error

    monkeypatch.setattr(Train, "_commit", commit_and_crash)


# --- complete runs


def test_a_run_is_the_same_in_a_bucket_as_on_a_disk(typed, url, tmp_path):
    code, out, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    assert out.rstrip().endswith(f"masks, tables and configuration: {url}")
    code, _, err = typed(scale, *RUN, "run_dir=local")
    assert code == 0, err

    there, here = below(place(url)), tmp_path / "local"
    assert there.pop("lock") == b""
    local = {str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert there.keys() == local.keys() - {"lock"}
    for name in there:
        if name.startswith("masks.zarr"):
            assert there[name] == local[name], name
    # zarr alone reads the masks, and Arrow alone reads the tables.
    assert (
        masks(ObjectStore(S3Store.from_url(f"{url}/masks.zarr", client_options=HTTP)))
        == masks(here / "masks.zarr")
    ).all()
    for table in ("tasks", "evaluations"):
        same = ["task_id", "accuracy"] if table == "tasks" else ["task_id", "accuracy_gnu"]
        assert load(url, table).select(same).equals(load(here, table).select(same))
    assert stored.layout(url) == stored.layout(here)
    tasks = load(url, "tasks").to_pandas()
    assert (stored.sample_masks(url, tasks) == stored.sample_masks(here, tasks)).all()

    page = place(report.write(url)).read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<section") == report.write(here).read_text().count("<section")

    code, _, err = typed(scale, *RUN, f"run_dir={url}/")
    assert code == 0, err
    assert "complete already" in err


def test_a_folder_in_a_bucket_may_have_any_printable_name(typed, url):
    where = f"{url}/x y?#%25&=+*~'ä"
    quoted = "run_dir='" + where.replace("'", "\\'") + "'"
    for _ in range(2):
        code, out, err = typed(scale, *RUN, quoted)
        assert code == 0, err
    assert "complete already" in err
    assert out.rstrip().endswith(where)
    assert sorted(load(where, "tasks")["task_id"].to_pylist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("url", ["s3://buc ket/x y", "s3://bü/x", "s3://bucket/x\ny", "gs://-/x"])
def test_a_name_that_cannot_be_in_object_storage_is_refused(url):
    with pytest.raises(UserError, match="BUCKET of letters, digits, dots and hyphens, got"):
        place(url)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", "http://a b"),
        ("AWS_ENDPOINT_URL", "http://x:99999"),
        ("AWS_SESSION_TOKEN", "a\nb"),
    ],
)
def test_an_environment_that_makes_obstore_panic_is_one_line(
    url, monkeypatch, capfd, variable, value
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as refused:
        place(url)
    assert str(refused.value).startswith("s3://bucket cannot be used: ")
    assert str(refused.value).endswith("AWS_REGION and AWS_ENDPOINT_URL")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")  # obstore prints a backtrace


def test_a_crash_costs_what_was_not_committed(typed, url, monkeypatch, tmp_path, short):
    with monkeypatch.context() as patched:
        crash_after(patched, 4, RuntimeError("crash"))
        patched.setattr(Lease, "release", lambda lease: None)  # a crash releases no lock
        code, _, err = typed(scale, *RUN, f"run_dir={url}")
        assert (code, "error: RuntimeError: crash" in err) == (2, True)
    log = below(place(url) / "log")
    assert len(log) == 2
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    assert f"run directory {url} is locked by process {os.getpid()} on host" in err

    after = below(place(url) / "log")
    assert {name: after[name] for name in log} == log
    assert sorted(load(url, "tasks")["task_id"].to_pylist()) == [0, 1, 2, 3, 4]
    code, _, err = typed(scale, *RUN, "run_dir=local")
    assert code == 0, err
    assert (
        masks(ObjectStore((place(url) / "masks.zarr").store()))
        == masks(tmp_path / "local" / "masks.zarr")
    ).all()


def test_a_start_that_crashed_before_it_had_a_store_is_begun_anew(typed, url, monkeypatch):
    write = ObjectPath.write

    def crash_at_the_last(path, data, *, exclusive=False):
        if str(path).endswith("masks.zarr/zarr.json"):
            raise RuntimeError("crash")
        write(path, data, exclusive=exclusive)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPath, "write", crash_at_the_last)
        code, _, err = typed(scale, *RUN, f"run_dir={url}", "seed=7")
        assert (code, "error: RuntimeError: crash" in err) == (2, True)
    left = below(place(url) / "masks.zarr")
    assert "weights/layer1/zarr.json" in left
    assert "zarr.json" not in left
    code, _, err = typed(scale, *RUN, f"run_dir={url}")  # even with another seed
    assert code == 0, err


def test_what_is_damaged_is_trained_again(typed, url):
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    run = place(url)
    good = below(run)
    chunk = run / "masks.zarr" / "masks" / "c" / "0" / "0"
    broken = bytearray(chunk.read_bytes())
    broken[0] ^= 1
    chunk.write(bytes(broken))
    weights = next(
        name for name in good if name.startswith("masks.zarr/weights/") and "/c/" in name
    )
    (run / weights).write(b"nonsense")
    logs = sorted(name for name in good if name.startswith("log/"))
    (run / logs[-1]).write(b"no Parquet")
    evaluated = next(name for name in good if name.startswith("evaluations/"))
    (run / evaluated).write(b"no Parquet")

    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    assert "damaged: masks.zarr/masks/c/0/0 does not match its checksum" in err
    after = below(run)
    for name, data in good.items():
        if name.startswith("masks.zarr"):
            assert after[name] == data, name
    assert f"{logs[-1]}.broken" in after
    assert f"{evaluated}.broken" in after
    assert sorted(load(url, "tasks")["task_id"].to_pylist()) == [0, 1, 2, 3, 4]


def test_other_evaluations_of_a_run_in_a_bucket(typed, url):
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    before = below(place(url))
    asked = ("evaluate.checkpoints=[3]", "evaluate.num_images=3", "evaluate.batches=1")
    asked = (*asked, "evaluate.algorithms=[max_logit]", "evaluate.tasks=2")
    code, out, err = typed(evaluate, f"run_dir={url}", *asked)
    assert code == 0, err
    new, queries = sorted(below(place(url)).keys() - before.keys())
    assert queries == new.replace("evaluations/", "queries/")
    rows = read_table_file(place(url) / new, EVALUATIONS).to_pylist()
    assert [(row["num_tasks"], row["task_id"]) for row in rows] == [(3, 0), (3, 2)]
    assert [line.split()[:3] for line in out.splitlines() if " max_logit  " in line] == [
        ["3", "max_logit", "2"]
    ]


def test_no_run_there_is_said_in_one_line(typed, url):
    code, out, err = typed(evaluate, f"run_dir={url}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: run directory {url} must hold a run, got no config.yaml")
    assert err.count("\n") == 1


def test_another_configuration_is_refused(typed, url):
    assert typed(scale, *RUN, f"run_dir={url}")[0] == 0
    before = below(place(url))
    code, _, err = typed(scale, *RUN, f"run_dir={url}", "seed=7")
    assert code == 2
    assert f"run directory {url} holds another configuration: seed is 0 in the folder, 7 in" in err
    assert below(place(url)) == before


# --- requests that a server refuses


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({}, "s3://missing/run", "s3://missing cannot be used: NoSuchBucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None, "GET http://127.0.0.1:9/bucket"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, None, "AWS_ENDPOINT_URL must begin with http"),
        ({"AWS_SECRET_ACCESS_KEY": None}, None, "Missing SecretAccessKey"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_line(typed, monkeypatch, url, change, where, says):
    for name, value in change.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    began = time.monotonic()
    code, out, err = typed(scale, *RUN, f"run_dir={where or url}")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert time.monotonic() - began < 20


def test_a_server_that_says_nothing_is_not_waited_for(typed, monkeypatch, url):
    monkeypatch.setattr(bucket_module, "_AT_FIRST", Patience(1, 1, 1, 1, 1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 2
    assert "error: s3://bucket cannot be used: GET http://127.0.0.1" in err
    assert "check the bucket" in err


def test_what_fails_at_work_is_one_line(typed, monkeypatch, url, server):
    commit = Train._commit

    def commit_without_a_bucket(stage, trained):
        if len(stage._masks) == 2:
            bucket = stage._work.run.directory.bucket
            monkeypatch.setattr(bucket, "client", Bucket("s3", "gone").client)
        commit(stage, trained)

    monkeypatch.setattr(Train, "_commit", commit_without_a_bucket)
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {url}/")
    assert "the bucket no longer exists" in last
    assert last.endswith("type the same command again; committed results are kept")
    assert sorted(load(url, "tasks")["task_id"].to_pylist()) == [0, 1]


def test_the_region_of_a_bucket_is_asked_for_where_nothing_says_it(monkeypatch):
    monkeypatch.setattr(bucket_module, "resolve_s3_region", lambda bucket: f"region-of-{bucket}")
    assert "region" not in Bucket("s3", "bucket").client.config
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "region" not in Bucket("s3", "bucket").client.config
    monkeypatch.delenv("AWS_REGION")
    assert Bucket("s3", "bucket").client.config["region"] == "region-of-bucket"


def test_a_missing_package_is_named(typed, monkeypatch, url):
    monkeypatch.setattr("harness.places.places.find_spec", lambda name: None)
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 2
    assert "needs the package obstore, which is not installed: type python -m pip" in err


# --- objects


def table(*task_ids):
    values = {"string": "x", "int64": 1, "double": 0.5, "uint32": 1, "timestamp[us, tz=UTC]": 0}
    row = {field.name: values[str(field.type)] for field in TASKS}
    return pa.Table.from_pylist([{**row, "task_id": i} for i in task_ids], schema=TASKS)


def test_an_object_is_created_once(url):
    path = place(url) / "log" / "unit.parquet"
    create_table_file(table(0), path, "run")
    create_table_file(table(0), path, "run")  # like a repeated put whose first answer was lost
    with pytest.raises(FileExistsError):
        create_table_file(table(1), path, "run")
    assert read_table_file(path, TASKS).equals(table(0))


def test_many_files_come_in_the_order_of_their_names(url):
    log = place(url) / "log"
    assert len(read_tables(log, TASKS)) == 0
    for i in (3, 1, 2, 0):
        create_table_file(table(i), log / f"{i}.parquet", "run")
    (log / ".hidden.parquet").write(b"")
    (log / "0.parquet.broken").write(b"")
    assert read_tables(log, TASKS, ["task_id"])["task_id"].to_pylist() == [0, 1, 2, 3]


def test_parts_end_where_the_object_does(url):
    path = place(url) / "ten"
    path.write(bytes(range(10)))
    parts = path.read_parts([8, 0, 20, 10], 3)
    assert [part.tolist() for part in parts] == [[8, 9], [0, 1, 2], [], []]
    with pytest.raises(FileNotFoundError):
        (place(url) / "none").read_parts([0], 1)


def test_paths_are_told_apart(url):
    run = place(url)
    (run / "a" / "b").write(b"1")
    (run / "ab").write(b"2")
    assert (run / "a").is_dir()
    assert not (run / "a").is_file()
    assert not (run / "ab").is_dir()
    assert not (run / "b").exists()
    assert run / "a" == run / "a"
    assert (run / "a" / "b").parents[1] == run
    (run / "a").remove_tree()
    assert below(run) == {"ab": b"2"}


# --- the lock


def test_a_second_driver_is_refused_and_told_who_has_it(typed, url, hasty):
    with run_lock(place(url)):
        code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"error: run directory {url} is in use by process {os.getpid()} on host")
    assert below(place(url)) == {"lock": b""}
    with run_lock(place(url)):  # without waiting: the lock was released
        pass


def test_who_stops_lets_go_at_once(typed, url, monkeypatch):
    with monkeypatch.context() as patched:
        crash_after(patched, 2, KeyboardInterrupt)
        code, out, _ = typed(scale, *RUN, f"run_dir={url}")
    assert code == 130
    assert f"stopped: 2 of 5 tasks are committed in {url}" in out
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    assert "is locked by" not in err


def test_a_driver_whose_lock_was_taken_ends_with_one_line(typed, url, monkeypatch, hasty):
    commit = Train._commit

    def lose_and_commit(stage, trained):
        (place(url) / "lock").write(b'{"host": "elsewhere", "pid": 1, "token": "other"}')
        commit(stage, trained)

    monkeypatch.setattr(lease, "HELD_UNRENEWED", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(Train, "_commit", lose_and_commit)
        code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 2
    assert f"error: run directory {url} is no longer locked by this driver: another process" in err
    assert f" took or removed {url}/lock; committed results are kept" in err
    assert below(place(url) / "log") == {}
    assert b"elsewhere" in (place(url) / "lock").read_bytes()


def test_who_is_dead_is_followed_after_the_lease_and_writes_no_more(url, short):
    first = place(url)
    old = Lease(first / "lock")
    assert old.take(None)
    first.bucket.before_write = old.check
    began = time.monotonic()
    second = place(url)
    with run_lease(second):
        assert time.monotonic() - began >= lease.LEASE
        (second / "mine").write(b"")
        with pytest.raises(UserError, match="no longer locked by this driver"):
            (first / "late").write(b"")
        with pytest.raises(UserError, match="no longer locked by this driver"):
            first.remove_tree()
        old.release()  # does not release the other driver's lock
        time.sleep(2 * lease.LEASE)
        (second / "still mine").write(b"")
    assert below(second) == {"lock": b"", "mine": b"", "still mine": b""}


def test_who_was_away_goes_on_where_nobody_followed(url, short):
    run = place(url)
    away = Lease(run / "lock")
    assert away.take(None)
    run.bucket.before_write = away.check
    time.sleep(2 * lease.LEASE)
    (run / "mine").write(b"")
    assert json.loads((run / "lock").read_bytes())["renewals"] == 2


def test_one_of_two_takes_a_free_lock(url):
    path = place(url) / "lock"
    one, other = Lease(path), Lease(path)
    assert [one.take(None), other.take(None)] == [True, False]


def test_a_renewal_whose_answer_was_lost_is_no_loss(url, monkeypatch):
    run = place(url)
    held = Lease(run / "lock")
    assert held.take(None)
    write_over = ObjectPath.write_over

    def lose_the_answer(path, data, version):
        write_over(path, data, version)
        raise UserError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPath, "write_over", lose_the_answer)
        with pytest.raises(UserError, match="no answer"):
            held.renew()
    held.renew()


def test_a_removed_lock_is_a_lost_one(url):
    run = place(url)
    held = Lease(run / "lock")
    assert held.take(None)
    (run / "lock").unlink()
    with pytest.raises(UserError, match="another process took or removed"):
        held.renew()


def test_the_rows_of_a_store_in_a_bucket_are_checked(typed, url):
    code, _, err = typed(scale, *RUN, f"run_dir={url}")
    assert code == 0, err
    store = MaskStore.open(place(url), read_only=True)
    tasks = store.tasks()
    rows = store.read([4, 0], tasks["row_crc32c"].to_numpy()[[4, 0]])
    stored = masks(ObjectStore((place(url) / "masks.zarr").store()))
    assert np.array_equal(rows, stored[[4, 0]])
