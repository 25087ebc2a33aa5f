import numpy as np
import pytest
import torch

from conformance.methods import NETWORKS, OVER_WEIGHTS, MethodTests
from supsup_core import names
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.first_scores import uniform_scores
from supsup_core.methods.planes import kept_count, top_share
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState
from supsup_core.streams import Role, stream

LAYER = MaskedTensor("layer1", (200, 400), fan_in=400, source="layer1")
CPU = torch.device("cpu")


class TestThreshold(MethodTests):
    method = Threshold()
    ways = ("mean", "last", "random", "similar", "knn")
    networks_that_learn = tuple(NETWORKS.values())


class TestEdgePopup(MethodTests):
    method = EdgePopup(density=0.3)


class TestEdgePopupByKappa(MethodTests):
    method = EdgePopup(kappa=2.0)

    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param


class TestSigned(MethodTests):
    method = Signed()


def scores_of(network, num_tasks=2, draw=torch.randn):
    generator = torch.Generator().manual_seed(0)
    return {t.name: draw(num_tasks, *t.shape, generator=generator) for t in network.tensors}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def network(request):
    return request.param


# Initial scores


def test_initial_scores_are_uniform_within_one_over_root_fan_in(rng):
    scores = uniform_scores(LAYER, rng)
    assert scores.dtype == np.float32
    assert scores.shape == (200, 400)
    assert np.abs(scores).max() <= 1 / 20
    assert np.abs(scores).max() > 0.999 / 20
    assert scores.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_first_scores_are_pinned():
    tensor = MaskedTensor("layer1", (1, 4), fan_in=4, source="layer1")
    expected = [-0.05230975151062012, 0.39858347177505493, 0.3027535080909729, -0.2330431342124939]
    for scores in (
        uniform_scores(tensor, stream(0, Role.SCORES, 0, 0)),
        Threshold().begin(MLP("one", (4, 1)), 0, seed=0)["layer1"],
    ):
        assert scores.tolist() == [expected]


def test_initial_scores_belong_to_task_tensor_and_seed():
    network = MLP("square", (8, 8, 8))

    def flat(task_id, seed):
        scores = Threshold().begin(network, task_id, seed)
        return np.concatenate([score.ravel() for score in scores.values()])

    assert np.array_equal(flat(1, 0), flat(1, 0))
    for other in (flat(2, 0), flat(1, 1), flat(0, 1)):
        assert not np.array_equal(flat(1, 0), other)
    assert not np.array_equal(*np.split(flat(1, 0), 2))


def test_scores_over_units_begin_at_0_for_the_threshold_and_are_drawn_for_others():
    network = NETWORKS["units"]
    for method, is_drawn in [(Threshold(), False), (EdgePopup(), True), (Signed(), True)]:
        for tensor in network.tensors:
            scores = method.begin(network, 0, seed=0)[tensor.name]
            assert scores.shape == tensor.shape
            assert scores.any() == is_drawn


# Threshold


def test_scores_from_zero_on_are_kept():
    scores = torch.tensor([[-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0]])
    expected = [[False, False, True, True, True, True]]
    assert Threshold().mask(LAYER, scores).tolist() == expected


def test_about_half_of_the_weights_stay_at_the_start(rng):
    scores = torch.from_numpy(uniform_scores(LAYER, rng))[None]
    kept = Threshold().mask(LAYER, scores).double().mean().item()
    assert kept == pytest.approx(0.5, abs=2 / 80_000**0.5)


def test_score_gets_the_gradient_of_its_mask_even_where_the_weight_is_dropped(rng):
    network = MLP("one", (5, 4))
    scores, weight, upstream = (torch.from_numpy(rng.standard_normal((1, 4, 5))) for _ in range(3))
    scores.requires_grad_()
    kept = weight * Threshold().gains(network, {"layer1": scores})["layer1"]
    kept.backward(upstream)
    assert torch.equal(kept.detach(), weight * (scores.detach() >= 0))
    assert torch.equal(scores.grad, upstream * weight)


