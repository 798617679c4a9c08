"""bfloat16 where it has kernels of its own: edges of tiles, what is not finite, the float32 path beside it.

All of it holds for processors without such kernels as well.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import rattention as ra

from tests.extras import needs
from tests.instruction_sets import LEVELS
from tests.mechanisms import BFLOAT16, Sizes, assert_accurate, largest_error, with_dot_products
from tests.processes import run_python

pytestmark = with_dot_products

EPS = float(ml_dtypes.finfo(BFLOAT16).eps)


def draw(mechanism, seed: int = 0, **sizes):
    return mechanism.draw(Sizes(**sizes), seed=seed, dtype="bfloat16")


def float32_path(mechanism, inputs, **options):
    """Metrics want float32 weights."""
    return mechanism.forward(**inputs, **options, metrics=ra.MetricOptions()).output


@pytest.mark.row("H2")
@pytest.mark.parametrize("dim", [1, 3, 16, 31, 32, 33, 64, 66, 96, 129, 256])
@pytest.mark.parametrize("value_dim", [1, 15, 16, 17, 32, 48, 80])
def test_dimensions(mechanism, dim, value_dim):
    inputs = draw(mechanism, rows=70, dim=dim, value_dim=value_dim)
    assert_accurate(mechanism, inputs, causal=True)


@pytest.mark.row("H3")
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 33, 47, 48, 49, 64, 97])
@pytest.mark.parametrize("keys", [1, 2, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 1090])
def test_edges_of_tiles(mechanism, rows, keys):
    inputs = draw(mechanism, heads=4, kv_heads=2, rows=rows, keys=keys)
    assert_accurate(mechanism, inputs)
    assert_accurate(mechanism, inputs, window=(40, 3))


@pytest.mark.row("N2")
@pytest.mark.parametrize("scale", [0.3, -0.3, 0.0, 1e-3])
def test_scale(mechanism, scale):
    assert_accurate(mechanism, draw(mechanism, rows=100), scale=scale)


@pytest.mark.row("N2")
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 9, "log_discount": -0.1}])
def test_logsumexp_is_that_of_float32(mechanism, options):
    """Scores and their sums know no rounding of weights."""
    inputs = draw(mechanism, rows=1100)
    got = mechanism.forward(**inputs, **options, return_lse=True).lse
    wide = {name: array.astype(np.float32) for name, array in inputs.items()}
    np.testing.assert_allclose(got, mechanism.forward(**wide, **options, return_lse=True).lse, atol=3e-6)


@pytest.mark.row("N2")
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 100}])
def test_close_to_the_float32_path(mechanism, options):
    inputs = draw(mechanism, rows=1500, dim=64)
    exact = mechanism.exact(inputs, **options)
    got = mechanism.forward(**inputs, **options)
    allowed = largest_error(float32_path(mechanism, inputs, **options), exact)
    assert largest_error(got, exact) <= 1.5 * allowed + 0.1 * EPS


@pytest.mark.row("N13")
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 300}, {"window": (37, 70)}])
def test_bits_do_not_depend_on_tasks(mechanism, options, use_threads):
    """More threads: more tasks, which load other spans of keys. Not all values are finite."""
    inputs = draw(mechanism, heads=1, rows=2500, dim=40)
    inputs["value"][0, 0, 700::401, 3] = np.nan
    inputs["value"][0, 0, 800::501, 5] = np.inf
    use_threads(1)
    expected = mechanism.forward(**inputs, **options).view(np.uint16)
    for threads in (2, 3, 5, 8):
        use_threads(threads)
        got = mechanism.forward(**inputs, **options).view(np.uint16)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.row("S3")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("j", [0, 31, 64, 89])
def test_a_value_that_is_not_finite_changes_its_column_alone(mechanism, j, bad):
    """Of the rows that see it; every other bit stays."""
    inputs = draw(mechanism, rows=90, value_dim=20)
    expected = mechanism.forward(**inputs, window=(30, 2)).astype(np.float32)
    inputs["value"][:, :, j, 17] = bad
    distance = np.arange(90) - j
    expected[:, :, (distance <= 30) & (distance >= -2), 17] = bad
    np.testing.assert_array_equal(mechanism.forward(**inputs, window=(30, 2)).astype(np.float32), expected)


@pytest.mark.row("S3")
def test_keys_beyond_a_window_leave_no_trace(mechanism):
    """Tiles of keys are loaded whole."""
    inputs = draw(mechanism, heads=1, rows=200)
    expected = mechanism.forward(**inputs, window=(10, 0))[:, :, 150:]
    for name in ("key", "value"):
        inputs[name][:, :, :140] = np.nan
    np.testing.assert_array_equal(mechanism.forward(**inputs, window=(10, 0))[:, :, 150:], expected)


@pytest.mark.row("M1")
@pytest.mark.parametrize("layout", ["reversed", "columns", "odd address"])
def test_layouts(mechanism, layout):
    inputs = draw(mechanism, rows=70, dim=64)
    expected = mechanism.forward(**inputs, causal=True)
    for name, array in inputs.items():
        if layout == "reversed":
            inputs[name] = np.ascontiguousarray(array[..., ::-1])[..., ::-1]
        elif layout == "columns":
            inputs[name] = np.ascontiguousarray(array.swapaxes(2, 3)).swapaxes(2, 3)
        else:
            inputs[name] = (
                np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(BFLOAT16).reshape(array.shape)
            )
    np.testing.assert_array_equal(mechanism.forward(**inputs, causal=True), expected)


@pytest.mark.row("T2")
def test_beside_torch(mechanism):
    """PyTorch's own bfloat16 uses the same tile registers, on the same threads."""
    needs("torch")
    import torch

    inputs = draw(mechanism, heads=4, rows=600, dim=64)
    expected = mechanism.forward(**inputs)
    a = torch.randn(300, 300).bfloat16()
    q = torch.randn(1, 4, 600, 64).bfloat16()
    product, attended = a @ a, torch.nn.functional.scaled_dot_product_attention(q, q, q)
    for _ in range(5):
        assert torch.equal(a @ a, product)
        np.testing.assert_array_equal(mechanism.forward(**inputs), expected)
        assert torch.equal(torch.nn.functional.scaled_dot_product_attention(q, q, q), attended)


@pytest.mark.row("B2")
def test_the_cap_selects_the_float32_path(mechanism):
    """Without products of bfloat16, attention with and without metrics has the same bits; with them, it need
    not."""
    code = f"""
        import numpy as np, rattention as ra
        from tests.mechanisms import MECHANISMS, Sizes
        mechanism = next(m for m in MECHANISMS if m.name == {mechanism.name!r})
        inputs = mechanism.draw(Sizes(rows=200, dim=64), dtype="bfloat16")
        measured = mechanism.forward(**inputs, metrics=ra.MetricOptions())
        print(np.array_equal(measured.output, mechanism.forward(**inputs)))
    """
    widened = "avx512" if "avx512" in LEVELS else LEVELS[-1]
    assert run_python(code, RATTENTION_MAX_ISA=widened).strip() == "True"
    if ra.show_config()["instruction_set"] in ("avx512_bf16", "amx") and mechanism.name == "softmax":
        assert run_python(code).strip() == "False"
