from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composing import CAPABILITIES
from harness.config.schema import ActorsConfig, Config, EvaluateConfig, TrainConfig
from harness.plan.blocks import train_units
from harness.plan.checkpoints import Checkpoints, evaluated_tasks, num_leading
from harness.plan.evaluation import TASKS_PER_EVALUATION, evaluation_units
from harness.plan.pools import pool_sizes
from harness.plan.resolve import (
    automatic_block,
    automatic_checkpoints,
    resolve,
    resolve_evaluation,
)
from harness.plan.side_by_side import blocks_side_by_side
from supsup_core.names import ALGORITHMS, WITHOUT_OBJECTIVE

LENET_WEIGHTS = 784 * 300 + 300 * 100 + 100 * 500
LENET_ACTIVATIONS = 784 + 300 + 100 + 500
LENET = replace(
    CAPABILITIES,
    num_gains=LENET_WEIGHTS,
    num_bits=LENET_WEIGHTS,
    num_activations=LENET_ACTIVATIONS,
)
BIG_WEIGHTS = 784 * 1024 + 1024 * 1024 + 1024 * 500


def recipe(**changes):
    values = {"name": "paper", "steps": 1000, "batch_size": 128, "learning_rate": 1e-4}
    return TrainConfig(**(values | {"smoothing": 0.99, "decay": "none"} | changes))


# Work units of training


def test_units_cover_every_task_once():
    units = list(train_units(10, 4, committed=[]))
    assert [unit.task_ids for unit in units] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert [unit.missing for unit in units] == [unit.task_ids for unit in units]


def test_a_damaged_task_brings_back_its_whole_block_and_no_other():
    everything = list(train_units(10, 4, committed=[]))
    [unit] = train_units(10, 4, committed=set(range(10)) - {5, 6})
    assert (unit.name, unit.task_ids) == (everything[1].name, everything[1].task_ids)
    assert unit.missing == (5, 6)


def test_a_complete_run_has_no_units():
    assert list(train_units(10, 4, committed=range(10))) == []