# Edge-popup


@pytest.mark.parametrize("density", [0.001, 0.3, 0.5, 0.999, 1.0])
def test_edge_popup_keeps_the_share_of_largest_magnitudes(density, rng):
    scores = torch.from_numpy(rng.standard_normal((3, 200, 400)))
    kept = EdgePopup(density).mask(LAYER, scores)
    for mask, score in zip(kept, scores.abs(), strict=True):
        assert mask.sum() == round(density * 80_000)
        assert score[mask].min() >= score[~mask].amax() if not mask.all() else density == 1


def test_edge_popup_keeps_those_that_come_first_among_equals():
    scores = torch.tensor([[[2.0, -1.0, 1.0], [-2.0, 1.0, 0.0]]])
    tensor = MaskedTensor("layer1", (2, 3), fan_in=3, source="layer1")
    kept = EdgePopup(0.5).mask(tensor, scores)
    assert kept.tolist() == [[[True, True, False], [True, False, False]]]
    assert top_share(torch.zeros(1, 4), 2).tolist() == [[True, True, False, False]]


def test_a_number_on_a_device_marks_as_many_scores(rng):
    scores = torch.from_numpy(rng.integers(0, 9, (3, 4, 6)))  # many scores are equal
    for num in (1, 5, 23, 24):
        assert torch.equal(top_share(scores, torch.tensor([num])), top_share(scores, num))


def test_one_weight_stays_at_least():
    assert kept_count(1e-9, 10) == 1
    assert EdgePopup(1e-9).num_kept(LAYER) == 1


def test_edge_popup_learns_by_the_sign_of_the_score(network):
    scores = {name: s.requires_grad_() for name, s in scores_of(network).items()}
    gains = EdgePopup(0.3).gains(network, scores)
    sum(gain.sum() for gain in gains.values()).backward()
    for score in scores.values():
        assert torch.equal(score.grad, score.detach().sign())


def test_edge_popup_of_density_1_keeps_everything(network):
    method, scores = EdgePopup(density=1.0), scores_of(network)
    assert all((gain == 1).all() for gain in method.gains(network, scores).values())
    assert all(plane.all() for state in method.end(network, scores) for plane in state.planes)


@pytest.mark.parametrize(
    ("shape", "kappa", "kept"),
    [
        ((30, 20), 2.0, 100),  # 2 (30 + 20) of 600
        ((30, 20), 0.1, 5),
        ((30, 20), 50.0, 300),  # at most one half of 600
        ((8, 4, 3, 3), 2.0, 24),  # 2 (8 + 4): the ends of a kernel are its channels
    ],
)
def test_kappa_gives_each_tensor_a_budget_by_its_ends(shape, kappa, kept):
    tensor = MaskedTensor("any", shape, fan_in=int(np.prod(shape[1:])), source="any")
    assert EdgePopup(kappa=kappa).num_kept(tensor) == kept


def test_kappa_is_refused_over_units():
    network = NETWORKS["units"]
    with pytest.raises(ValueError, match=r"kappa must be 0 .* units, got 2\.0 for units1"):
        EdgePopup(kappa=2.0).gains(network, scores_of(network))


# Signed


def test_signed_gains_are_signs_beyond_the_threshold():
    network = MLP("one", (4, 2))
    tau = 0.4 / 2  # 0.4 times the largest initial score, 1 / sqrt(4)
    scores = torch.tensor([[[1.0, -1.0, 0.0, 0.19], [-0.19, 0.21, -0.21, -tau]]])
    gains = Signed(0.4).gains(network, {"layer1": scores})["layer1"]
    assert gains.tolist() == [[[1, -1, 0, 0], [0, 1, -1, 0]]]
    (state,) = Signed(0.4).end(network, {"layer1": scores})
    keep, negative = state.planes
    assert keep.tolist() == [[True, True, False, False], [False, True, True, False]]
    assert negative.tolist() == [[False, True, False, False], [False, False, True, False]]


