"""Tests that every executor must pass, and tests of faults that only Ray can have."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.executors import on_ray as executors
from harness.executors import ray_start
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import MAX_TRIES, Pool
from harness.executors.serial import SerialExecutor
from harness.plan.pools import PoolSize


@dataclass(frozen=True)
class Unit:
    name: str
    value: int = 0
    run: str = ""
    folder: Path | None = None  # None: the folder of the worker


def make_workers():
    """Return the class of workers. Ray pickles a local class by value."""

    class Worker:
        """A worker that records each try in a folder. The unit's name selects the behaviour."""

        def __init__(self, folder, shared, name):
            self.folder, self.shared, self.name = folder, shared, name

        def progress(self):
            return 0.5

        def run(self, unit, *arguments):
            folder = unit.folder or self.folder
            trial = len(list(folder.glob(f"{unit.name}.*")))
            (folder / f"{unit.name}.{trial}").write_text(str(os.getpid()))
            match unit.name.split("-")[0]:
                case "raises":
                    raise ArithmeticError(f"no use\n  for {unit.value}")
                case "raises_once" if trial == 0:
                    raise ArithmeticError("try again")
                case "exits":
                    os._exit(1)
                case "killed_once" if trial == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "sleeps":
                    time.sleep(unit.value)
                case "meets":  # ends when this many of its kind have begun
                    while len(list(folder.glob("meets-*"))) < unit.value:
                        time.sleep(0.02)
            return unit.value + int(self.shared.sum()) + sum(int(a.sum()) for a in arguments)

    return Worker


def new_executor(kind, num_actors, request, cpus=1.0):
    """Make an executor, which the caller must close. Each training actor reserves some CPUs."""
    if kind == "serial":
        return SerialExecutor()
    request.getfixturevalue("ray_session")
    size = PoolSize(num_actors, num_actors, cpus=cpus, gpus=0.0)
    guest = PoolSize(1, num_actors, cpus=0.0, gpus=0.0)
    return RayExecutor(lambda cpus, gpus: {"train": size, "evaluate": guest})


@pytest.fixture
def make_executor(request):
    """A function that makes an executor. The executor is closed after the test."""
    made = []

    def make(kind, num_actors):
        made.append(new_executor(kind, num_actors, request))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="module", params=["serial", "ray"])
def working(request, tmp_path_factory):
    """An executor that was started once for several tests, because actors take seconds to start.

    The folder of a unit is the folder of its test. The executor is closed after the last test of
    this file, so its actors reserve no CPU, which other tests need.
    """
    executor = new_executor(request.param, 1, request, cpus=0.0)
    start(executor, tmp_path_factory.mktemp("unused"))
    yield executor
    executor.close()


@pytest.fixture(params=["serial", "ray"])
def executor(request, make_executor):
    return make_executor(request.param, num_actors=1)


@pytest.fixture
def ray_executor(make_executor):
    return make_executor("ray", num_actors=2)


def start(executor, folder, shared=0):
    worker = make_workers()
    arguments = (folder, executor.share(np.array([shared])))
    executor.start(
        {
            "train": Pool(worker, arguments),
            "evaluate": Pool(worker, arguments, runs_alone_after="train"),
        }
    )


# As patience.py says; Ray's workers import this module, but find no other module of the tests.
def collect(executor, seconds=900):
    """Poll until the executor is idle; return all outcomes."""
    outcomes, end = [], time.monotonic() + seconds
    while executor.busy():
        assert time.monotonic() < end, f"still busy after {seconds} s with {outcomes}"
        outcomes += executor.poll()
    return outcomes


def tries(folder, unit):
    return len(list(folder.glob(f"{unit.name}.*")))


def by_name(outcomes):
    """Return unit name -> outcome, and check that each unit has one outcome."""
    names = [outcome.unit.name for outcome in outcomes]
    assert len(set(names)) == len(names)
    return {outcome.unit.name: outcome for outcome in outcomes}


