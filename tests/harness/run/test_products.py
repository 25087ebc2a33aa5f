"""`train.dtype=auto` is measured once, and the rates are stored with the run."""

import json
from dataclasses import replace

import pytest
import torch

from harness.config.identity import from_yaml
from harness.data.catalogue import load_dataset
from harness.plan.device import device_type
from harness.run import products
from harness.run.directory import open_trained
from harness.run.products import ProductRates, here, measure_rates, measured_rates
from harness.run.spec import RunSpec

SMALL = [
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=4"),
    *("train.steps=2", "evaluate.checkpoints=[4]"),
]
FAST = {"float32": ProductRates(100.0, 50.0, "cpu"), "bfloat16": ProductRates(100.0, 290.0, "cpu")}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def clock(monkeypatch):
    """Let bfloat16 take as long as `clock[dtype]` says, in seconds per product."""
    seconds = {torch.float32: 1.0, torch.bfloat16: 1.0}
    now = [0.0]
    monkeypatch.setattr(products.time, "perf_counter", lambda: now[0])
    make = products.step_products

    def slowed(widths, block, num_images, dtype, device):
        def computed():
            now[0] += seconds[dtype]

        return [
            replace(one, compute=computed) for one in make(widths, block, num_images, dtype, device)
        ]

    monkeypatch.setattr(products, "step_products", slowed)
    return seconds


def test_the_faster_type_is_found_whatever_the_flags_say(clock, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    clock[torch.bfloat16] = 3.0
    slow = measure_rates([8, 4, 4], 2, 16, seconds=100)
    assert slow.float32 == pytest.approx(3 * slow.bfloat16)
    assert not slow.bfloat16_is_faster
    clock[torch.bfloat16] = 0.5
    assert measure_rates([8, 4, 4], 2, 16, seconds=100).bfloat16_is_faster


def test_the_measurement_ends_in_time_if_a_type_is_very_slow(clock):
    clock[torch.bfloat16] = 10.0
    began = products.time.perf_counter()
    rates = measure_rates([8, 4, 4], 2, 16, seconds=0.4)
    assert products.time.perf_counter() - began == 11  # one product in each type
    assert rates.float32 == pytest.approx(10 * rates.bfloat16)


def test_a_rate_is_that_of_the_operations_of_a_step(clock):
    # Layers 8-4 and 4-2, 2 tasks, 16 images: 2 products of 2048 operations, 3 of 512.
    rates = measure_rates([8, 4, 2], 2, 16, seconds=100)
    assert rates.float32 == pytest.approx((2 * 2048 + 3 * 512) / 5 / 1e9)


def test_the_number_of_threads_stays():
    torch.set_num_threads(2)
    try:
        measure_rates([8, 4, 2], 1, 4, seconds=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_run_stores_the_type_and_both_rates(dtype, digits, composed, tmp_path):
    asked = []

    def call(function, *arguments):
        if function is device_type:
            return "cpu"
        asked.append(arguments)
        return FAST[dtype]

    config = composed(*SMALL, f"run_dir={tmp_path}")
    for _ in range(2):  # the second start measures nothing
        run = open_trained(tmp_path, config, digits, call)
        assert run.spec.config.train.dtype == dtype
    assert asked == [((64, 16, 20), 1, 128)]
    assert from_yaml(tmp_path / "config.yaml").train.dtype == dtype
    record = json.loads((tmp_path / "provenance.json").read_text())
    fastest = {"float32": 50.0, "bfloat16": 290.0}[dtype]
    assert record["product_gflops"] == {"float32": 100.0, "bfloat16": fastest, "device": "cpu"}
    assert len(record["starts"]) == 2


def test_both_rates_are_on_the_screen(digits, composed, caplog):
    spec = RunSpec(composed(*SMALL), digits.input_shape, digits.num_classes)
    with caplog.at_level("INFO", "harness"):
        measured_rates(spec, lambda function, *arguments: FAST["bfloat16"])
    assert caplog.messages == [
        "train.dtype=auto is bfloat16: at this run's shapes, products run at 290 GFLOP/s in "
        "bfloat16 and 100 GFLOP/s in float32 (one actor, cpu)"
    ]


@pytest.mark.parametrize("override", ["train.dtype=float32", "method=iterand"])
def test_nothing_is_measured_if_the_type_is_fixed(override, digits, composed):
    config = composed(*SMALL, override)
    spec = RunSpec(config, digits.input_shape, digits.num_classes)
    assert measured_rates(spec, here) is None
