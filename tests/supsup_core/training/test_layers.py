import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import KeepMethod
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training import layers as block
from supsup_core.training.layers import BlockLayer, CompiledBlockLayer, FusedBlockLayer, layer_form
from supsup_core.training.optimizers import SGD, RMSprop

RATES = [1e-2, 7e-3, 3e-3, 1e-3]


@pytest.fixture
def compiler(monkeypatch, no_shape_checks):
    """Compile for the CPU without the checks of annotations, and count the compilations."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(CompiledBlockLayer, "backend", counter)
    yield counter
    torch._dynamo.reset()


def learnt(form, optimizer, dtype, method=Threshold(), shape=(3, 5, 7)):  # noqa: B008
    """Make a layer and train it for four steps with different learning rates."""
    (num_tasks, num_outputs, num_inputs), rng = shape, np.random.default_rng(0)
    scores = rng.uniform(-0.03, 0.03, shape).astype(np.float32)
    signs = rng.choice([-1, 1], shape)
    tensor = MaskedTensor("layer1", shape[1:], fan_in=num_inputs, source="layer1")
    layer = form(tensor, scores, signs, method, optimizer, dtype, torch.device("cpu"))
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


class Negative(Threshold):
    def mask(self, tensor, scores):
        return scores < 0


@pytest.mark.parametrize("method", [Negative(), EdgePopup(0.3)], ids=["negative", "edge-popup"])
def test_compiled_layer_obeys_another_rule_than_the_threshold(method, compiler):
    compiled, plain = (
        learnt(form, RMSprop(0.9), torch.float64, method)
        for form in (CompiledBlockLayer, BlockLayer)
    )
    torch.testing.assert_close(compiled._scores, plain._scores, rtol=1e-12, atol=1e-13)
    assert torch.equal(compiled.masked, plain.masked)


def test_layer_learns_by_the_slope_of_its_rule(rng):
    """The slope of edge-popup is sign(score), so a score below zero moves the other way."""
    scores, signs = rng.uniform(-1, 1, (2, 3, 4)), rng.choice([-1, 1], (2, 3, 4))
    delta, x = rng.standard_normal((2, 3, 9)), rng.standard_normal((2, 4, 9))
    tensor = MaskedTensor("layer1", (3, 4), fan_in=4, source="layer1")
    cpu = torch.device("cpu")
    layer = BlockLayer(tensor, scores, signs, EdgePopup(0.5), SGD(0.0), torch.float64, cpu)
    layer.learn(torch.from_numpy(delta), torch.from_numpy(x), 0.1)
    expected = scores - 0.1 * (delta @ x.transpose(0, 2, 1)) * signs * np.sign(scores)
    np.testing.assert_allclose(layer._scores, expected, rtol=1e-12)
    kept = np.abs(expected) >= np.sort(np.abs(expected).reshape(2, -1))[:, 6, None, None]
    assert np.array_equal(layer.masked, signs * kept)


def test_layers_of_one_shape_are_compiled_once_whatever_their_rates(compiler):
    for _ in range(2):  # two blocks, each with its own optimiser
        learnt(CompiledBlockLayer, RMSprop(0.9), torch.float32)
    assert compiler.frame_count == 1


def test_layers_of_more_shapes_than_torch_compiles_unasked_are_compiled_too(compiler):
    num_shapes = torch._dynamo.config.recompile_limit + 1
    for i in range(num_shapes):
        learnt(CompiledBlockLayer, RMSprop(0.9), torch.float32, shape=(2, 2 + i, 3))
    assert compiler.frame_count == num_shapes


class Other(KeepMethod):  # has all attributes of a method, but is no Threshold
    mask = Threshold.mask


@pytest.mark.parametrize("method", [Threshold(), Other()])
@pytest.mark.parametrize(("spec", "form"), [("found", CompiledBlockLayer), (None, BlockLayer)])
def test_gpu_compiles_where_there_is_triton(method, spec, form, monkeypatch):
    monkeypatch.setattr(block, "find_spec", {"triton": spec}.__getitem__)
    assert layer_form(method, torch.device("cuda")) is form


def test_rule_chooses_the_form_on_the_cpu():
    assert layer_form(Threshold(), torch.device("cpu")) is FusedBlockLayer
    assert layer_form(Other(), torch.device("cpu")) is BlockLayer


def test_a_rule_derived_from_the_threshold_is_another_rule():
    assert layer_form(Negative(), torch.device("cpu")) is BlockLayer
