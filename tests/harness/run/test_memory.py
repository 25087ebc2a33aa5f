"""A run that cannot fit into memory is refused before a file is made, and its hint fits."""

import os
from dataclasses import replace

import pytest

from harness.config.compose import compose_overrides, unchecked
from harness.config.options import resolved_options
from harness.errors import UserError
from harness.plan.resolve import resolve
from harness.run import memory
from harness.run.memory import check_memory, check_weights
from harness.run.spec import RunSpec

SHAPE = (1, 8, 8)
MB = 10**6


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with 100 MB of memory and four CPUs, and no cluster."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 100 * MB)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def typed(*overrides):
    given = ("network=mlp", "network_options.hidden=[16]", "tasks=4", *overrides)
    values = dict(one.split("=", 1) for one in given)  # the last value of a key counts
    return unchecked(compose_overrides([f"{key}={value}" for key, value in values.items()]))


def weights(*overrides):
    check_weights(typed(*overrides), SHAPE, 10)


def rest(*overrides):
    config = resolved_options(typed(*overrides))
    spec = RunSpec(config, SHAPE, 10)
    resolved = resolve(config, spec.capabilities, bfloat16_is_faster=False)
    check_memory(resolved, spec.layout, trains=True)


REFUSED = [
    (weights, ["executor=serial", "outputs=1000000"], "outputs must be smaller: weights and"),
    (weights, ["executor=ray", "outputs=1000000"], "outputs must be smaller: weights and logits"),
    (weights, ["executor=serial", "train.batch_size=100000000"], "train.batch_size must be small"),
    (weights, ["network=units", "network_options.hidden=[9999999]"], "hidden must be smaller: the"),
    (weights, ["network_options.hidden=[90000,90000]"], "network_options.hidden must be smaller"),
    (weights, ["executor=ray", "network_options.hidden=[5000,900]"], "actors.train must be small"),
    (rest, ["network_options.hidden=[900,900]", "train.block=50"], "train.block must be smaller"),
    (rest, ["evaluate.distractors=1000000"], "evaluate.distractors must be at most "),
    (rest, ["tasks=1000000", "evaluate.checkpoints=[1000000]"], "checkpoints must be smaller: the"),
    (rest, ["evaluate.reservoir=true", "reservoir.block=9000"], "reservoir.block must be smaller"),
]


@pytest.mark.parametrize(("check", "overrides", "said"), REFUSED)
def test_what_does_not_fit_is_refused_with_a_hint_that_fits(check, overrides, said):
    with pytest.raises(UserError) as refused:
        check(*overrides)
    line = str(refused.value)
    assert said in line
    assert " of this machine's memory" in line
    check(*overrides, *line.partition(": try ")[2].split())


@pytest.mark.parametrize("check", [weights, rest])
def test_what_fits_passes(check):
    check("executor=serial", "evaluate.distractors=1000", "train.block=4")


def test_nothing_of_the_size_of_the_weights_is_made(monkeypatch):
    config = replace(typed(), network="small_conv", network_options={}, outputs=10**9)
    with pytest.raises(UserError, match="outputs must be smaller: weights and logits take"):
        check_weights(config, SHAPE, 10)


def test_on_a_cluster_the_actors_are_on_other_machines(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    weights("executor=ray", "network_options.hidden=[5000,900]")
