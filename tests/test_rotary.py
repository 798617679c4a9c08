"""`rotary` on arrays and tensors: against its definition, at any position, in any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.rotary import reference_rotary

from tests.extras import needs
from tests.mechanisms import DTYPES, last_rounding

LENGTH, DIM = 70, 12
VARIANTS: dict[str, dict[str, Any]] = {
    "halves": {},
    "interleaved": {"interleaved": True},
    "partial": {"dims": 6},
    "partial, interleaved": {"dims": 10, "interleaved": True},
    "nothing": {"dims": 0},
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def rows(shape: tuple[int, ...] = (2, 3, LENGTH, DIM), dtype: str = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(DTYPES[dtype])


def wide(x: Any) -> Any:
    return np.asarray(x).astype(np.float64)


def angles_of(name: str, dims: int) -> dict[str, Any]:
    """Positions or tables of every form; dims numbers per row turn."""
    generator = np.random.default_rng(1)
    shape = (LENGTH,) if name.endswith("shared") else (2, LENGTH)
    if name.startswith("positions"):
        return {"positions": generator.integers(-50, 100_000, shape)}
    if name.startswith("tables"):
        tables = generator.standard_normal((2, *shape, dims // 2)).astype(np.float32)
        return {"cos": tables[0], "sin": tables[1]}
    return {}


ANGLES = ("default", "positions shared", "positions per batch", "tables shared", "tables per batch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("angles", ANGLES)
@variants
def test_equals_the_reference(variant: dict[str, Any], angles: str, dtype: str) -> None:
    x = rows(dtype=dtype)
    options = variant | angles_of(angles, variant.get("dims", DIM))
    got = ra.rotary(x, theta=500.0, **options)
    exact = reference_rotary(wide(x), 500.0, **options)
    assert got.dtype == x.dtype
    precision = last_rounding(x) if dtype != "float32" else 4e-7
    assert np.abs(wide(got) - exact).max() <= precision * np.abs(exact).max()
    rest = variant.get("dims", DIM)
    np.testing.assert_array_equal(got[..., rest:], x[..., rest:])


@pytest.mark.parametrize("theta", [2.0, 10_000.0, 1e6])
@pytest.mark.parametrize("start", [0, 10**4, 10**6, 10**8])
@pytest.mark.parametrize("dim", [2, 64, 130])
def test_as_exact_far_away_as_at_the_start(start: int, theta: float, dim: int) -> None:
    """Angles of the truth have the 64 bits of extended precision, where the platform has it."""
    x = rows((1, 2, 50, dim))
    at = start + np.arange(50)
    got = ra.rotary(x, theta=theta, positions=at)
    angles = at[:, None] * np.longdouble(theta) ** (-np.arange(dim // 2).astype(np.longdouble) / (dim // 2))
    exact = reference_rotary(wide(x), cos=np.cos(angles), sin=np.sin(angles))
    assert np.abs(got - exact).max() <= 2e-7 * np.abs(exact).max()


@variants
def test_only_distances_count(variant: dict[str, Any]) -> None:
    query, key = rows((1, 1, 1, DIM)), rows((1, 1, 1, DIM), seed=1)
    products = [
        np.vdot(
            ra.rotary(query, positions=at + np.array([7]), **variant), ra.rotary(key, positions=at, **variant)
        )
        for at in (np.array([0]), np.array([10**8]))
    ]
    assert products[0] == pytest.approx(products[1], abs=1e-5)


@pytest.mark.parametrize("angles", ANGLES)
@variants
def test_any_strides_and_nothing_written(variant: dict[str, Any], angles: str) -> None:
    """Transposed, with gaps, reversed, repeated and at odd addresses, x, positions and tables."""
    options = variant | angles_of(angles, variant.get("dims", DIM))
    x = rows()
    unaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    spread = {
        name: np.repeat(array, 2, axis=-1)[..., ::2]
        for name, array in options.items()
        if name in ("cos", "sin")
    }
    expected = ra.rotary(x, **options)
    for strided in (
        np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
        np.repeat(x, 2, axis=3)[..., ::2],
        np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        unaligned,
    ):
        strided.setflags(write=False)
        np.testing.assert_array_equal(ra.rotary(strided, **options | spread), expected)
    one = np.broadcast_to(x[:, :1], x.shape)
    np.testing.assert_array_equal(ra.rotary(one, **options)[:, 2], expected[:, 0])


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (1, 0, 5, 4), (1, 3, 0, 4), (1, 3, 5, 0), (1, 1, 1, 2)])
def test_empty_and_smallest(shape: tuple[int, ...]) -> None:
    batch, _, length, dim = shape
    x = rows(shape)
    tables = np.ones((2, batch, length, dim // 2), np.float32)
    assert ra.rotary(x).shape == shape
    assert ra.rotary(x, positions=np.zeros((batch, length), int)).shape == shape
    assert ra.rotary(x, cos=tables[0], sin=tables[1], interleaved=True).shape == shape


@pytest.mark.parametrize("angles", ANGLES)
@variants
def test_nan_stays_in_its_row(variant: dict[str, Any], angles: str) -> None:
    options = variant | angles_of(angles, variant.get("dims", DIM))
    x = rows()
    clean = ra.rotary(x, **options)
    x[1, 2, 33] = np.nan
    x[0, 1, 20, 0] = np.inf
    got = ra.rotary(x, **options)
    assert np.isnan(got[1, 2, 33]).all()
    assert not np.isfinite(got[0, 1, 20, 0])
    others = np.ones(x.shape[:3], bool)
    others[1, 2, 33] = others[0, 1, 20] = False
    np.testing.assert_array_equal(got[others], clean[others])


def test_the_same_bits_for_any_number_of_threads(use_threads: Any) -> None:
    x, at = rows((2, 2, 2000, 64)), np.random.default_rng(0).integers(0, 10**6, (2, 2000))
    results = []
    for threads in (1, 2, 3):
        use_threads(threads)
        results.append([ra.rotary(x), ra.rotary(x, positions=at, interleaved=True)])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


X = rows((2, 3, 5, 8))
HALF = np.ones((5, 4), np.float32)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[0]}, ValueError, "x must have 4 dimensions, got 3"),
    ({"x": X.astype(np.float64)}, TypeError, "x has dtype float64"),
    ({"x": X.tolist()}, TypeError, "x must be an array, got list"),
    ({"x": X[..., :7]}, ValueError, r"dims must be even and at most the head_dim of x, 7; got all of them"),
    ({"dims": 3}, ValueError, "dims must be even and at most the head_dim of x, 8; got 3"),
    ({"dims": 10}, ValueError, "dims must be even and at most the head_dim of x, 8; got 10"),
    ({"dims": -2}, ValueError, "dims must be >= 0, got -2"),
    ({"dims": 4.0}, TypeError, "dims must be an integer, got 4.0"),
    ({"theta": 0.0}, ValueError, "theta must be > 0, got 0.0"),
    ({"theta": float("nan")}, ValueError, "theta must be finite"),
    ({"theta": "big"}, TypeError, "theta must be a number, got 'big'"),
    ({"positions": np.arange(4)}, ValueError, r"positions must have shape \(5,\) or \(2, 5\), got \(4,\)"),
    ({"positions": np.zeros((3, 5), int)}, ValueError, r"positions must have shape .* got \(3, 5\)"),
    ({"positions": np.arange(5.0)}, TypeError, "positions must be an integer array, got dtype float64"),
    ({"positions": [0, 1, 2, 3, 4]}, TypeError, "positions must be an array, got list"),
    (
        {"positions": np.full(5, 2**60)},
        ValueError,
        r"positions must be from -2\^53 to 2\^53, got 1152921504606846976",
    ),
    ({"cos": HALF}, ValueError, "cos and sin go together, got cos alone"),
    ({"sin": HALF}, ValueError, "cos and sin go together, got sin alone"),
    (
        {"cos": HALF[:4], "sin": HALF},
        ValueError,
        r"cos must have shape \(5, 4\) or .* got \(4, 4\)",
    ),
    (
        {"cos": HALF, "sin": HALF[:, :3]},
        ValueError,
        r"sin must have shape \(5, 4\) or .* got \(5, 3\)",
    ),
    ({"cos": HALF, "sin": np.stack([HALF] * 2)}, ValueError, r"cos and sin must have one shape"),
    ({"cos": HALF.astype(np.float64), "sin": HALF}, TypeError, "cos has dtype float64"),
    (
        {"cos": HALF, "sin": HALF, "positions": np.arange(5)},
        ValueError,
        "positions are those of theta's angles",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ra.rotary(**{"x": X} | options)


def test_bad_tensors() -> None:
    needs("torch")
    import rattention.torch as rt
    import torch

    x = torch.from_numpy(X)
    for options, error, message in (
        ({"x": X}, TypeError, "x must be a torch.Tensor, got ndarray"),
        ({"x": None}, TypeError, "x must be a torch.Tensor, got NoneType"),
        ({"x": x.double()}, TypeError, "x has dtype torch.float64"),
        ({"x": x[0]}, ValueError, "x must have 4 dimensions, got 3"),
        (
            {"positions": torch.arange(5.0)},
            TypeError,
            "positions must be a tensor of integers, got",
        ),
        ({"positions": torch.arange(4)}, ValueError, "positions must have shape"),
        ({"cos": x[0, 0, :, :4]}, ValueError, "cos and sin go together"),
        ({"dims": 5}, ValueError, "dims must be even"),
    ):
        with pytest.raises(error, match=message):
            rt.rotary(**{"x": x} | options)


@pytest.mark.parametrize("angles", ANGLES)
@variants
def test_tensors_have_the_same_bits(variant: dict[str, Any], angles: str) -> None:
    needs("torch")
    import rattention.torch as rt
    import torch

    options = variant | angles_of(angles, variant.get("dims", DIM))
    given = {n: torch.from_numpy(a) if isinstance(a, np.ndarray) else a for n, a in options.items()}
    np.testing.assert_array_equal(
        rt.rotary(torch.from_numpy(rows()), **given).numpy(), ra.rotary(rows(), **options)
    )


@pytest.mark.parametrize("angles", ANGLES)
@variants
def test_gradients(variant: dict[str, Any], angles: str) -> None:
    """By turning back, in every dtype; those of tables are of the plain formula, which equals the kernel."""
    needs("torch")
    import rattention.torch as rt
    import torch

    options = variant | angles_of(angles, variant.get("dims", DIM))
    given = {n: torch.from_numpy(a) if isinstance(a, np.ndarray) else a for n, a in options.items()}
    x, weights = (torch.from_numpy(rows(seed=seed)) for seed in (0, 1))
    x.requires_grad_()
    (got,) = torch.autograd.grad((rt.rotary(x, **given) * weights).sum(), x)
    turned = {"cos": options["cos"], "sin": -options["sin"]} if "sin" in options else {}
    if not turned:
        at = options.get("positions", np.arange(LENGTH))
        turned = {"positions": -at}
    exact = reference_rotary(weights.double().numpy(), **(options | turned))
    np.testing.assert_allclose(got.numpy(), exact, rtol=0, atol=1e-5)
    if "cos" in given:
        learned = given | {name: given[name].clone().requires_grad_() for name in ("cos", "sin")}
        output = rt.rotary(x, **learned)
        np.testing.assert_allclose(output.detach().numpy(), ra.rotary(rows(), **options), rtol=0, atol=1e-5)
        output.sum().backward()
        if learned["cos"].numel():
            assert learned["cos"].grad.any()
            assert learned["sin"].grad.any()


def test_gradients_of_tables_are_derivatives() -> None:
    needs("torch")
    import torch
    from rattention.torch.rotary import plain_turn

    generator = torch.Generator().manual_seed(0)
    x, cos, sin = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, 2, 3, 6), (2, 3, 2), (2, 3, 2))
    )
    for interleaved in (False, True):
        assert torch.autograd.gradcheck(
            lambda *a, way=interleaved: plain_turn(*a, interleaved=way), (x, cos, sin)
        )


@pytest.mark.parametrize("angles", ANGLES)
def test_is_a_good_operation(angles: str) -> None:
    """Checked by opcheck, compiled whole, mapped with and without angles of its own, on other devices."""
    needs("torch")
    import rattention.torch as rt
    import torch
    from rattention.torch.rotary import turn

    options = angles_of(angles, DIM)
    given = {n: torch.from_numpy(a) for n, a in options.items()}
    x = torch.from_numpy(rows()).requires_grad_()
    table = torch.cat([given["cos"], given["sin"]], dim=-1) if "cos" in given else None
    torch.library.opcheck(turn, (x, given.get("positions"), table, 1e4, 0, DIM, True, False))
    compiled = torch.compile(lambda x, o: 2 * rt.rotary(x, **o), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, given), 2 * rt.rotary(x, **given))
    assert rt.rotary(x.to("meta"), **{n: t.to("meta") for n, t in given.items()}).shape == x.shape

    many = torch.from_numpy(rows((4, 2, 3, LENGTH, DIM)))
    own = {n: torch.stack([t, t.flip(0), 2 * t, -t]) for n, t in given.items()}
    shared = torch.func.vmap(lambda x: rt.rotary(x, **given))(many)
    torch.testing.assert_close(shared, torch.stack([rt.rotary(x, **given) for x in many]))
    mapped = torch.func.vmap(lambda x, o: rt.rotary(x, **o))(many, own)
    singles = [rt.rotary(x, **{n: t[i] for n, t in own.items()}) for i, x in enumerate(many)]
    torch.testing.assert_close(mapped, torch.stack(singles))
    if given:
        over = torch.func.vmap(lambda o: rt.rotary(many[0], **o))(own)
        expected = [rt.rotary(many[0], **{n: t[i] for n, t in own.items()}) for i in range(4)]
        torch.testing.assert_close(over, torch.stack(expected))


@variants
def test_equals_transformers(variant: dict[str, Any]) -> None:
    """The embedding of Llama, and, in part and interleaved, of GPT-J."""
    needs("hf")
    import rattention.torch as rt
    import torch
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as by_neighbours
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as by_halves

    dims = variant.get("dims", DIM)
    x = torch.from_numpy(rows())
    angles = torch.arange(LENGTH)[:, None] * 1e4 ** (-torch.arange(dims // 2).double() / max(dims // 2, 1))
    cos, sin = angles.cos().float()[None], angles.sin().float()[None]
    if variant.get("interleaved"):
        turned = by_neighbours(x[..., :dims].transpose(1, 2), sin, cos).transpose(1, 2)
    else:
        turned, _ = by_halves(x[..., :dims], x[..., :dims], cos.repeat(1, 1, 2), sin.repeat(1, 1, 2))
    expected = torch.cat([turned, x[..., dims:]], dim=-1)
    torch.testing.assert_close(rt.rotary(x, **variant), expected, rtol=1e-5, atol=1e-5)
