"""Metrics, rows and maps on tensors, and steps of a cache: those on arrays, without gradients."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch

from tests.torch_inputs import DTYPES, to_numpy

QUERY = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
KEY = torch.randn(2, 2, 11, 8, generator=torch.Generator().manual_seed(1))
OPTIONS = {
    "none": {},
    "window": {"causal": True, "window": 3, "scale": 0.2},
    "masks": {
        "key_mask": torch.arange(11).repeat(2, 1) % 4 > 0,
        "segment_ids": torch.arange(11).repeat(2, 1) // 6,
        "attn_mask": torch.linspace(-1, 1, 11),
        "log_discount": torch.tensor([-0.1, -0.2, -0.3, -0.4], requires_grad=True),
        "query_offset": 1,
    },
}
FUNCTIONS = {
    "rows": ("attention_rows", {"rows": [0, -1, 3]}),
    "a tensor of rows": ("attention_rows", {"rows": torch.tensor([2, 2])}),
    "map": ("attention_map", {"shape": (4, 5), "rows": (1, 9)}),
    "segments": ("attention_segments", {"query_edges": [0, 2, 9], "key_edges": torch.tensor([1, 5, 11])}),
    "distances": ("attention_distances", {"edges": [0, 1, 4, 20]}),
    "rows by lse": ("attention_rows", {"rows": [8], "lse": torch.linspace(0, 3, 72).reshape(2, 4, 9)}),
    "map by lse": ("attention_map", {"lse": torch.linspace(0, 3, 72).double().reshape(2, 4, 9)}),
}


def on_arrays(options):
    return {n: to_numpy(v) if isinstance(v, torch.Tensor) else v for n, v in options.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("case", FUNCTIONS)
def test_equals_the_function_on_arrays(case, options, dtype):
    name, own = FUNCTIONS[case]
    query, key, all_options = QUERY.to(DTYPES[dtype]), KEY.to(DTYPES[dtype]), own | OPTIONS[options]
    got = getattr(rt, name)(query, key, **all_options)
    expected = getattr(ra, name)(to_numpy(query), to_numpy(key), **on_arrays(all_options))
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_in_a_loss_they_are_an_error(case):
    name, own = FUNCTIONS[case]
    query = QUERY.clone().requires_grad_()
    with pytest.raises(NotImplementedError, match="not differentiable, nor are rows and maps"):
        getattr(rt, name)(query, KEY, **own).sum().backward()


@pytest.mark.parametrize("case", FUNCTIONS)
def test_refused(case):
    name, own = FUNCTIONS[case]
    function = getattr(rt, name)
    wrong = {
        "query must be a torch.Tensor, got ndarray": (TypeError, {"query": QUERY.numpy()}),
        "key must be a torch.Tensor, got NoneType": (TypeError, {"key": None}),
        "query must be on the CPU, got meta": (
            ValueError,
            {"query": QUERY.to("meta"), "key": KEY.to("meta")},
        ),
        "key has head_dim 3, query has 8": (ValueError, {"key": KEY[..., :3]}),
        "key_mask must be a bool tensor": (TypeError, {"key_mask": torch.ones(2, 11)}),
    }
    for message, (error, options) in wrong.items():
        with pytest.raises(error, match=message):
            function(**{"query": QUERY, "key": KEY} | own | options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_equal_those_on_arrays(dtype):
    weight = torch.linspace(0.5, 2, 32).reshape(4, 8)
    caches = [
        ra.RAttentionCache(
            2, 2, 8, 3, rope_theta=100.0, dtype=dtype, scale=0.3, local_norm_weight=weight.numpy()
        )
        for _ in range(2)
    ]
    key = KEY.to(DTYPES[dtype])
    for start in (0, 3):
        tokens = [t[:, :, start : start + 3] for t in (QUERY.to(DTYPES[dtype]), key, key * 2)]
        lengths, other = torch.tensor([3, 2 - start // 3]), weight * 2
        got = rt.rattention_step(*tokens, caches[0], lengths=lengths, linear_norm_weight=other)
        arrays = [to_numpy(t) for t in tokens]
        expected = ra.rattention_step(
            *arrays, caches[1], lengths=lengths.numpy(), linear_norm_weight=other.numpy()
        )
        assert got.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(to_numpy(got), expected)
    assert caches[0].to_bytes() == caches[1].to_bytes()


def test_steps_are_on_the_cpu():
    cache = ra.RAttentionCache(2, 2, 8, 3)
    with pytest.raises(ValueError, match="query must be on the CPU, got meta"):
        rt.rattention_step(*[QUERY[:, :2, :1].to("meta")] * 3, cache)
    with pytest.raises(TypeError, match=r"^write query\.float\(\): query has dtype torch\.float64"):
        rt.rattention_step(QUERY[:, :, :1].double(), KEY[:, :, :1], KEY[:, :, :1], cache)
    with pytest.raises(TypeError, match=r"^query must be a torch\.Tensor, got NoneType"):
        rt.rattention_step(None, KEY[:, :, :1], KEY[:, :, :1], cache)
    with pytest.raises(TypeError, match=r"^beta must be a torch\.Tensor, got NoneType"):
        rt.gated_delta_step(*[QUERY[:, :2, :1]] * 3, -torch.ones(2, 2, 1), None, ra.GatedDeltaCache(2, 2, 8))


def test_an_lse_of_16_bits_is_refused():
    with pytest.raises(
        TypeError, match=r"^lse must be torch\.float32 or torch\.float64, got torch\.bfloat16$"
    ):
        rt.attention_rows(QUERY, KEY, [0], lse=torch.zeros(2, 4, 9, dtype=torch.bfloat16))


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_transforms_are_refused(transform):
    with pytest.raises(NotImplementedError, match=r"inside a transform of torch\.func"):
        transform(lambda key: rt.attention_map(QUERY, key).sum())(KEY)


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_keys_equal_those_of_arrays(dtype):
    query, key = QUERY.to(DTYPES[dtype]), KEY.to(DTYPES[dtype])
    got = rt.attention_top_keys(query, key, 3, rows=(2, 9), causal=True)
    expected = ra.attention_top_keys(to_numpy(query), to_numpy(key), 3, rows=(2, 9), causal=True)
    assert isinstance(got, ra.TopKeys)
    assert (got.positions.dtype, got.weights.dtype) == (torch.int64, torch.float32)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    with pytest.raises(NotImplementedError, match="not differentiable, nor are rows and maps"):
        rt.attention_top_keys(query.clone().requires_grad_(), key).weights.sum().backward()