def test_every_unit_comes_back_once_with_its_result(working, tmp_path):
    units = [Unit(f"good-{i}", i, folder=tmp_path) for i in range(6)]
    for unit in units:
        working.submit("train", unit)
    working.submit("evaluate", Unit("good-last", 10, folder=tmp_path))
    found = by_name(collect(working))
    assert {name: outcome.result for name, outcome in found.items()} == {
        **{f"good-{i}": i for i in range(6)},
        "good-last": 10,
    }
    assert all(outcome.error is None for outcome in found.values())
    assert {found[unit.name].unit for unit in units} == set(units)
    assert found["good-0"].pool == "train"
    assert found["good-last"].pool == "evaluate"
    assert all(tries(tmp_path, unit) == 1 for unit in units)


def test_shared_values_and_arguments_arrive(executor, tmp_path):
    start(executor, tmp_path, shared=1000)
    executor.submit("train", Unit("good", 1), executor.share(np.array([20, 30])))
    [outcome] = collect(executor)
    assert outcome.result == 1051


def test_units_may_be_submitted_while_others_run(working, tmp_path):
    working.submit("train", Unit("good-0", 0, folder=tmp_path))
    outcomes = []
    while working.busy():
        for outcome in working.poll():
            outcomes.append(outcome)
            if outcome.pool == "train" and outcome.unit.value < 1:
                i = outcome.unit.value + 1
                working.submit("train", Unit(f"good-{i}", i, folder=tmp_path))
                working.submit("evaluate", Unit(f"good-after-{i}", i, folder=tmp_path))
    assert len(by_name(outcomes)) == 3


def test_a_unit_that_raises_is_tried_three_times_and_set_aside(working, tmp_path):
    named = {"good-0": 0, "raises": 7, "good-1": 1, "good-2": 2}
    units = [Unit(name, value, folder=tmp_path) for name, value in named.items()]
    for unit in units:
        working.submit("train", unit)
    found = by_name(collect(working))
    assert found["raises"].error.startswith(f"ArithmeticError: no use for 7 ({__file__}, line ")
    assert "in run\n" in found["raises"].traceback
    assert found["raises"].result is None
    assert found["raises"].unit == units[1]
    assert tries(tmp_path, units[1]) == MAX_TRIES == 3
    for i in range(3):
        assert found[f"good-{i}"].error is None
        assert found[f"good-{i}"].result == i
        assert tries(tmp_path, Unit(f"good-{i}")) == 1


def test_a_unit_that_raised_once_still_has_its_result(working, tmp_path):
    working.submit("train", Unit("raises_once", 4, folder=tmp_path))
    [outcome] = collect(working)
    assert (outcome.error, outcome.result) == (None, 4)
    assert tries(tmp_path, outcome.unit) == 2


def test_an_executor_is_busy_until_its_last_unit_is_collected(working, tmp_path):
    assert not working.busy()
    working.submit("evaluate", Unit("good", folder=tmp_path))
    assert working.busy()
    assert len(collect(working)) == 1
    assert not working.busy()


def test_closing_twice_is_closing_once(executor, tmp_path):
    start(executor, tmp_path)
    executor.submit("train", Unit("good"))
    executor.poll()
    executor.close()
    executor.close()


def test_closing_before_the_start_is_possible(executor):
    executor.close()


def test_executors_describe_themselves_in_a_line(executor):
    assert executor.describe()
    assert "\n" not in executor.describe()


def test_serial_evaluation_goes_before_more_training(tmp_path):
    executor = SerialExecutor()
    start(executor, tmp_path)
    executor.submit("train", Unit("good-0"))
    executor.submit("train", Unit("good-1"))
    executor.poll()
    executor.submit("evaluate", Unit("good-evaluation"))
    assert [outcome.unit.name for outcome in executor.poll()] == ["good-evaluation"]


# Tests of the Ray executor


def test_closing_leaves_a_ray_that_was_there_before(ray_executor, ray_session):
    ray_executor.close()
    assert ray_session.is_initialized()
    assert ray_session.get(ray_session.put(3)) == 3


def test_impossible_sizes_are_the_user_s_error_and_leave_ray_alone(ray_session):
    def sizes(cpus, gpus):
        raise ValueError(f"too many for {cpus} CPUs")

    with pytest.raises(UserError, match="too many for 2 CPUs"):
        RayExecutor(sizes)
    assert ray_session.is_initialized()


