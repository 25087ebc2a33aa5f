"""Tests that every mask finder must pass, on every kind of network.

The tests of a new finder are a subclass of MethodTests with the attribute `method`. If the finder
does not support all networks, the subclass overrides the fixture `network` with the supported
networks. A new kind of network gets an entry in NETWORKS.

Some tests need few combinations. Masks that tell digits apart are trained on one network. Two ways
of transfer are enough, because the ways do not depend on the finder. If the plain form trains the
finder, one family of tasks is enough to compare it with itself.
"""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import supsup_core.networks.module
from conformance.states import assert_equal
from pretended_cuda import CUDA, PretendedCuda
from supsup_core.data import ImageSet
from supsup_core.methods.protocol import Progress, layout_of
from supsup_core.networks.conv import small_conv
from supsup_core.networks.mlp import mlp
from supsup_core.networks.module import as_network
from supsup_core.networks.resnet import resnet18_slim
from supsup_core.networks.units import units
from supsup_core.states.choose import stored_states
from supsup_core.states.layout import TaskState
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import PlainMeasure, measure_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.transfer import ROWS, Transfer, source_tasks
from supsup_core.training.units import UnitTrainer

CPU = torch.device("cpu")
INPUT_SHAPE = (8, 8)
IMAGES = (1, *INPUT_SHAPE)
NETWORKS = {
    "mlp": mlp(INPUT_SHAPE, 12, hidden=[32, 16]),
    "units": units(INPUT_SHAPE, 12, hidden=[128, 96]),
    "conv": as_network("conv", small_conv(IMAGES, 12, channels=[16, 16]), IMAGES),
}
# Fifteen convolutions and three shortcuts, for the tests of finders that depend on shapes.
SLIM = as_network("slim", resnet18_slim(IMAGES, 12, width=4), IMAGES)
OVER_WEIGHTS = [n for n in NETWORKS.values() if all(t.over == "weights" for t in n.tensors)]
NUM_TASKS = 3
# At this learning rate, 15 steps change many bits of the masks.
BRIEF = Recipe(steps=15, batch_size=16, learning_rate=1e-2)


def stacked(starts):
    """Stack the scores of several tasks to (B, ...). Scores that are floats get gradients."""
    stacked = {n: torch.from_numpy(np.stack([start[n] for start in starts])) for n in starts[0]}
    return {n: s.requires_grad_(s.is_floating_point()) for n, s in stacked.items()}


def shaped(data, network):
    """Return (training, test) sets with images in the network's input shape."""
    return tuple(
        ImageSet(d.images.reshape(-1, *network.input_shape), d.labels, d.mean, d.std) for d in data
    )


def of_task(scores, b):
    return {name: score[b : b + 1].detach() for name, score in scores.items()}


def trains_weights(method, network):
    """Return whether tasks train weights that all tasks share. A block then has one task."""
    return bool(method.shared_shapes(network).keys() & {t.source for t in network.tensors})


def own_scores(method, network, scores):
    """Return the scores without the weights in training, which all tasks share."""
    weights = method.trained_weights(network, of_task(scores, 0)).values()
    places = {weight.data_ptr() for weight in weights}
    return {name: s for name, s in scores.items() if s.data_ptr() not in places}


def drawn_slope(gains, generator):
    """Apply a random linear function to gains."""
    slopes = [torch.randn(gain.shape, generator=generator) for gain in gains.values()]
    return sum((g * slope).sum() for g, slope in zip(gains.values(), slopes, strict=True))


def as_tasks(arrays, num_tasks=NUM_TASKS):
    return [{name: array[b] for name, array in arrays.items()} for b in range(num_tasks)]


def assert_same_planes(one, other):
    """Check that two states have the same planes, bit for bit."""
    assert len(one.planes) == len(other.planes)
    assert all(map(np.array_equal, one.planes, other.planes))


