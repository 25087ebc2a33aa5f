"""A configuration that its network, method or engine cannot run is refused in one line."""

from dataclasses import replace

import pytest

from composing import CAPABILITIES
from harness.config.schema import ActorsConfig, Config, EvaluateConfig, TrainConfig
from harness.errors import UserError
from harness.run.refusals import check_any_order, check_capabilities
from supsup_core.names import GRADIENT_ALGORITHMS

TRAIN = TrainConfig("paper", 1000, 128, 1e-4, 0.99, "none")
CONFIG = Config(network="units", train=TRAIN)
UNITS = replace(
    CAPABILITIES,
    normalises=True,
    supports=frozenset(GRADIENT_ALGORITHMS),
    bits_serve=False,
    bfloat16_serves=False,
)


def evaluated(**changes):
    return replace(CONFIG, evaluate=EvaluateConfig(**changes))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        evaluated(num_images=2, algorithms=["binary"]),
        replace(CONFIG, train=replace(TRAIN, dtype="float32")),
    ],
)
def test_what_can_be_done_is_let_through(config):
    check_capabilities(config, CAPABILITIES)
    check_capabilities(config, UNITS)


def test_bits_take_shards_ranks_and_bfloat16():
    config = evaluated(algorithms=["one_shot_ranked"], num_images=1)
    config = replace(config, train=replace(TRAIN, dtype="bfloat16", batch_size=1))
    check_capabilities(replace(config, actors=ActorsConfig(shards=2)), CAPABILITIES)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            evaluated(algorithms=["one_shot", "max_logit"]),
            "evaluate.algorithms must be a list with one or more of one_shot, binary, "
            "gradient_descent, frank_wolfe with network=units and method=threshold, got "
            "[max_logit]: try evaluate.algorithms=[one_shot]",
        ),
        (
            evaluated(num_images=1),
            "evaluate.num_images must be >= 2 with network=units, which normalises over a batch, "
            "got 1: try evaluate.num_images=128",
        ),
        (
            evaluated(batch_size=1),
            "evaluate.batch_size must be >= 2 with network=units, which normalises over a batch, "
            "got 1: try evaluate.batch_size=128",
        ),
        (
            replace(CONFIG, train=replace(TRAIN, batch_size=1)),
            "train.batch_size must be >= 2 with network=units, which normalises over a batch, "
            "got 1: try train.batch_size=128",
        ),
        (
            replace(CONFIG, train=replace(TRAIN, dtype="bfloat16")),
            "train.dtype must be auto or float32 with network=units and method=threshold, got "
            "bfloat16: try train.dtype=auto",
        ),
        (
            replace(CONFIG, actors=ActorsConfig(shards=2)),
            "actors.shards must be 1 with network=units and method=threshold, got 2: try "
            "actors.shards=1",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(config, line):
    with pytest.raises(UserError) as refused:
        check_capabilities(config, UNITS)
    assert str(refused.value) == line


def test_automatic_algorithms_must_leave_one():
    with pytest.raises(UserError, match="must be a list with one or more of frank_wolfe with"):
        check_capabilities(CONFIG, replace(CAPABILITIES, supports=frozenset({"frank_wolfe"})))


def test_tasks_that_need_earlier_tasks_are_refused():
    check_any_order(CONFIG, CAPABILITIES, "here")
    line = r"method must be a finder that needs no earlier tasks here, got .*sequence\)"
    with pytest.raises(UserError, match=line):
        check_any_order(CONFIG, replace(CAPABILITIES, order="sequence"), "here")


def test_a_learner_on_a_stream_gets_no_earlier_tasks():
    config = replace(CONFIG, scenario="nns")
    check_capabilities(config, CAPABILITIES)
    with pytest.raises(UserError, match="needs no earlier tasks with scenario=nns"):
        check_capabilities(config, replace(CAPABILITIES, order="sequence"))


@pytest.mark.parametrize("more", [{"distractors": 5}, {"reservoir": True}])
def test_distractors_and_reservoirs_need_states_of_keep_bits_alone(more):
    config = evaluated(**more)
    check_capabilities(config, CAPABILITIES)
    line = "with network=units and method=threshold, because a state is more than one plane"
    with pytest.raises(UserError, match=line):
        check_capabilities(config, replace(CAPABILITIES, keeps_alone=False))
