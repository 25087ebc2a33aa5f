"""The Triton kernels on packed rows: equal to their plain forms, and compiled for two GPUs.

One test runs the other tests of this file in a process with Triton's interpreter.
"""

import pytest
import torch

from supsup_core.kernels.gpu import packed_plain
from triton_tests import compile_for, compiled, interpreted, pass_interpreted

pytest.importorskip("triton")


@compiled
def test_interpreted_kernels_pass_their_tests():
    pass_interpreted(__file__)


# Numbers of rows, bytes of a row and queries: full tiles, parts of tiles, and a single row.
SHAPES = [(33, 1024, 2), (5, 64, 1), (1, 2112, 3), (17, 448, 4)]


@pytest.fixture(params=SHAPES, ids=str)
def given(request):
    """Packed rows, and vectors of values of several magnitudes."""
    from supsup_core.kernels.gpu import packed

    num_rows, num_bytes, num_queries = request.param
    generator = torch.Generator().manual_seed(0)
    shape = num_rows, num_bytes
    rows = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    vectors = torch.randn(num_queries, 8 * num_bytes, generator=generator).pow(3)
    return packed, rows, vectors


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bits_are_unpacked(given, dtype):
    packed, rows, _ = given
    shape = len(rows), 8 * rows.shape[1]
    found, expected = torch.full(shape, 7.0, dtype=dtype), torch.empty(shape, dtype=dtype)
    packed.unpack(rows, found)
    packed_plain.unpack(rows, expected)
    assert torch.equal(found, expected)


@interpreted
@pytest.mark.parametrize("num_limbs", [1, 2, 3])
def test_limbs_are_the_rounded_rests(given, num_limbs):
    # The interpreter converts to bfloat16 by cutting digits off, unlike GPUs, so this is float16.
    packed, _, vectors = given
    found, rest = packed.limbs(vectors, num_limbs, torch.float16), vectors
    for limb in found:
        assert torch.equal(limb, rest.half())
        rest = rest - limb.float()


@interpreted
@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("num_limbs", [0, 2])
def test_evidence_is_laid_out_as_by_the_plain_form(num_images, num_limbs):
    from supsup_core.kernels.gpu import packed

    generator = torch.Generator().manual_seed(2)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    layers = [
        packed_plain.Layer(drawn(2, num_images, o), drawn(2, num_images, i), drawn(o, i), first)
        for o, i, first in ((9, 7, 0), (40, 9, 512), (50, 40, 1024))
    ]
    given = layers, 4096, num_limbs, torch.float16
    found, expected = packed.lay_out(*given), packed_plain.lay_out(*given)
    tolerance = {} if num_images > 1 else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found.flat, expected.flat, **tolerance)
    torch.testing.assert_close(found.absolute, expected.absolute)
    assert found.limbs.shape == (num_limbs, 2, 4096)
    torch.testing.assert_close(
        found.limbs.double().sum(dim=0), found.flat.double() * bool(num_limbs), rtol=1e-6, atol=1e-6
    )


@interpreted
def test_packed_products_are_those_of_the_plain_form(given):
    packed, rows, vectors = given
    found = packed.packed_dot(rows, vectors)
    expected = packed_plain.packed_dot(rows, vectors)
    scale = vectors.abs().sum(dim=1, keepdim=True)
    assert ((found - expected).abs() <= 2e-6 * scale).all()


@interpreted
@pytest.mark.parametrize("num_candidates", [1, 8, 11])
def test_exact_products_are_those_of_the_plain_form(given, num_candidates):
    packed, rows, vectors = given
    generator = torch.Generator().manual_seed(1)
    tasks = torch.randint(len(rows), (len(vectors), num_candidates), generator=generator)
    tasks[0, 1:] = -1  # the only candidate of its query
    tasks[-1, -2:-1] = -1
    found = packed.exact_products(rows, vectors, tasks)
    expected = packed_plain.exact_products(rows, vectors, tasks)
    assert torch.equal(found.isinf(), tasks < 0)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-11)


@interpreted
def test_equal_rows_have_equal_exact_products(given):
    packed, rows, vectors = given
    tasks = torch.arange(3).expand(len(vectors), -1)
    same = rows[:1].expand(3, -1).contiguous()
    found = packed.exact_products(same, vectors, tasks)
    assert (found == found[:, :1]).all()


# For each kernel, the types of its arguments and the sizes of its tiles
KERNELS = {
    "unpack_kernel": ("*u8 *bf16 i32", {"BLOCK": 512}),
    "limbs_kernel": ("*fp32 *bf16 i64", {"NUM_LIMBS": 2, "BLOCK": 1024}),
    "lay_out_kernel": (
        "*fp32 *fp32 *fp32 *fp32 *bf16 *fp32 i32 i32 i32 i32 i32 i32 i32 i32",
        {"NUM_IMAGES": 1, "NUM_LIMBS": 2, "BLOCK": 1024},
    ),
    "packed_dot_kernel": ("*i32 *fp32 *fp32 i32 i32 i32", {"TILES": 4, "ROWS": 16, "WORDS": 64}),
    "exact_kernel": (
        "*u8 *fp32 *i64 *i64 *fp64 i32 i32 i32",
        {"TILES": 32, "CANDIDATES": 8, "BYTES": 64},
    ),
}


@compiled
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_without_a_gpu(name, capability):
    from supsup_core.kernels.gpu import packed

    compile_for(capability, getattr(packed, name), *KERNELS[name], enable_fp_fusion=False)