def test_a_unit_whose_actor_died_is_done_by_another(ray_executor, tmp_path):
    start(ray_executor, tmp_path)
    units = [
        Unit("good-0", 0),
        Unit("killed_once", 7),
        *(Unit(f"good-{i}", i) for i in range(1, 5)),
    ]
    for unit in units:
        ray_executor.submit("train", unit)
    found = by_name(collect(ray_executor))
    assert {name: outcome.result for name, outcome in found.items()} == {
        unit.name: unit.value for unit in units
    }
    assert [tries(tmp_path, unit) for unit in units] == [1, 2, 1, 1, 1, 1]
    first, second = ((tmp_path / f"killed_once.{i}").read_text() for i in (0, 1))
    assert first != second


def test_actors_that_were_lost_while_idle_cost_no_unit_its_tries(make_executor, tmp_path):
    executor = make_executor("ray", num_actors=3)
    start(executor, tmp_path)
    for i in range(3):
        executor.submit("evaluate", Unit(f"meets-{i}", 3))  # needs 3 actors at a time
    collect(executor)
    idle = executor._pools["evaluate"].idle
    assert len(idle) == MAX_TRIES
    for actor in idle:
        executor._ray.kill(actor)
    executor.submit("evaluate", Unit("good", 9))
    [outcome] = collect(executor)
    assert outcome.result == 9


def test_a_unit_that_always_kills_its_actor_is_set_aside(ray_executor, tmp_path):
    start(ray_executor, tmp_path)
    units = [Unit("exits", 7), Unit("good-0", 0), Unit("good-1", 1)]
    for unit in units:
        ray_executor.submit("train", unit)
    found = by_name(collect(ray_executor))
    assert found["exits"].error.startswith("ActorDiedError: ")
    assert "\n" not in found["exits"].error
    assert [tries(tmp_path, unit) for unit in units] == [MAX_TRIES, 1, 1]
    assert (found["good-0"].result, found["good-1"].result) == (0, 1)


def test_an_actor_that_cannot_be_made_sets_its_unit_aside(ray_executor, tmp_path):
    class Broken:
        def __init__(self, name):
            raise ArithmeticError("no data")

        def run(self, unit):
            """Never reached."""

    ray_executor.start({"train": Pool(Broken, ()), "evaluate": Pool(make_workers(), ())})
    ray_executor.submit("train", Unit("good"))
    [outcome] = collect(ray_executor)
    assert outcome.result is None
    assert "no data" in outcome.error
    assert "\n" not in outcome.error


def test_an_actor_whose_gpu_broke_is_replaced_and_costs_no_unit(ray_executor, tmp_path):
    """After an error of CUDA, every later call of the same process fails."""

    class Poisoned:
        def __init__(self, name):
            self.breaks, self.done = name.endswith("-1"), 0

        def progress(self):
            return 0.0

        def run(self, unit):
            self.done += 1
            if self.breaks and self.done >= 3:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return unit.value

    ray_executor.start({"train": Pool(Poisoned, ()), "evaluate": Pool(make_workers(), ())})
    units = [Unit(f"unit-{i}", i) for i in range(20)]
    for unit in units:
        ray_executor.submit("train", unit)
    found = by_name(collect(ray_executor))
    assert {name: (one.result, one.error) for name, one in found.items()} == {
        unit.name: (unit.value, None) for unit in units
    }


def test_an_actor_that_finds_a_mistake_of_the_user_stops_the_run(ray_executor, tmp_path):
    class Refusing:
        def __init__(self, name):
            raise UserError("torch must be able to use a GPU, got none: install a driver")

        def run(self, unit):
            """Never reached."""

    ray_executor.start({"train": Pool(Refusing, ()), "evaluate": Pool(make_workers(), ())})
    ray_executor.submit("train", Unit("good"))
    with pytest.raises(UserError, match=r"^torch must be able .*: install a driver$"):
        collect(ray_executor)