@given(
    num_tasks=st.integers(1, 60),
    block=st.integers(1, 20),
    committed=st.sets(st.integers(0, 59)),
)
def test_units_miss_what_is_not_committed_in_blocks_that_never_change(num_tasks, block, committed):
    units = list(train_units(num_tasks, block, committed))
    assert [i for unit in units for i in unit.missing] == sorted(set(range(num_tasks)) - committed)
    fixed = {unit.name: unit.task_ids for unit in train_units(num_tasks, block, [])}
    assert all(fixed[unit.name] == unit.task_ids for unit in units)
    assert len(fixed) == -(-num_tasks // block)


# The values that `auto` becomes


@pytest.mark.parametrize(
    ("num_tasks", "num_weights", "block"),
    [
        (2500, LENET_WEIGHTS, 8),
        (32, LENET_WEIGHTS, 8),  # a run has at least four blocks
        (5, LENET_WEIGHTS, 2),
        (1, LENET_WEIGHTS, 1),
        (2500, BIG_WEIGHTS, 1),
        (2500, 10**9, 1),  # weights larger than every cache
        (2500, 100, 16),  # 16 is the largest block
    ],
)
def test_blocks_follow_the_work(num_tasks, num_weights, block):
    for batch_size in (128, 384):
        sizes = {"num_activations": LENET_ACTIVATIONS, "batch_size": batch_size}
        assert automatic_block(num_tasks, num_weights, **sizes) == block


@pytest.mark.parametrize(
    ("num_activations", "batch_size", "block"),
    [
        (400_000, 128, 2),
        (400_000, 64, 4),
        (61_036, 128, 15),  # 62.5 MB per task
        (10**9, 128, 1),
        (0, 128, 16),
    ],
)
def test_the_activations_of_a_block_stay_below_a_gigabyte(num_activations, batch_size, block):
    sizes = {"num_activations": num_activations, "batch_size": batch_size}
    assert automatic_block(2500, 100, **sizes) == block
    assert block == 1 or block * batch_size * num_activations * 8 <= 10**9


def test_blocks_do_not_follow_the_machine(monkeypatch):
    sizes = {"num_activations": LENET_ACTIVATIONS, "batch_size": 128}
    before = automatic_block(2500, LENET_WEIGHTS, **sizes)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert automatic_block(2500, LENET_WEIGHTS, **sizes) == before


@pytest.mark.parametrize(
    ("num_tasks", "checkpoints"),
    [
        (1, [1]),
        (8, [8]),
        (10, [10]),
        (11, [10, 11]),
        (32, [10, 25, 32]),
        (100, [10, 25, 50, 100]),
        (2500, [10, 25, 50, 100, 250, 500, 1000, 2500]),
        (2512, [10, 25, 50, 100, 250, 500, 1000, 2500, 2512]),
    ],
)
def test_checkpoints_end_with_all_tasks(num_tasks, checkpoints):
    assert automatic_checkpoints(num_tasks) == checkpoints


def test_resolving_leaves_no_auto_and_what_was_typed():
    found = resolve(Config(train=recipe()), LENET, bfloat16_is_faster=True)
    assert (found.train.block, found.train.dtype) == (8, "bfloat16")
    assert found.evaluate.checkpoints == [10, 25, 32]
    assert found.evaluate.num_images == 1
    given = Config(
        train=recipe(block=3, dtype="float32"),
        evaluate=EvaluateConfig(checkpoints=[7, 2, 7], algorithms=["frank_wolfe"], num_images=5),
    )
    found = resolve(given, LENET, bfloat16_is_faster=True)
    assert (found.train.block, found.train.dtype) == (3, "float32")
    assert found.evaluate.checkpoints == [2, 7]
    assert (found.evaluate.algorithms, found.evaluate.num_images) == (["frank_wolfe"], 5)
    assert given.evaluate.checkpoints == [7, 2, 7]


@pytest.mark.parametrize(("bfloat16_is_faster", "serves"), [(False, True), (True, False)])
def test_dtype_is_float32_where_bfloat16_is_slow_or_does_not_serve(bfloat16_is_faster, serves):
    capabilities = replace(LENET, bfloat16_serves=serves)
    found = resolve(Config(train=recipe()), capabilities, bfloat16_is_faster=bfloat16_is_faster)
    assert found.train.dtype == "float32"


@pytest.mark.parametrize(
    ("supports", "algorithms"),
    [
        (
            frozenset(ALGORITHMS),
            ["one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit"],
        ),
        (
            frozenset({"max_logit", "frank_wolfe", "binary", "one_shot"}),
            ["one_shot", "binary", "max_logit"],
        ),
    ],
)
def test_what_infers_is_what_the_engine_has(supports, algorithms):
    found = resolve_evaluation(EvaluateConfig(), replace(LENET, supports=supports))
    assert found.algorithms == algorithms


def test_a_network_that_normalises_is_asked_with_a_batch():
    evaluate = EvaluateConfig(batch_size=64)
    found = resolve_evaluation(evaluate, replace(LENET, normalises=True))
    assert found.num_images == 64
    typed = replace(evaluate, num_images=2)
    assert resolve_evaluation(typed, replace(LENET, normalises=True)).num_images == 2


# Checkpoints


def test_a_checkpoint_waits_for_every_task_before_it():
    checkpoints = Checkpoints([2, 4])
    assert list(checkpoints.ready([3, 2, 1])) == []
    assert list(checkpoints.ready([3, 2, 1, 0])) == [2, 4]
    assert list(checkpoints.ready([3, 2, 1, 0])) == []


@pytest.mark.parametrize(
    ("committed", "num"), [([], 0), ([1, 2], 0), ([0, 1, 3], 2), (range(5), 5)]
)
def test_the_largest_checkpoint_ends_at_the_first_gap(committed, num):
    assert num_leading(set(committed)) == num


@given(order=st.permutations(range(12)), sizes=st.sets(st.integers(1, 12), min_size=1))
def test_each_checkpoint_is_ready_once_as_soon_as_it_can_be(order, sizes):
    checkpoints, committed, found = Checkpoints(sizes), set(), []
    for task in order:
        committed.add(task)
        ready = list(checkpoints.ready(committed))
        assert all(committed >= set(range(k)) for k in ready)
        found += ready
        assert found == [k for k in sorted(sizes) if committed >= set(range(k))]
    assert found == sorted(sizes)


# Work units of evaluation


@given(num_tasks=st.integers(1, 3000), at_most=st.integers(2, 100))
def test_evaluated_tasks_are_evenly_spaced_from_the_first_to_the_last(num_tasks, at_most):
    tasks = evaluated_tasks(num_tasks, at_most)
    assert len(tasks) == min(num_tasks, at_most)
    assert tasks[0] == 0
    assert tasks[-1] == num_tasks - 1
    steps = {b - a for a, b in pairwise(tasks)}
    assert all(step > 0 for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


def test_all_tasks_are_evaluated_where_no_limit_is_set():
    assert evaluated_tasks(7, None) == evaluated_tasks(7, 7) == evaluated_tasks(7, 8) == [*range(7)]


def test_the_newest_task_is_the_one_evaluated_alone():
    assert evaluated_tasks(7, 1) == [6]


def test_evaluation_units_have_names_of_their_own():
    config = Config(tasks=100, evaluate=EvaluateConfig(tasks=60, algorithms=[*ALGORITHMS]))
    units = [unit for k in (10, 60, 100) for unit in evaluation_units(config, k)]
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    assert all("/" not in name for name in names)


def test_evaluation_asks_every_algorithm_about_every_task_once():
    config = Config(tasks=100, evaluate=EvaluateConfig(tasks=60, algorithms=[*ALGORITHMS]))
    units = evaluation_units(config, 100)
    asked = [(u.algorithm, u.objective, i) for u in units for i in u.task_ids]
    assert len(set(asked)) == len(asked)
    pairs = {(algorithm, objective) for algorithm, objective, _ in asked}
    assert pairs == {(name, None) for name in WITHOUT_OBJECTIVE} | {
        (name, objective) for name in set(ALGORITHMS) - set(WITHOUT_OBJECTIVE) for objective in "HG"
    }
    assert len(asked) == 60 * len(pairs)
    assert max(len(unit.task_ids) for unit in units) <= TASKS_PER_EVALUATION


def named(asked, num_tasks=100, own=None):
    """Return the evaluation units of a checkpoint: name -> unit."""
    units = evaluation_units(Config(tasks=100, evaluate=asked), num_tasks, own)
    return {unit.name: unit for unit in units}


def test_files_of_runs_that_exist_keep_their_names():
    names = named(EvaluateConfig(checkpoints=[100], algorithms=["one_shot", "max_logit"]))
    assert sorted(names) == [
        *("k000100-max_logit-000000", "k000100-max_logit-000050"),
        *("k000100-one_shot-G-000000", "k000100-one_shot-G-000050"),
        *("k000100-one_shot-H-000000", "k000100-one_shot-H-000050"),
    ]


def test_algorithms_are_chosen_before_units_are_made():
    with pytest.raises(ValueError, match="must be resolved to a list of names, got auto"):
        named(EvaluateConfig())


def test_the_last_checkpoint_comes_again_with_distractors():
    asked = EvaluateConfig(
        checkpoints=[10, 100], algorithms=[*ALGORITHMS], tasks=5, distractors=900
    )
    assert not any(unit.num_distractors for unit in named(asked, 10).values())
    units = list(named(asked, 100).values())
    distracted = [unit for unit in units if unit.num_distractors]
    assert {(u.num_tasks, u.num_distractors, u.algorithm, u.objective) for u in distracted} == {
        (100, 900, algorithm, objective)
        for algorithm in ("one_shot", "one_shot_ranked")
        for objective in "HG"
    }
    assert "k000100-distractors000900-one_shot-H-000000" in [unit.name for unit in distracted]
    assert [unit for unit in units if not unit.num_distractors] == list(
        named(replace(asked, distractors=0), 100).values()
    )


def test_another_limit_that_asks_about_the_same_tasks_gives_the_same_units():
    own = EvaluateConfig(checkpoints=[10], algorithms=["max_logit"], tasks=50)
    assert named(replace(own, tasks=None), 10, own=own) == named(own, 10)


OWN = EvaluateConfig(checkpoints=[100], algorithms=[*ALGORITHMS], objectives=["H"], tasks=20)


@pytest.mark.parametrize(
    ("change", "renamed"),
    [
        ({}, set()),
        ({"checkpoints": [50, 100]}, set()),
        ({"tasks": 21}, set(ALGORITHMS)),
        ({"batches": None}, set(ALGORITHMS)),
        ({"batch_size": 64}, set(ALGORITHMS)),
        ({"num_images": 2}, set(ALGORITHMS)),
        # An option that an algorithm does not use changes none of its results.
        ({"log_base": 3}, {"binary"}),
        ({"steps": 3}, {"gradient_descent", "frank_wolfe"}),
        ({"rate": 0.5}, {"gradient_descent"}),
        ({"distractors": 9}, set()),  # units with distractors are not compared
    ],
)
def test_what_another_evaluation_answers_differently_has_another_name(change, renamed):
    own = named(OWN, own=OWN)
    other = {
        name: unit
        for name, unit in named(replace(OWN, **change), own=OWN).items()
        if not unit.num_distractors
    }
    assert {unit.algorithm for name, unit in other.items() if name not in own} == renamed
    assert {unit.algorithm for name, unit in own.items() if name not in other} == renamed


def test_no_two_of_many_evaluations_share_a_name():
    changes = [{"num_images": 2}, {"num_images": 3}, {"batches": 7}, {"tasks": 21}, {"tasks": None}]
    names = [name for change in changes for name in named(replace(OWN, **change), own=OWN)]
    assert len(set(names)) == len(names)


# Pools


def sizes(cpus, gpus, actors):
    """Return (actors, actors alone, CPUs, GPUs) of the training pool and of the evaluation pool."""
    pools = pool_sizes(Config(actors=ActorsConfig(**actors)), cpus=cpus, gpus=gpus)
    return [(p.actors, p.actors_alone, p.cpus, p.gpus) for p in pools]


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors", "train", "evaluate"),
    [
        # Below 8 CPUs the evaluation actor reserves no CPU.
        (1, 0, {}, (1, 1, 1, 0), (1, 1, 0, 0)),
        (2, 0, {}, (2, 2, 1, 0), (1, 2, 0, 0)),
        (8, 0, {}, (7, 7, 1, 0), (1, 8, 1, 0)),
        (64, 0, {}, (56, 56, 1, 0), (8, 64, 1, 0)),
        (8, 1, {}, (3, 3, 0, 0.25), (1, 4, 0, 0.25)),
        (64, 4, {}, (14, 14, 0, 0.25), (2, 16, 0, 0.25)),
        # Both pools share the GPUs if training needs all slots.
        (4, 1, {"gpus": 1.0}, (1, 1, 0, 0.75), (1, 1, 0, 0.25)),
        (16, 2, {"gpus": 1.0, "train": 2}, (2, 2, 0, 0.75), (1, 2, 0, 0.25)),
        (8, 1, {"train": 4}, (4, 4, 0, 0.225), (1, 4, 0, 0.1)),
        (1, 1, {}, (1, 1, 0, 0.25), (1, 1, 0, 0.25)),
        # Parts of the masks are on CPUs.
        (8, 1, {"gpus": 1.0, "shards": 3}, (1, 1, 0, 1), (3, 3, 1, 0)),
        # A share must lie on one GPU: each GPU has room for two shares of 0.4.
        (4, 2, {"gpus": 0.4}, (3, 3, 0, 0.4), (1, 4, 0, 0.4)),
        (4, 3, {"gpus": 0.6}, (2, 2, 0, 0.6), (1, 3, 0, 0.6)),
        # 1 / 0.1 must count as 10, whatever floating point gives.
        (16, 1, {"gpus": 0.1}, (9, 9, 0, 0.1), (1, 10, 0, 0.1)),
        # Each actor needs one thread, so there are no more actors than CPUs.
        (4, 1, {"gpus": 0.1}, (3, 3, 0, 0.1), (1, 4, 0, 0.1)),
        # The user typed these numbers of actors.
        (2, 0, {"train": 1, "evaluate": 1}, (1, 1, 1, 0), (1, 2, 0, 0)),
        (8, 0, {"train": 8}, (8, 8, 1, 0), (1, 8, 0, 0)),
        (8, 0, {"train": 4, "evaluate": 4}, (4, 4, 1, 0), (4, 8, 1, 0)),
        (8, 0, {"train": 4, "evaluate": 5}, (4, 4, 1, 0), (5, 8, 0, 0)),
    ],
)
def test_pools_share_what_there_is(cpus, gpus, actors, train, evaluate):
    assert sizes(cpus, float(gpus), actors) == [train, evaluate]


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors", "message"),
    [
        (2, 0, {"train": 3}, r"actors\.train must be at most 2, because Ray has 2 CPUs, got 3"),
        (
            9,
            1,
            {"train": 5},
            r"at most 4, because Ray has 1 GPUs and 9 CPUs, and an actor takes 0\.25 GPUs",
        ),
        (
            9,
            2,
            {"train": 5, "gpus": 0.4},
            r"at most 4, because Ray has 2 GPUs and 9 CPUs, and an actor takes 0\.4 GPUs",
        ),
    ],
)
def test_more_actors_than_ray_would_ever_start_are_refused(cpus, gpus, actors, message):
    with pytest.raises(ValueError, match=message):
        sizes(cpus, float(gpus), actors)


