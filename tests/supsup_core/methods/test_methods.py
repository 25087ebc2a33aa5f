import numpy as np
import pytest
import torch

from supsup_core.methods import METHODS, Threshold
from supsup_core.networks.mlp import Layer
from supsup_core.streams import Role, stream


def test_scores_from_zero_on_are_kept():
    scores = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert Threshold().mask(scores).tolist() == [False, False, True, True, True, True]


def test_initial_scores_are_uniform_within_one_over_root_fan_in(rng):
    scores = Threshold().initial_scores(Layer("layer1", (200, 400)), rng)
    assert scores.dtype == np.float32
    assert scores.shape == (200, 400)
    assert np.abs(scores).max() <= 1 / 20
    assert np.abs(scores).max() > 0.999 / 20
    assert scores.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_about_half_of_the_weights_stay_at_the_start(rng):
    scores = Threshold().initial_scores(Layer("layer1", (200, 400)), rng)
    kept = Threshold().mask(torch.from_numpy(scores)).double().mean().item()
    assert kept == pytest.approx(0.5, abs=2 / 80_000**0.5)


def test_first_scores_are_pinned():
    scores = Threshold().initial_scores(Layer("layer1", (1, 4)), stream(0, Role.SCORES, 0, 0))
    expected = [-0.05230975151062012, 0.39858347177505493, 0.3027535080909729, -0.2330431342124939]
    assert scores.tolist() == [expected]


def test_threshold_has_its_name():
    assert isinstance(METHODS["threshold"], Threshold)