def test_a_machine_that_the_provider_took_back_costs_no_try(
    ray_executor, ray_session, tmp_path, monkeypatch
):
    start(ray_executor, tmp_path)
    get, asked = ray_session.get, []

    def taken(reference, **options):
        asked.append(reference)
        if len(asked) in (2, 4, 6):  # the calls between them ask whether an actor is up
            raise lost()
        return get(reference, **options)

    def lost():
        error = ray_session.exceptions.ActorDiedError()
        error._preempted = True
        return error

    monkeypatch.setattr(ray_session, "get", taken)
    ray_executor.submit("train", Unit("good", 3))
    [outcome] = collect(ray_executor)
    assert (outcome.result, outcome.error) == (3, None)
    assert tries(tmp_path, outcome.unit) > MAX_TRIES


def test_an_actor_that_there_is_no_room_for_holds_no_unit(make_executor, ray_session, tmp_path):
    executor = make_executor("ray", num_actors=3)  # Ray has two CPUs
    start(executor, tmp_path)
    units = [Unit(f"good-{i}", i) for i in range(5)]
    for unit in units:
        executor.submit("train", unit)
    assert set(by_name(collect(executor))) == {unit.name for unit in units}
    assert all(tries(tmp_path, unit) == 1 for unit in units)


def test_a_function_is_called_in_this_process_if_all_workers_run_here(executor):
    assert executor.runs_here()
    assert executor.call(divmod, 7, 3) == (2, 1)
    assert executor.call(os.getpid) == os.getpid()


def test_a_function_is_called_on_a_worker_machine_of_a_cluster(ray_executor, monkeypatch):
    monkeypatch.setattr(ray_start, "is_alone", lambda ray: False)
    assert ray_executor.call(divmod, 7, 3) == (2, 1)
    assert ray_executor.call(os.getpid) != os.getpid()


def test_a_call_that_waits_for_a_busy_cluster_says_so(ray_executor, monkeypatch, caplog):
    monkeypatch.setattr(ray_start, "is_alone", lambda ray: False)
    monkeypatch.setattr(ray_start, "SECONDS_OF_SILENCE", 0)
    with caplog.at_level(logging.WARNING, "harness"):
        assert ray_executor.call(lambda: time.sleep(0.5)) is None
    assert [text for text in caplog.messages if text.startswith("waiting for Ray to start a task")]


def test_actors_work_side_by_side(ray_executor, tmp_path):
    start(ray_executor, tmp_path)
    for i in range(4):
        ray_executor.submit("train", Unit(f"meets-{i}", 2))
    assert len(by_name(collect(ray_executor))) == 4
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 2  # two processes


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 2.0}, (2, 0.0)),
        ({"CPU": 4.0, "GPU": 1.0}, (4, 1.0)),
        ({"max_gpus": 8.0}, (0, 8.0)),  # a head alone: workers start when there is work
        ({"CPU": 16.0, "max_cpus": 128.0}, (128, 0.0)),
        ({"CPU": 12.0, "GPU": 9.0, "max_gpus": 8.0}, (12, 9.0)),
    ],
)
def test_a_cluster_counts_as_what_it_will_grow_to(resources, expected):
    assert executors.capacity(resources) == expected


def test_running_units_count_by_their_share(ray_executor, tmp_path):
    start(ray_executor, tmp_path)
    assert ray_executor.running() == {}
    ray_executor.submit("train", Unit("sleeps", 1))
    ray_executor.submit("evaluate", Unit("sleeps-too", 1))
    shares = {}
    while ray_executor.busy():
        ray_executor.poll()
        for pool, share in ray_executor.running().items():
            shares[pool] = max(share, shares.get(pool, 0.0))
    assert shares == {"train": 0.5, "evaluate": 0.5}  # each pool has one unit, half done


def test_asking_how_far_it_is_never_waits(ray_executor, tmp_path):
    class SlowToTell(make_workers()):
        def progress(self):
            time.sleep(4)
            return 0.5

    pool = Pool(SlowToTell, (tmp_path, np.array([0])))
    ray_executor.start({"train": pool, "evaluate": pool})
    ray_executor.submit("train", Unit("sleeps", 1))
    slowest = 0.0
    while ray_executor.busy():
        ray_executor.poll()
        began = time.monotonic()
        ray_executor.running()
        ray_executor.busy()
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2


