import numpy as np
import pytest
import torch

from conformance.methods import BRIEF, CPU, NETWORKS, OVER_WEIGHTS, MethodTests, shaped, stacked
from supsup_core.data import normalise
from supsup_core.methods.random_search import RandomSearch
from supsup_core.training.batches import batch_images, batch_labels, block_batches
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import measure_for
from supsup_core.training.search import SearchTrainer

METHOD = RandomSearch(density=0.4)


class TestRandomSearch(MethodTests):
    method = RandomSearch(density=0.3)
    least_accuracy = 0.2  # the outputs without a class get many of the answers of a random mask

    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param

    @pytest.fixture
    def plain(self, network, layout, data):
        def make(recipe, dtype=torch.float64):
            measure = measure_for(network, layout, data[1], 0, CPU)
            given = network, self.method, data[0], measure, recipe
            return SearchTrainer(*given, seed=0, dtype=dtype, device=CPU)

        return make


def first_batch(network, task, data):
    """The normalised images and the labels of a task's first batch, in float64."""
    batch = next(block_batches([task], data, BRIEF, 0))
    pixels = torch.from_numpy(batch_images(batch, data, BRIEF, 0)[0])
    labels = torch.from_numpy(batch_labels([task], data, batch.index)[0])
    return normalise(pixels, data.mean, data.std).double(), labels


def candidate(network, task_id, number):
    return stacked([METHOD.candidate(network, task_id, 0, number)])


def losses_by_hand(network, task, data, num):
    """The loss of each candidate on the first batch of a task, without the trainer."""
    images, labels = first_batch(network, task, data)
    weights = {name: weight.double() for name, weight in network.weights(0).items()}
    found = []
    for number in range(num):
        scores = candidate(network, task.task_id, number)
        gains = {n: g.detach() for n, g in METHOD.gains(network, scores).items()}
        logits = network.logits(weights, {n: g[0].double() for n, g in gains.items()}, images)
        found.append(torch.nn.functional.cross_entropy(logits, labels).item())
    return found


def test_the_best_of_the_first_candidates_is_kept(digits, make_tasks):
    network, best = NETWORKS["mlp"], []
    data = shaped(digits, network)
    trainer = trainer_for(network, METHOD, *data, BRIEF, seed=0, dtype=torch.float64)
    assert type(trainer) is SearchTrainer
    for task in make_tasks("permuted", side=8, num_classes=10):
        losses = losses_by_hand(network, task, data[0], 30)
        for num, (states, _) in zip((1, 8, 30), trainer.stages([task], [1, 8, 30]), strict=True):
            best.append(int(np.argmin(losses[:num])))
            (expected,) = METHOD.end(network, candidate(network, task.task_id, best[-1]))
            assert all(map(np.array_equal, states[0].planes, expected.planes))
    assert len(set(best)) > 3


def test_masks_have_the_density(digits, make_tasks):
    network, tasks = NETWORKS["mlp"], make_tasks("permuted", side=8, num_classes=10)
    trainer = trainer_for(network, METHOD, *shaped(digits, network), BRIEF, seed=0)
    ((states, _),) = trainer.stages(tasks, [BRIEF.steps])
    for state in states:
        for tensor, plane in zip(network.tensors, state.planes, strict=True):
            assert plane.sum() == round(0.4 * tensor.num_gains)


def test_stored_statistics_are_those_of_the_images(digits, make_tasks):
    network = NETWORKS["conv"]
    train, test = shaped(digits, network)
    (task,) = make_tasks("split", (0,), side=8, num_classes=10)
    trainer = trainer_for(network, METHOD, train, test, BRIEF, seed=0, dtype=torch.float64)
    (([state], _),) = trainer.stages([task], [3])
    images, _ = first_batch(network, task, train)
    weights = {name: weight.double() for name, weight in network.weights(0).items()}
    gains = {
        tensor.name: torch.from_numpy(plane).double()
        for tensor, plane in zip(network.tensors, state.planes, strict=True)
    }
    floats = {
        spec.name: torch.full(spec.shape, spec.initial).double() for spec in network.float_specs()
    }
    for _ in range(300):  # until running statistics no longer change
        network.logits(weights, gains, images, floats, track=True)
    assert floats
    for name, values in floats.items():
        np.testing.assert_allclose(state.floats[name], values, rtol=1e-5, atol=1e-6)


def test_density_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got 0\.0"):
        RandomSearch(density=0.0)