asked = st.one_of(st.just("auto"), st.integers(1, 200))


@given(
    cpus=st.integers(1, 130),
    gpus=st.integers(0, 16),
    share=st.sampled_from([0.05, 0.1, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6, 1.0]),
    train=asked,
    evaluate=asked,
    random=st.randoms(use_true_random=False),
)
def test_no_actor_waits_for_ever_for_what_both_pools_reserve(
    cpus, gpus, share, train, evaluate, random
):
    config = Config(actors=ActorsConfig(train, evaluate, share))
    try:
        first, second = pool_sizes(config, cpus=cpus, gpus=float(gpus))
    except ValueError:
        assert train != "auto"
        return
    assert first.actors >= 1
    assert second.actors >= 1
    assert bool(first.gpus) == bool(second.gpus) == bool(gpus)
    # Check two cases: both pools are working, or evaluation is working alone.
    together = [(first, first.actors), (second, second.actors)]
    for pools in (together, [(second, second.actors_alone)]):
        assert sum(pool.cpus * actors for pool, actors in pools) <= cpus
        # Ray may start the actors in any order, and may take any GPU that has room.
        room = [10_000] * gpus
        asked_for = [int(10_000 * pool.gpus) for pool, actors in pools for _ in range(actors)]
        random.shuffle(asked_for)
        for part in asked_for if gpus else ():
            places = [i for i, left in enumerate(room) if left >= part > 0]
            assert places
            room[random.choice(places)] -= part