@pytest.fixture
def no_ray(monkeypatch, tmp_path):
    """The module `ray`, not started. Its `init` fails the test, unless the test replaces `init`."""
    import ray
    from ray._private import services

    def own_address(given):  # as Ray does, but without a search for Ray on this machine
        given = os.environ.get("RAY_ADDRESS") or given
        return None if given in (None, "local") else given

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("ray.init was called"))
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", own_address)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return ray


def refused():
    """Return the one line with which start_ray refuses."""
    with pytest.raises(UserError) as caught:
        ray_start.start_ray(", or set executor=serial")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answering(answer):
    """Return host:port of a server that gives every caller this answer, and then waits."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(ConnectionError), server, server.accept()[0] as caller:
            caller.sendall(answer)
            while caller.recv(100):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


# The first bytes of Ray's own server: a SETTINGS frame of HTTP/2.
OF_RAY = bytes((0, 0, 24, 4, 0, 0, 0, 0, 0))


def test_ray_leaves_the_handler_of_sigterm_in_place(no_ray, monkeypatch):
    handlers = []

    def init(**_):
        no_ray._private.utils.set_sigterm_handler(signal.SIG_IGN)  # as Ray does, in Python
        handlers.append(signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does, in C++

    monkeypatch.setattr(no_ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    ray_start.start_ray()
    assert [*handlers, signal.getsignal(signal.SIGTERM)] == [before, before]


def test_an_address_where_nobody_listens_is_refused_before_ray_tries(no_ray, monkeypatch):
    with socket.socket() as held:  # bound but not listening, so no other process can use it
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        began = time.monotonic()
        said = refused()
    assert time.monotonic() - began < ray_start.SECONDS_TO_CONNECT + 1
    assert said.startswith(f"RAY_ADDRESS must be host:port of a running cluster, got {address} (")
    assert said.endswith("unset RAY_ADDRESS, or start that cluster")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "[::1]:99999", "a..b:6379"])
def test_an_address_that_cannot_be_is_refused(address, no_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refused().startswith("RAY_ADDRESS must be host:port of a running cluster, got ")


@pytest.mark.parametrize("address", ["", "local", "ray://127.0.0.1:1"])
def test_addresses_of_another_form_are_left_to_ray(address, no_ray, monkeypatch):
    asked = []
    monkeypatch.setattr(no_ray, "init", lambda **options: asked.append(options))
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray_start.start_ray() == (no_ray, True)
    assert len(asked) == 1


def test_an_address_where_a_server_of_ray_s_kind_listens_is_handed_to_ray(no_ray, monkeypatch):
    asked = []
    monkeypatch.setattr(no_ray, "init", lambda **options: asked.append(options))
    monkeypatch.setenv("RAY_ADDRESS", answering(OF_RAY))
    ray_start.start_ray()
    assert len(asked) == 1
    assert not list(Path.home().glob("**/*"))  # the token of a local Ray is not needed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "timed out"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "another program answers, not Ray"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another program answers, not Ray"),
    ],
)
def test_another_program_at_the_address_is_refused_in_time(answer, reason, no_ray, monkeypatch):
    monkeypatch.setattr(ray_start, "SECONDS_TO_CONNECT", 0.5)
    address = answering(answer)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refused() == (
        f"RAY_ADDRESS must be host:port of a running cluster, got {address} ({reason}): "
        "unset RAY_ADDRESS, or start that cluster"
    )


def test_the_longest_wait_for_an_address_is_half_a_minute():
    assert 2 * ray_start.SECONDS_TO_CONNECT <= 30  # to connect, and for the first answer


def test_a_cluster_of_this_machine_that_crashed_is_refused(no_ray, monkeypatch):
    from ray._private import services

    with socket.socket() as held:  # Ray leaves the address of a crashed cluster in a file
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: address)
        said = refused()
    assert said.startswith(f"the Ray cluster of this machine does not answer at {address} (")
    assert said.endswith("type `ray stop`, or set RAY_ADDRESS=local to start another Ray")


def test_a_cluster_with_tls_is_not_greeted_without_tls(no_ray, monkeypatch):
    asked = []
    monkeypatch.setattr(no_ray, "init", lambda **options: asked.append(options))
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setenv("RAY_ADDRESS", answering(b""))
    ray_start.start_ray()
    assert len(asked) == 1


def failing_init(no_ray, monkeypatch, error, cause=None):
    def fail(**_):
        os.write(2, b"20 lines of C++\n")
        raise error from cause

    monkeypatch.setattr(no_ray, "init", fail)


NODE = "The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    ("error", "reason", "advice"),
    [
        (ConnectionError("no cluster there\nand more"), "no cluster there", "fix the cause"),
        (RuntimeError("no cluster there\nand more"), "no cluster there", "fix the cause"),
        (ValueError("no cluster there\nand more"), "no cluster there", "fix the cause"),
        (Exception(NODE), NODE, "fix the cause"),
        (Exception(), "Exception", "fix the cause"),
        (
            PermissionError(13, "Permission denied", "/nope/ray"),
            "[Errno 13] Permission denied: '/nope/ray'",
            "set RAY_TMPDIR to a folder with a short path that you can write",
        ),
    ],
)
def test_a_ray_that_does_not_start_is_the_user_s_error_in_one_line(
    error, reason, advice, no_ray, monkeypatch, capfd
):
    failing_init(no_ray, monkeypatch, error)
    assert refused() == f"Ray did not start: {reason}: {advice}, or set executor=serial"
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_ray_starts_stays_ctrl_c(no_ray, monkeypatch):
    failing_init(no_ray, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ray_start.start_ray()


def test_what_ray_prints_while_it_starts_well_is_shown(no_ray, monkeypatch, capfd):
    monkeypatch.setattr(no_ray, "init", lambda **_: os.write(2, b"little memory\n"))
    ray_start.start_ray()
    assert capfd.readouterr().err == "little memory\n"


@pytest.mark.parametrize("name", ["/proc/nope", "long" * 30])
def test_a_ray_tmpdir_that_cannot_be_is_one_line(name, tmp_path):
    folder = str(tmp_path / name)
    start = (
        "from harness.errors import UserError\nfrom harness.executors.ray_start import start_ray\n"
        "try: start_ray()\nexcept UserError as error: print(error)"
    )
    done = subprocess.run(  # in this process Ray may run already
        [sys.executable, "-c", start],
        env=os.environ | {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("Ray did not start: ")
    assert folder in done.stdout
    assert "set RAY_TMPDIR to a folder with a short path that you can write" in done.stdout


def test_a_cluster_with_a_token_names_the_setting(no_ray, monkeypatch):
    """A local Ray has a token. Ray sends it to a given address only if the user says so."""
    cause = RuntimeError("at first\nray.exceptions.AuthenticationError: RPC error: missing")
    failing_init(no_ray, monkeypatch, ConnectionError("Failed to connect"), cause)
    address = answering(OF_RAY)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refused() == (
        f"Ray (RAY_ADDRESS={address}) must get the token of its cluster, got another token or "
        "no token: set RAY_AUTH_MODE=token, and check that ~/.ray/auth_token has the token of the "
        "cluster"
    )


@pytest.mark.parametrize("existing", [False, True])
def test_only_this_user_can_read_the_token_of_a_local_ray(existing, no_ray, monkeypatch):
    token = Path.home() / ".ray" / "auth_token"
    if existing:
        token.parent.mkdir(parents=True)
        token.write_text("my own")
        token.chmod(0o644)
    seen = []
    monkeypatch.setattr(no_ray, "init", lambda **_: seen.append(token.stat().st_mode & 0o777))
    ray_start.start_ray()
    assert seen == [0o600]  # before Ray starts, so that no other user can be faster
    assert token.read_text() == "my own" if existing else len(token.read_text()) == 64


@pytest.mark.parametrize(
    ("variable", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "0" * 64)]
)
def test_no_token_is_made_if_ray_would_read_none(variable, value, no_ray, monkeypatch):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(no_ray, "init", lambda **_: None)
    ray_start.start_ray()
    assert not Path.home().exists()


@pytest.mark.parametrize("home", ["/proc/nope", "/dev/null"])
def test_a_home_that_cannot_keep_the_token_is_one_line(home, no_ray, monkeypatch):
    monkeypatch.setenv("HOME", home)
    said = refused()
    assert said.startswith("Ray did not start, because its token cannot be stored (")
    assert said.endswith("set HOME to a folder that you can write, or set executor=serial")


def test_the_unit_of_an_actor_that_never_comes_up_is_done_by_another(make_executor, tmp_path):
    executor = make_executor("ray", num_actors=3)  # Ray has two CPUs
    start(executor, tmp_path)
    units = [Unit(f"good-{i}", i) for i in range(3)]
    for unit in units:
        executor.submit("train", unit)
    found = by_name(collect(executor))
    assert sorted(found) == [unit.name for unit in units]
    assert all(outcome.error is None for outcome in found.values())


def test_a_pool_without_work_has_no_actor(ray_executor, ray_session, tmp_path):
    """An idle second pool uses no process, no CPU and no memory."""

    class Idle(make_workers()):
        def __init__(self, folder, shared, name):
            super().__init__(folder, shared, name)
            (folder / "idle").touch()

    arguments = (tmp_path, ray_executor.share(np.array([0])))
    idle = Pool(Idle, arguments, runs_alone_after="train")
    ray_executor.start({"train": Pool(make_workers(), arguments), "evaluate": idle})
    ray_executor.submit("train", Unit("good", 1))
    assert len(collect(ray_executor)) == 1
    assert not (tmp_path / "idle").exists()
    ray_executor.submit("evaluate", Unit("good-too", 1))
    assert len(collect(ray_executor)) == 1
    assert (tmp_path / "idle").exists()


def test_no_more_results_than_asked_for_come_at_once(ray_executor, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "RESULTS_AT_ONCE", 1)
    start(ray_executor, tmp_path)
    units = [Unit(f"good-{i}", i) for i in range(6)]
    for unit in units:
        ray_executor.submit("train", unit)
    polled = []
    while ray_executor.busy():
        polled.append(len(ray_executor.poll()))
    assert max(polled) == 1
    assert sum(polled) == len(units)


def test_an_actor_out_of_memory_costs_a_try(ray_executor, ray_session, tmp_path, monkeypatch):
    start(ray_executor, tmp_path)
    get, asked = ray_session.get, []

    def run_out(reference, **options):
        asked.append(reference)
        if len(asked) == 2:  # the first call only asks whether the actor is up
            raise ray_session.exceptions.OutOfMemoryError("the node runs low on memory\nand more")
        return get(reference, **options)

    monkeypatch.setattr(ray_session, "get", run_out)
    ray_executor.submit("train", Unit("good", 3))
    [outcome] = collect(ray_executor)
    assert (outcome.result, outcome.error) == (3, None)
    assert tries(tmp_path, outcome.unit) == 2


WAITING = "waiting for Ray to start actors: the cluster may be busy, or still growing"


@pytest.fixture
def warnings():
    """The warnings of the Ray executor. Handlers that another test left have no effect."""
    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("harness.executors.on_ray")
    disabled, logger.disabled = logger.disabled, False
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    logger.disabled = disabled


def test_a_cluster_with_no_room_is_mentioned_once(
    ray_executor, ray_session, tmp_path, monkeypatch, warnings
):
    monkeypatch.setattr(executors, "SECONDS_OF_SILENCE", 0.5)
    busy = ray_session.remote(num_cpus=2)(make_workers()).remote(tmp_path, None, "guest")
    ray_session.get(busy.progress.remote())
    start(ray_executor, tmp_path)
    ray_executor.submit("train", Unit("good", 3))
    for _ in range(5):
        ray_executor.poll()
        ray_executor.running()
    ray_session.kill(busy)
    assert [outcome.result for outcome in collect(ray_executor)] == [3]
    assert warnings == [WAITING]


def test_actors_at_work_are_not_waited_for(ray_executor, tmp_path, monkeypatch, warnings):
    start(ray_executor, tmp_path)
    ray_executor.submit("train", Unit("sleeps", 6))
    while not ray_executor.running().get("train"):
        ray_executor.poll()
    monkeypatch.setattr(executors, "SECONDS_OF_SILENCE", 0.0)
    ray_executor.poll()
    assert warnings == []
