"""Products of whole numbers are exact, whichever arithmetic computes them."""

import numpy as np
import pytest
import torch

from supsup_core import whole_products as module
from supsup_core.whole_products import LARGEST_SUM, whole_products


@pytest.mark.parametrize("multiplies_int8", [True, False])
def test_products_are_exact_up_to_the_largest_sum(multiplies_int8, monkeypatch):
    monkeypatch.setattr(module, "_multiplies_int8", lambda: multiplies_int8)
    left = np.random.default_rng(0).integers(-127, 128, (3, 1024))
    right = np.random.default_rng(1).integers(-128, 128, (1024, 5))
    left[0], right[:, 0] = -128, -128  # their product is LARGEST_SUM
    found = whole_products(
        torch.from_numpy(left.astype(np.int8)), torch.from_numpy(right.astype(np.int8))
    )
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), left @ right)
    assert found[0, 0] == LARGEST_SUM


def test_products_of_any_shape_fit_a_gpu_and_are_exact():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-128, 128, s, generator=generator, dtype=torch.int8)
        for s in ((3, 13), (13, 9))
    )
    assert torch.equal(module._integer_product(a, b), (a.long() @ b.long()).int())