def test_signed_starts_with_the_share_of_scores_beyond_the_threshold():
    network = MLP("wide", (400, 200))
    scores = {"layer1": torch.from_numpy(Signed().begin(network, 0, 0)["layer1"])[None]}
    gains = Signed(0.4).gains(network, scores)["layer1"]
    assert (gains != 0).double().mean().item() == pytest.approx(0.6, abs=0.01)
    assert gains.mean().item() == pytest.approx(0, abs=0.01)


def test_signed_learns_straight_through_even_where_the_weight_is_hidden(network):
    scores = {name: s.requires_grad_() for name, s in scores_of(network).items()}
    gains = Signed().gains(network, scores)
    sum(gain.sum() for gain in gains.values()).backward()
    assert all((score.grad == 1).all() for score in scores.values())


def test_signed_without_threshold_of_positive_scores_is_all_ones(network):
    scores = scores_of(network, draw=torch.rand)
    scores = {name: score + 1e-3 for name, score in scores.items()}
    assert all((g == 1).all() for g in Signed(threshold=0.0).gains(network, scores).values())
    for state in Signed(threshold=0.0).end(network, scores):
        assert all(keep.all() for keep in state.planes[0::2])
        assert not any(negative.any() for negative in state.planes[1::2])


def test_signed_states_of_empty_negative_planes_superpose_as_the_keep_planes_do(network, rng):
    signed = StateLayout.of([(t, Signed().planes(t)) for t in network.tensors])
    keep = StateLayout.of([(tensor, [PlaneSpec()]) for tensor in network.tensors])
    kept = [[rng.random(t.shape) < 0.5 for t in network.tensors] for _ in range(5)]
    both = [
        TaskState(tuple(p for mask in masks for p in (mask, np.zeros_like(mask)))) for masks in kept
    ]
    alphas = torch.from_numpy(rng.dirichlet(np.ones(5), size=2)).float()
    found = BitStates(signed, signed.pack(both), CPU).combine(alphas)
    alone = keep.pack([TaskState(tuple(masks)) for masks in kept])
    expected = BitStates(keep, alone, CPU).combine(alphas)
    for name, gain in found.items():
        torch.testing.assert_close(gain, expected[name], rtol=1e-6, atol=1e-7)


# Names and options


@pytest.mark.parametrize(
    ("name", "options", "method"),
    [
        ("threshold", {}, Threshold),
        ("edge_popup", {"density": 0.2}, EdgePopup),
        ("signed", {"threshold": 0.1}, Signed),
    ],
)
def test_finders_are_made_by_their_names(name, options, method):
    made = names.load("method", names.METHODS, name)(**options)
    assert type(made) is method
    assert all(getattr(made, option) == value for option, value in options.items())


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match=f"one of {', '.join(names.METHODS)}, got 'bipop'",
    ):
        names.load("method", names.METHODS, "bipop")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EdgePopup(density=0.0), r"density must be in \(0, 1\], got 0\.0"),
        (lambda: EdgePopup(density=-0.1), r"density must be in \(0, 1\], got -0\.1"),
        (lambda: EdgePopup(density=1.5), r"density must be in \(0, 1\], got 1\.5"),
        (lambda: EdgePopup(density=float("nan")), r"density must be in \(0, 1\] .*, got nan"),
        (lambda: EdgePopup(kappa=-1.0), r"kappa must be >= 0, got -1\.0"),
        (lambda: EdgePopup(kappa=float("nan")), "kappa must be >= 0 .*, got nan"),
        (lambda: Signed(threshold=1.0), r"threshold must be in \[0, 1\), got 1\.0"),
        (lambda: Signed(threshold=-0.1), r"threshold must be in \[0, 1\), got -0\.1"),
        (lambda: Signed(threshold=float("nan")), r"threshold must be in \[0, 1\) .*, got nan"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
