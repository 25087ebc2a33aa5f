import pytest
import torch

from supsup_core.kernels.means import means_of_kept, means_of_kept_plain


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shares", [True, False])
def test_the_kernel_gives_the_means_of_torch(dtype, shares):
    generator = torch.Generator().manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    values = torch.rand(1 if shares else 3, 17, 33, generator=generator, dtype=wide)
    masked = torch.randint(-1, 2, (3, 17, 33), generator=generator).to(dtype)
    found, expected = (
        form(values.expand(3, -1, -1), masked) for form in (means_of_kept, means_of_kept_plain)
    )
    assert found.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    assert len(found.unique()) == 3


def test_only_kept_values_count():
    values = torch.tensor([[[1.0, 2.0, 4.0, 100.0]]])
    masked = torch.tensor([[[-1.0, 1.0, -2.0, 0.0]]])
    assert means_of_kept(values, masked).tolist() == [7 / 3]


def test_values_that_are_not_contiguous_are_refused():
    with pytest.raises(RuntimeError):
        means_of_kept(torch.ones(1, 4, 3).mT, torch.ones(1, 3, 4))
