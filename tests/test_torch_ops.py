"""rattention.torch: operations on tensors, equal to those on arrays and differentiable."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch
from rattention.torch import checks, functional, ops, sdpa

from tests.torch_inputs import (
    DTYPES,
    MASKS,
    Names,
    by_case,
    by_mechanism,
    draw,
    masks_of,
    on_arrays,
    on_tensors,
    tensors_of,
    to_numpy,
    two_results,
    with_second,
)


def directions(results, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(r.shape, generator=generator).to(r.dtype) for r in results]


def gradients(mechanism, inputs, **masks):
    """By name, of the sum of both results times random numbers."""
    results = two_results(mechanism, inputs, **masks)
    finite = [torch.where(r.isfinite(), r, torch.zeros_like(r)) for r in results]
    loss = sum((r * d).sum() for r, d in zip(finite, directions(results), strict=True))
    tensors = tensors_of(inputs)
    return dict(zip(tensors, torch.autograd.grad(loss, [*tensors.values()]), strict=True))


@by_mechanism
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_function_on_arrays(mechanism, dtype):
    inputs = draw(mechanism, dtype=dtype)
    got = on_tensors(mechanism)(**inputs)
    expected = mechanism.forward(**on_arrays(inputs))
    assert got.dtype == DTYPES[dtype]
    np.testing.assert_array_equal(to_numpy(got), expected)


@by_case
def test_masks_are_passed_on(mechanism, masks):
    inputs, masks = draw(mechanism), masks_of(mechanism)[masks]
    arrays = on_arrays(inputs | masks)
    expected = mechanism.forward(**arrays, **with_second(mechanism))[:2]
    for got, array in zip(two_results(mechanism, inputs, **masks), expected, strict=True):
        np.testing.assert_array_equal(got.detach().numpy(), array)


def reference_sum(mechanism, arrays, weights, masks):
    """The sum behind `gradients`, by the float64 law."""
    results = mechanism.reference(**arrays, **masks)[:2]
    return sum(
        np.where(np.isfinite(r), r, 0).ravel() @ w.ravel() for r, w in zip(results, weights, strict=True)
    )


@pytest.mark.row("N3")
@by_mechanism
@pytest.mark.parametrize("masks", ["none", "both"])
def test_gradients_against_differences(mechanism, masks):
    """Of every differentiable input, through the output and through lse or state."""
    inputs, options = draw(mechanism), MASKS[masks]
    got = gradients(mechanism, inputs, **options)
    weights = [d.numpy().astype(np.float64) for d in directions(two_results(mechanism, inputs, **options))]
    options = {n: m.numpy() for n, m in options.items()}
    wide = {n: v.astype(np.float64) if isinstance(v, np.ndarray) else v for n, v in on_arrays(inputs).items()}
    assert set(got) == set(mechanism.parameters)
    for name, gradient in got.items():
        along = np.random.default_rng(3).standard_normal(gradient.shape)
        moved = [wide | {name: wide[name] + sign * 1e-5 * along} for sign in (1, -1)]
        up, down = (reference_sum(mechanism, arrays, weights, options) for arrays in moved)
        scale = np.abs(gradient.numpy() * along).sum() + 1e-3
        assert abs((gradient.numpy() * along).sum() - (up - down) / 2e-5) <= 2e-5 * scale, name


@pytest.mark.row("N3")
@by_mechanism
def test_bfloat16_gradients(mechanism):
    """In the dtype of the inputs, and near those in float32."""
    half = gradients(mechanism, draw(mechanism, dtype="bfloat16"))
    inputs = draw(mechanism, dtype="bfloat16")
    full = gradients(
        mechanism, inputs | {n: t.detach().float().requires_grad_() for n, t in tensors_of(inputs).items()}
    )
    for name, gradient in half.items():
        assert gradient.dtype == inputs[name].dtype
        assert (gradient.float() - full[name]).norm() <= 0.03 * full[name].norm(), name


def test_only_the_lse_matters():
    query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(1))
    query.requires_grad_()
    rt.attention(query, key, value, return_lse=True).lse.sum().backward()
    scores = query.detach().requires_grad_() @ key.mT / 2
    expected = torch.autograd.grad(scores.logsumexp(-1).sum(), scores)[0] @ key / 2
    torch.testing.assert_close(query.grad, expected)


@by_mechanism
def test_autocast(mechanism):
    inputs = draw(mechanism)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = on_tensors(mechanism)(**inputs)
    assert output.dtype == torch.bfloat16
    narrow = {
        n: t.to(torch.bfloat16)
        for n, t in inputs.items()
        if n in ops.SIGNATURES[mechanism.forward].of_query_dtype
    }
    assert torch.equal(output, on_tensors(mechanism)(**(inputs | narrow)))
    output.float().sum().backward()
    assert inputs["query"].grad.dtype == torch.float32


@by_mechanism
def test_vmap(mechanism):
    """Over query and value, gradients included."""
    inputs = draw(mechanism)
    fixed = {n: v for n, v in inputs.items() if n not in ("query", "value")}
    queries, values = (torch.stack([inputs[n].detach() * f for f in (1, 2, 3)]) for n in ("query", "value"))
    queries.requires_grad_()

    def call(query, value):
        return on_tensors(mechanism)(query=query, value=value, **fixed)

    mapped = torch.func.vmap(call, in_dims=(0, 0))(queries, values)
    separate = torch.stack([call(q, v) for q, v in zip(queries, values, strict=True)])
    assert torch.equal(mapped, separate)
    torch.testing.assert_close(
        torch.autograd.grad(mapped.sum(), queries), torch.autograd.grad(separate.sum(), queries)
    )


@by_mechanism
def test_second_derivatives_are_refused(mechanism):
    inputs = draw(mechanism)
    first = torch.autograd.grad(on_tensors(mechanism)(**inputs).sum(), inputs["query"], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        first.sum().backward()


def test_functional_gradients_are_refused():
    query = torch.randn(1, 2, 9, 4)
    with pytest.raises(NotImplementedError, match=r"torch\.func\.vmap work"):
        torch.func.grad(lambda q: rt.attention(q, q, q).sum())(query)


@by_mechanism
def test_forward_mode_derivatives_are_refused(mechanism):
    """PyTorch would take them as zero."""
    inputs = {n: v.detach() if isinstance(v, torch.Tensor) else v for n, v in draw(mechanism).items()}
    value = inputs.pop("value")

    def call(value):
        return on_tensors(mechanism)(**inputs, value=value)

    with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives .*jvp"):
        torch.func.jvp(call, (value,), (value,))
    with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives .*jvp"):
        torch.func.jacfwd(call)(value)
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=r"no forward-mode derivatives"):
        call(forward_ad.make_dual(value, value))


LAYOUTS = {
    "batch, length, heads": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "columns first": lambda t: t.mT.contiguous().mT,
    "every second": lambda t: t.repeat_interleave(2, dim=3)[..., ::2],
    "part of a row": lambda t: torch.cat([t, t], dim=3)[..., : t.shape[3]],
    "offset": lambda t: torch.cat([t[:1], t])[1:],
    "a parameter": lambda t: torch.nn.Parameter(t),
}


@pytest.mark.row("M1")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_layout(layout, dtype):
    """Bit for bit, forward and backward, and without a copy."""
    mechanism = ra.MECHANISMS["rattention"]
    inputs = draw(mechanism, dtype=dtype)
    expected = gradients(mechanism, inputs)
    moved = inputs | {
        n: LAYOUTS[layout](inputs[n].detach()).requires_grad_() for n in ("query", "key", "value")
    }
    assert torch.equal(on_tensors(mechanism)(**moved), on_tensors(mechanism)(**inputs))
    for name, gradient in gradients(mechanism, moved).items():
        assert torch.equal(gradient, expected[name]), name
    assert checks.as_array(moved["query"]).ctypes.data == moved["query"].data_ptr()


@pytest.mark.row("M2")
def test_expanded_heads():
    query = torch.randn(1, 4, 9, 4)
    shared = torch.randn(1, 1, 9, 4)
    wide = shared.expand(1, 4, 9, 4)
    assert torch.equal(rt.attention(query, wide, wide), rt.attention(query, shared, shared))


def test_results_are_not_copied():
    for dtype in (np.float32, np.uint16):
        array = np.ones((2, 3), dtype)
        assert checks.as_tensor(array).data_ptr() == array.ctypes.data


@pytest.mark.row("M8")
def test_no_graph_where_none_is_wanted():
    query = torch.randn(1, 2, 9, 4, requires_grad=True)
    with torch.no_grad():
        assert not rt.attention(query, query, query).requires_grad
    with torch.inference_mode():
        assert rt.rattention(query, query, query, window=2).is_inference()
    assert not rt.attention(*[query.detach()] * 3).requires_grad


def test_metrics_equal_those_on_arrays():
    query, key, value = torch.randn(3, 1, 2, 33, 4)
    options = ra.MetricOptions(local_radius=2, long_range_distance=9)
    both = rt.attention(query, key, value, causal=True, metrics=options, return_lse=True)
    arrays = ra.attention_metrics(query.numpy(), key.numpy(), causal=True, metrics=options)
    alone = rt.attention_metrics(query, key, causal=True, metrics=options)
    for measured in (both.metrics, alone):
        for (name, got), (_, expected) in zip(measured, arrays, strict=True):
            np.testing.assert_array_equal(got.numpy(), expected, err_msg=name)
    assert both.lse is not None
    assert rt.attention(query, key, value, metrics=ra.MetricOptions(received=False)).metrics.received is None


def test_metrics_in_a_loss_are_an_error():
    query = torch.randn(1, 2, 9, 4, requires_grad=True)
    result = rt.attention(query, query, query, metrics=ra.MetricOptions())
    result.output.sum().backward(retain_graph=True)
    with pytest.raises(NotImplementedError, match="metrics are not differentiable"):
        (result.output.sum() + result.metrics.entropy.sum()).backward()
    with pytest.raises(NotImplementedError, match="metrics are not differentiable"):
        rt.attention_metrics(query, query).max_weight.sum().backward()


def test_torch_says_how_many_threads(use_threads):
    use_threads(0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert ra.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("module", [rt, functional, sdpa], ids=lambda m: m.__name__)
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_functions_look_like_those_on_arrays():
    import inspect
    import pickle

    for name in set(rt.__all__) - {"scaled_dot_product_attention"}:
        function = getattr(rt, name)
        here, there = (inspect.signature(f).parameters for f in (function, getattr(ra, name)))
        assert {n: (p.kind, p.default) for n, p in here.items()} == {
            n: (p.kind, p.default) for n, p in there.items()
        }
        assert pickle.loads(pickle.dumps(function)) is function
        assert "on tensors: `rattention." in function.__doc__
        assert "array" not in function.__doc__


@by_mechanism
def test_without_gradients_the_kernel_is_called_directly(mechanism, monkeypatch):
    """Bit for bit what the operation gives; which is called where anyone looks, or could."""
    inputs = draw(mechanism)
    expected = on_tensors(mechanism)(**inputs)
    with Names() as names:
        assert torch.equal(on_tensors(mechanism)(**inputs), expected)
    assert f"rattention::{mechanism.forward.__name__}" in names.seen
    monkeypatch.setitem(ops.OPERATIONS, mechanism.functions.forward, None)
    plain = {n: v.detach() if isinstance(v, torch.Tensor) else v for n, v in inputs.items()}
    assert torch.equal(on_tensors(mechanism)(**plain), expected)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(TypeError, match="NoneType"):
        on_tensors(mechanism)(**plain)
    with torch.profiler.profile(), pytest.raises(TypeError, match="NoneType"):
        on_tensors(mechanism)(**plain)
