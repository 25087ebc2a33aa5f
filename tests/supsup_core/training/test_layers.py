import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from supsup_core.methods import Threshold
from supsup_core.training import layers as block
from supsup_core.training.layers import BlockLayer, CompiledBlockLayer, FusedBlockLayer, layer_form
from supsup_core.training.optimizers import RMSprop

RATES = [1e-2, 7e-3, 3e-3, 1e-3]


@pytest.fixture
def compiler(monkeypatch, no_shape_checks):
    """Compile for the CPU, without the checks of annotations, and count how often."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(CompiledBlockLayer, "backend", counter)
    yield counter
    torch._dynamo.reset()


def learnt(form, optimizer, dtype, method=Threshold(), shape=(3, 5, 7)):  # noqa: B008
    """A layer after some steps of changing rates."""
    (num_tasks, num_outputs, num_inputs), rng = shape, np.random.default_rng(0)
    scores = rng.uniform(-0.03, 0.03, shape).astype(np.float32)
    signs = rng.choice([-1, 1], shape)
    layer = form(scores, signs, method, optimizer, dtype, torch.device("cpu"))
    for rate in RATES:
        delta, x = rng.standard_normal((2, num_tasks, max(shape), 9))
        layer.learn(
            torch.from_numpy(delta[:, :num_outputs]).to(dtype),
            torch.from_numpy(x[:, :num_inputs]).to(dtype),
            rate,
        )
    return layer


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)],
)
def test_compiled_layer_learns_what_the_plain_one_learns(optimizer, dtype, tolerance, compiler):
    compiled, plain = (learnt(form, optimizer, dtype) for form in (CompiledBlockLayer, BlockLayer))
    assert compiler.frame_count > 0
    torch.testing.assert_close(
        compiled._scores, plain._scores, rtol=tolerance, atol=tolerance * 0.1
    )
    assert torch.equal(compiled.masked, plain.masked)
    assert np.array_equal(compiled.masks(), plain.masks())
    assert 0.2 < plain.masks().mean() < 0.8


def test_compiled_layer_obeys_another_rule_than_the_threshold(compiler):
    class Negative(Threshold):
        def mask(self, scores):
            return scores < 0

    compiled, plain = (
        learnt(form, RMSprop(0.9), torch.float64, Negative())
        for form in (CompiledBlockLayer, BlockLayer)
    )
    assert torch.equal(compiled.masked, plain.masked)


def test_layers_of_one_shape_are_compiled_once_whatever_their_rates(compiler):
    for _ in range(2):  # as two blocks would, with optimisers of their own
        learnt(CompiledBlockLayer, RMSprop(0.9), torch.float32)
    assert compiler.frame_count == 1


def test_layers_of_more_shapes_than_torch_compiles_unasked_are_compiled_too(compiler):
    num_shapes = torch._dynamo.config.recompile_limit + 1
    for i in range(num_shapes):
        learnt(CompiledBlockLayer, RMSprop(0.9), torch.float32, shape=(2, 2 + i, 3))
    assert compiler.frame_count == num_shapes


class Other:  # has what a method has, and is no Threshold
    initial_scores, mask = Threshold.initial_scores, Threshold.mask


@pytest.mark.parametrize("method", [Threshold(), Other()])
@pytest.mark.parametrize(("spec", "form"), [("found", CompiledBlockLayer), (None, BlockLayer)])
def test_gpu_compiles_where_there_is_triton(method, spec, form, monkeypatch):
    monkeypatch.setattr(block, "find_spec", {"triton": spec}.__getitem__)
    assert layer_form(method, torch.device("cuda")) is form


def test_rule_chooses_the_form_on_the_cpu():
    assert layer_form(Threshold(), torch.device("cpu")) is FusedBlockLayer
    assert layer_form(Other(), torch.device("cpu")) is BlockLayer


def test_a_rule_derived_from_the_threshold_is_another_rule():
    class Derived(Threshold):
        def mask(self, scores):
            return scores < 0

    assert layer_form(Derived(), torch.device("cpu")) is BlockLayer