def assert_same_floats(one, other):
    """Check that two states have the same floats, bit for bit."""
    assert one.floats.keys() == other.floats.keys()
    assert all(np.array_equal(values, other.floats[name]) for name, values in one.floats.items())


class MethodTests:
    method = None  # the finder; the subclass sets this attribute
    least_accuracy = 0.75  # of a trained mask, for two digits; chance gives 0.5
    # Enough steps for a mask that tells the digits apart.
    recipe = Recipe(steps=160, batch_size=64, learning_rate=1e-2)
    decayed = replace(BRIEF, weight_decay=0.1)
    most_different = 0.0  # fraction of bits that may differ between two trainers
    # Ways of transfer: one mixes masks, the other selects a mask by inference.
    ways = ("mean", "similar")
    networks_that_learn = (NETWORKS["mlp"],)  # training must succeed on these networks

    @pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
    def network(self, request):
        return request.param

    @pytest.fixture
    def layout(self, network):
        return layout_of(network, self.method)

    @pytest.fixture
    def data(self, network, digits):
        """(training, test) sets of digits, with images in the network's input shape."""
        return shaped(digits, network)

    @pytest.fixture
    def plain(self, network, layout, data):
        """A function that makes an AutogradTrainer, the plain trainer."""

        def make(recipe, dtype=torch.float64):
            kind = PlainMeasure if trains_weights(self.method, network) else measure_for
            measure = kind(network, layout, data[1], 0, CPU)
            given = network, self.method, data[0], measure, recipe
            return AutogradTrainer(*given, seed=0, dtype=dtype, device=CPU)

        return make

    @pytest.fixture
    def trained(self, network):
        """The names of the scores that the first step of a training changes."""
        names = self.method.begin(network, 0, 0).keys()
        return frozenset(self.method.trained_names(network, names, 0, BRIEF.steps))

    @pytest.fixture
    def blocks(self, network):
        """A function that divides tasks into blocks."""
        if trains_weights(self.method, network):
            return lambda tasks: [[task] for task in tasks]
        return lambda tasks: [tasks]

    @pytest.fixture
    def begun(self, network):
        """The scores of three tasks before the first step."""
        return stacked([self.method.begin(network, task, seed=0) for task in range(NUM_TASKS)])

    @pytest.fixture
    def scores(self, network, begun, trained):
        """The scores of three tasks after four steps down random slopes."""
        generator = torch.Generator().manual_seed(1)
        optimizer = BRIEF.torch_optimizer([begun[name] for name in trained])
        for step in range(4):
            optimizer.zero_grad()
            drawn_slope(self.method.gains(network, begun), generator).backward()
            optimizer.step()
            with torch.no_grad():
                progress = Progress(step + 1, 4, range(NUM_TASKS), 0)
                self.method.after_step(network, begun, None, progress)
        return begun

    @pytest.fixture
    def states(self, network, scores):
        """The states of these tasks, with the initial values of the network's floats."""
        floats = {
            spec.name: np.full(spec.shape, spec.initial, np.float32)
            for spec in network.float_specs()
        }
        ended = self.method.end(network, scores)
        return [TaskState(state.planes, {**state.floats, **floats}) for state in ended]

    @pytest.fixture
    def transferred(self, network, layout):
        """A function that makes the first scores of a task from earlier rows."""
        if not layout.planes:
            pytest.skip("scores are made from masks")

        def make(way, rows, task_id):
            recipe = replace(BRIEF, transfer=way)
            transfer = Transfer(network, self.method, recipe, 0, CPU)
            (begun,) = transfer.starts([task_id], {ROWS: rows}, lambda: None)
            return begun

        return make

    # Scores

    def test_a_task_begins_the_same_each_time(self, network, trained):
        one, again = (self.method.begin(network, 5, seed=3) for _ in range(2))
        assert all(np.array_equal(one[name], again[name]) for name in one | again)
        assert all(one[name].dtype == np.float32 for name in trained)

    def test_tasks_and_seeds_begin_with_scores_of_their_own(self, network, trained):
        one, *others = (
            self.method.begin(network, task, seed) for task, seed in [(5, 3), (6, 3), (5, 4)]
        )
        for name in trained & own_scores(self.method, network, stacked([one])).keys():
            score = one[name]
            # Scores that start at 0 are 0 for every task, and one random sign may be the same.
            if score.any() and score.size > 1:
                for other in others:
                    assert not np.array_equal(score, other[name])

    # Transfer

    def test_first_scores_from_one_earlier_state_give_this_state(
        self, network, layout, states, transferred, trained
    ):
        for i, row in enumerate(layout.pack(states)):
            begun = transferred("last", row[None], 7 + i)
            assert all(begun[name].dtype == np.float32 for name in trained)
            (found,) = self.method.end(network, stacked([begun]))
            assert all(map(np.array_equal, found.planes, states[i].planes))

    def test_first_scores_agree_with_the_earlier_states_where_these_agree(
        self, network, layout, states, transferred
    ):
        begun = transferred("mean", layout.pack(states[:2]), 7)
        floats = states[0].floats
        ended = [TaskState(s.planes, floats) for s in self.method.end(network, stacked([begun]))]
        stored = stored_states(layout, layout.pack([*states[:2], *ended]), CPU)
        one, other, found = (stored.gains(i) for i in range(3))
        for name, gain in found.items():
            same = one[name] == other[name]
            assert torch.equal(gain[same], one[name][same])

    def test_other_tasks_start_from_the_same_states_with_scores_of_their_own(
        self, network, layout, states, transferred, trained
    ):
        rows, drawn = layout.pack(states), self.method.begin(network, 7, 0)
        one, again, other = (transferred("mean", rows, i) for i in (7, 7, 8))
        for name in own_scores(self.method, network, stacked([one])):
            score = one[name]
            assert np.array_equal(score, again[name])
            if name in trained and drawn[name].any():  # scores that start at 0 are 0 for every task
                assert not np.array_equal(score, other[name])

    def test_the_chosen_trainer_transfers_as_the_plain_form_does(
        self, network, layout, states, data, plain, make_tasks, blocks, monkeypatch
    ):
        if not layout.planes:
            pytest.skip("scores are made from masks")
        monkeypatch.setattr(supsup_core.networks.module, "LEAST_VALUES_OF_LOOP", 0)
        block = blocks(make_tasks("permuted", (3, 4), side=8, num_classes=10, num_tasks=5))[0]
        for way in self.ways:
            recipe = replace(BRIEF, steps=5, transfer=way)
            rows = layout.pack(states)[source_tasks(way, [t.task_id for t in block], 0)]
            chosen = trainer_for(network, self.method, *data, recipe, seed=0, dtype=torch.float64)
            ((found, carried),) = chosen.stages(block, [5], {ROWS: rows})
            ((expected, _),) = plain(recipe).stages(block, [5], {ROWS: rows})
            assert carried.keys() == self.method.shared_shapes(network).keys()
            assert np.array_equal(layout.pack(found), layout.pack(expected)), way

    # Gains

    def test_gains_have_the_shapes_of_their_tensors(self, network, scores):
        gains = self.method.gains(network, scores)
        assert list(gains) == [tensor.name for tensor in network.tensors]
        for tensor in network.tensors:
            assert gains[tensor.name].shape == (NUM_TASKS, *tensor.shape)
            assert gains[tensor.name].dtype == torch.float32

    def test_gains_have_finite_gradients_in_the_scores_of_their_own_task(
        self, network, begun, trained
    ):
        generator = torch.Generator().manual_seed(2)
        gains = self.method.gains(network, begun)
        drawn_slope({name: gain[1] for name, gain in gains.items()}, generator).backward()
        for name in trained & own_scores(self.method, network, begun).keys():
            score = begun[name]
            assert torch.isfinite(score.grad).all()
            assert score.grad[1].any()
            assert not score.grad[[0, 2]].any()

    def test_gains_follow_the_type_of_the_scores(self, network, scores):
        kinds = {n: torch.float64 if s.is_floating_point() else s.dtype for n, s in scores.items()}
        accurate = {name: score.detach().to(kinds[name]) for name, score in scores.items()}
        found, expected = (self.method.gains(network, s) for s in (accurate, scores))
        for name, gain in found.items():
            assert gain.dtype == torch.float64
            torch.testing.assert_close(gain.float(), expected[name].detach())

    # Stored states

    def test_states_come_back_from_their_rows_bit_for_bit(self, layout, states):
        for back, state in zip(layout.unpack(layout.pack(states)), states, strict=True):
            assert len(back.planes) == len(state.planes) == len(layout.planes)
            for one, other in zip(back.planes, state.planes, strict=True):
                assert other.dtype == np.bool_
                assert np.array_equal(one, other)
            assert_same_floats(back, state)

    def test_decoded_gains_are_those_that_were_trained(self, network, layout, scores, states):
        decoded = stored_states(layout, layout.pack(states), CPU)
        trained = {n: g.detach() for n, g in self.method.gains(network, scores).items()}
        for b, gains in enumerate(as_tasks(trained)):
            assert_equal(decoded.gains(b), gains)
        assert any(gain.unique().numel() > 1 for gain in trained.values())

    def test_tasks_together_are_as_one_by_one(self, network, scores, states):
        together = as_tasks(self.method.gains(network, scores))
        for b in range(NUM_TASKS):
            alone = of_task(scores, b)
            (gains,) = as_tasks(self.method.gains(network, alone), 1)
            assert_equal(gains, {n: g.detach() for n, g in together[b].items()})
            (state,) = self.method.end(network, alone)
            assert_same_planes(state, states[b])
            for name, values in state.floats.items():
                assert np.array_equal(values, states[b].floats[name])

    def test_superposition_of_one_state_is_that_state(self, layout, states):
        stored = stored_states(layout, layout.pack(states), CPU)
        for b, one_hot in enumerate(torch.eye(NUM_TASKS)):
            (found,) = as_tasks(stored.combine(one_hot[None]), 1)
            assert_equal(found, stored.gains(b))

    def test_a_finder_that_was_pickled_is_the_same_finder(self, network, layout, scores, states):
        again = pickle.loads(pickle.dumps(self.method))
        assert layout_of(network, again) == layout
        begun = [method.begin(network, 2, 0) for method in (self.method, again)]
        assert all(np.array_equal(begun[0][name], begun[1][name]) for name in begun[0])
        for one, other in zip(again.end(network, scores), states, strict=True):
            assert_same_planes(one, other)

    # Training

    def test_trained_masks_tell_the_digits_apart(self, network, plain, make_tasks, blocks):
        if not any(network is one for one in self.networks_that_learn):
            pytest.skip("another network is trained for as many steps")
        # Each task has two digits. Convolutions learn little from permuted pixels.
        trainer, shared = plain(self.recipe, torch.float32), {}
        for block in blocks(make_tasks("split", side=8, num_classes=10)):
            stages = trainer.stages(block, [0, self.recipe.steps], shared)
            (before, untrained), (after, passed) = stages
            for task, first, last in zip(block, before, after, strict=True):
                begun, learnt = (
                    trainer.measure(task, first, shared | untrained),
                    trainer.measure(task, last, shared | passed),
                )
                assert learnt.loss < begun.loss
                assert learnt.accuracy > self.least_accuracy
            shared = shared | passed

    def test_masks_of_tasks_trained_together_are_those_trained_alone(
        self, network, plain, make_tasks
    ):
        if trains_weights(self.method, network):
            pytest.skip("a block has one task")
        tasks = make_tasks("split", side=8, num_classes=10)
        ((together, _),) = plain(BRIEF).stages(tasks, [BRIEF.steps])
        for task, state in zip(tasks, together, strict=True):
            (((alone,), _),) = plain(BRIEF).stages([task], [BRIEF.steps])
            assert_same_planes(alone, state)
            for name, values in alone.floats.items():
                np.testing.assert_allclose(values, state.floats[name], rtol=1e-4, atol=1e-5)

    def test_the_trainer_that_is_chosen_trains_the_plain_form_s_masks(
        self, network, layout, data, plain, make_tasks, blocks, monkeypatch
    ):
        # If a channel has the same value everywhere, rounding decides which of its normalised
        # values are above 0. So all trainers must run the tasks one after another.
        monkeypatch.setattr(supsup_core.networks.module, "LEAST_VALUES_OF_LOOP", 0)
        recipes = {"permuted": BRIEF, "rotated": self.decayed, "split": BRIEF}
        for family, recipe in recipes.items():
            chosen = trainer_for(network, self.method, *data, recipe, seed=0, dtype=torch.float64)
            if type(chosen) is type(plain(recipe)) and family != "split":
                continue
            tasks = blocks(make_tasks(family, side=8, num_classes=10))[0]
            self.assert_trains_as(chosen, plain(recipe), tasks, layout)

    def test_a_gpu_trains_and_measures_the_states_of_the_cpu(
        self, network, layout, data, plain, make_tasks, blocks
    ):
        if not any(network is one for one in self.networks_that_learn):
            pytest.skip("the trainers on a GPU are tested with all kinds of networks")
        recipe = replace(BRIEF, steps=3)
        given = blocks(make_tasks("permuted", side=8, num_classes=10))[:2]
        expected = self.trained_in_order(plain(recipe), given, recipe, layout)
        with PretendedCuda() as gpu:
            trainer = trainer_for(
                network, self.method, *data, recipe, seed=0, dtype=torch.float64, device=CUDA
            )
            found = self.trained_in_order(trainer, given, recipe, layout)
            assert gpu.kernels > 20 * recipe.steps
        for (rows, measured), (wanted_rows, wanted) in zip(found, expected, strict=True):
            assert np.array_equal(rows, wanted_rows)
            for one, other in zip(measured, wanted, strict=True):
                assert one.accuracy == pytest.approx(other.accuracy, abs=0.01)
                assert one.loss == pytest.approx(other.loss, rel=1e-3)

    def trained_in_order(self, trainer, blocks, recipe, layout):
        """Train blocks one after another. Return the rows and accuracies of each block."""
        shared, found = {}, []
        for block in blocks:
            ((states, after),) = trainer.stages(block, [recipe.steps], shared)
            shared = shared | after
            found.append((layout.pack(states), trainer.measure_each(block, states, shared)))
        return found

    def assert_trains_as(self, chosen, plain, tasks, layout):
        """Check that a trainer trains and measures the states of the plain trainer."""
        steps, rows = [0, BRIEF.steps], []
        for (found, after), (expected, _) in zip(
            chosen.stages(tasks, steps), plain.stages(tasks, steps), strict=True
        ):
            shared = after
            rows.append(layout.pack(found))
            differ = rows[-1] ^ layout.pack(expected)
            # UnitTrainer always computes in float32, and its products round differently.
            part = 0.02 if isinstance(chosen, UnitTrainer) else self.most_different
            assert np.bitwise_count(differ).sum() <= part * NUM_TASKS * layout.num_bits
        assert (rows[0] != rows[1]).any()
        for task, state in zip(tasks, expected, strict=True):
            measured, wanted = (trainer.measure(task, state, shared) for trainer in (chosen, plain))
            assert measured.accuracy == pytest.approx(wanted.accuracy, abs=0.01)
            assert measured.loss == pytest.approx(wanted.loss, rel=1e-3)
