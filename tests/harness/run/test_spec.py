"""A configuration selects its trainer and its engine. Fast ones are selected if they fit."""

import pickle

import numpy as np
import pytest
import torch

from harness.config.options import resolved_options
from harness.errors import UserError
from harness.run.spec import RunSpec
from harness.workers.training import trainer_of
from supsup_core.data import ImageSet
from supsup_core.engines.bits import BitsEngine
from supsup_core.engines.choose import engine_type
from supsup_core.engines.floats import FloatEngine
from supsup_core.engines.mlp import MLPEngine
from supsup_core.engines.plain import PlainEngine
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.fused_layers import FusedThresholdLayer, layer_form
from supsup_core.training.modules import ModuleTrainer
from supsup_core.training.units import UnitTrainer

CPU = torch.device("cpu")
SHAPE = (1, 28, 28)


@pytest.fixture
def spec_of(composed):
    def make(*overrides):
        return RunSpec(resolved_options(composed("train.dtype=float32", *overrides)), SHAPE, 10)

    return make


def trainer(spec, rng):
    images = rng.integers(0, 256, (20, *SHAPE)).astype("uint8")
    data = ImageSet(images, images[:, 0, 0, 0] % 10, (0.5,), (0.3,))
    return trainer_of(spec, data, data, CPU)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_figure_4_gets_the_fused_step_and_inference_on_bits(spec_of, rng):
    spec = spec_of("experiment=fig4")
    found = trainer(spec, rng)
    assert type(found) is MLPTrainer
    assert layer_form(spec.method, spec.network.tensors[0], CPU) is FusedThresholdLayer
    assert engine_type(spec.network, spec.layout, CPU) is BitsEngine
    assert spec.capabilities.bfloat16_serves
    assert spec.capabilities.bits_serve


@pytest.mark.parametrize(
    ("options", "kind", "engine"),
    [
        (["method=edge_popup"], MLPTrainer, BitsEngine),
        (["method=n_of_m"], MLPTrainer, BitsEngine),
        (["method=signed"], MLPTrainer, MLPEngine),
        (["method=multicoated"], MLPTrainer, MLPEngine),
        (["network=small_conv"], ModuleTrainer, PlainEngine),
        (["experiment=reservoir"], UnitTrainer, PlainEngine),
        (["experiment=fig3_lenet"], MLPTrainer, BitsEngine),
        (["experiment=fig3_fc"], MLPTrainer, BitsEngine),
        (["experiment=fig5_left"], MLPTrainer, BitsEngine),
        (["experiment=fig5_right"], AutogradTrainer, FloatEngine),
        (["experiment=fig7"], UnitTrainer, PlainEngine),
        (["train.weight_decay=1e-4"], MLPTrainer, BitsEngine),
    ],
)
def test_each_combination_gets_what_serves_it(spec_of, rng, options, kind, engine):
    spec = spec_of(*options)
    assert type(trainer(spec, rng)) is kind
    assert engine_type(spec.network, spec.layout, CPU) is engine


def test_what_follows_does_not_travel_to_workers(spec_of):
    spec = spec_of("network=small_conv")
    assert spec.network.normalises
    travelled = pickle.loads(pickle.dumps(spec))
    assert travelled == spec
    assert "network" not in vars(travelled)
    assert travelled.layout == spec.layout


def test_a_finder_that_cannot_mask_a_network_is_refused_in_one_line(spec_of):
    spec = spec_of("experiment=reservoir", "method=edge_popup", "method_options.kappa=2")
    with pytest.raises(UserError, match="method=edge_popup must fit network=units, got: kappa"):
        _ = spec.layout