def test_pools_do_not_change_the_configuration():
    config = Config(actors=ActorsConfig(train=1))
    before = replace(config, actors=replace(config.actors))
    pool_sizes(config, cpus=8, gpus=0.0)
    assert config == before


@pytest.mark.parametrize(
    ("asked", "on_gpus", "num_tasks", "num_workers", "expected"),
    [
        ("auto", False, 2500, 2, 1),
        ("auto", True, 2500, 1, 32),
        ("auto", True, 160, 4, 5),  # every worker gets a unit
        ("auto", True, 3, 4, 1),
        (7, True, 2500, 1, 7),
        (7, False, 2500, 1, 7),
    ],
)
def test_a_gpu_trains_many_blocks_at_a_time(asked, on_gpus, num_tasks, num_workers, expected):
    config = replace(Config(), actors=ActorsConfig(side_by_side=asked))
    config = replace(config, train=replace(config.train, block=8))
    assert blocks_side_by_side(config, num_workers, on_gpus, num_tasks) == expected


def test_a_unit_of_several_blocks_keeps_their_borders():
    units = list(train_units(10, 4, {4, 5, 6, 7}, side_by_side=2))
    assert [unit.blocks for unit in units] == [[(0, 1, 2, 3), (8, 9)]]
    (unit,) = units
    assert (unit.name, unit.task_ids, unit.missing) == (
        "unit-000000",
        (0, 1, 2, 3, 8, 9),
        (0, 1, 2, 3, 8, 9),
    )
    assert unit.only((9,)).blocks == [(8, 9)]
    assert unit.only((9,)).missing == (9,)
