import numpy as np
import pytest
import torch

from supsup_core.kernels.bfloat16 import as_stored
from supsup_core.kernels.cross_entropy import (
    logit_gradient_for,
    logit_gradient_fused,
    logit_gradient_plain,
)

SCALES = torch.tensor([0.05, 0.02, 0.1], dtype=torch.float64)  # of three tasks


def logits_and_labels(dtype, spread=30.0):
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(3, 17, 33, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, 17, (3, 33), generator=generator)


@pytest.mark.parametrize("form", [logit_gradient_plain, logit_gradient_fused])
def test_it_is_the_gradient_of_the_mean_cross_entropy(form):
    logits, labels = logits_and_labels(torch.float32)
    leaf = logits.clone().requires_grad_()
    for b in range(3):  # torch needs logits of shape (N, S)
        torch.nn.functional.cross_entropy(SCALES[b] * leaf[b].t(), labels[b]).backward()
    torch.testing.assert_close(form(logits, labels, SCALES), leaf.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2.0**-8)])
def test_fused_gradient_equals_plain_gradient(dtype, tolerance, spread):
    logits, labels = logits_and_labels(dtype, spread)
    fused = logit_gradient_fused(logits, labels, SCALES)
    plain = logit_gradient_plain(logits, labels, SCALES)
    assert fused.dtype == plain.dtype == dtype
    torch.testing.assert_close(fused, plain, rtol=tolerance, atol=1e-9)


def test_bfloat16_results_are_rounded_to_nearest():
    logits, labels = logits_and_labels(torch.bfloat16)
    accurate = logit_gradient_fused(logits.float(), labels, SCALES)
    assert torch.equal(logit_gradient_fused(logits, labels, SCALES), accurate.bfloat16())


def test_label_beyond_the_outputs_is_refused_where_no_bounds_are_checked():
    logits, labels = logits_and_labels(torch.float32)
    labels[1, 2] = 17
    with pytest.raises(ValueError, match=r"labels must be in \[0, 17\)"):
        logit_gradient_fused(logits, labels, SCALES)


def test_type_and_device_choose_the_form():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert logit_gradient_for(torch.float32, cpu) is logit_gradient_fused
    assert logit_gradient_for(torch.bfloat16, cpu) is logit_gradient_fused
    assert logit_gradient_for(torch.float64, cpu) is logit_gradient_plain
    assert logit_gradient_for(torch.bfloat16, cuda) is logit_gradient_plain


def test_stored_values_are_the_tensor_itself():
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    as_stored(tensor)[1, 2] = 0x3F80
    assert tensor[1, 2] == 1
    assert as_stored(tensor).dtype == np.uint16
    with pytest.raises(RuntimeError):
        as_stored(tensor.t())
