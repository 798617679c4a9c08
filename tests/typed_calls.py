"""What type checkers make of calls as users write them; `test_typing` runs mypy over this file.

With ``warn_unused_ignores`` each ``type: ignore`` is a test, too: there is an error.
"""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import rattention as ra
import rattention.torch as rt
import torch
from numpy.typing import NDArray
from rattention import AttentionMetrics, AttentionResult, LinearResult, MetricOptions
from torch import Tensor

Array = NDArray[Any]


def softmax_family(q: NDArray[np.float32], mass: Array, flag: bool, asked: MetricOptions | None) -> None:
    assert_type(ra.attention(q, q, q), Array)
    assert_type(ra.attention(q, q, q, causal=True, window=(3, None), scale=0.1, return_lse=False), Array)
    assert_type(ra.attention(q, q, q, return_lse=True), AttentionResult)
    assert_type(ra.attention(q, q, q, metrics=MetricOptions()).metrics, AttentionMetrics | None)
    assert_type(ra.attention(q, q, q, metrics=asked), Array | AttentionResult)
    assert_type(ra.attention(q, q, q, return_lse=flag), Array | AttentionResult)
    assert_type(ra.attention(q, q, q, return_lse=True, metrics=asked), AttentionResult)
    assert_type(ra.attention(q, q, q, return_lse=flag, metrics=asked), Array | AttentionResult)
    assert_type(ra.attention(q, q, q, return_lse=False, metrics=MetricOptions()), AttentionResult)
    assert_type(ra.attention(q, q, q, return_lse=False, metrics=None), Array)
    assert_type(ra.gravitational_attention(q, q, q, mass, mass, return_lse=flag), Array | AttentionResult)
    assert_type(ra.gravitational_attention(q, q, q, mass, mass, metrics=asked), Array | AttentionResult)
    assert_type(ra.gravitational_attention(q, q, q, mass, mass, gravity=2.0), Array)
    assert_type(ra.gravitational_attention(q, q, q, mass, mass, return_lse=True), AttentionResult)
    output, lse, metrics = ra.attention(q, q, q, return_lse=True)
    assert_type(output, Array)
    assert_type(lse, Array | None)
    assert_type(metrics, AttentionMetrics | None)
    assert_type(ra.attention_metrics(q, q, causal=True).entropy, Array)
    assert_type(ra.attention_top_keys(q, q, 4).positions, Array)
    ra.attention(q, q, q, casual=True)  # type: ignore[call-overload]
    ra.attention(q, q, q, scale="1")  # type: ignore[call-overload]
    ra.attention(q, q, q, True)  # type: ignore[call-overload]


def linear_family(q: NDArray[np.float32], flag: bool) -> None:
    assert_type(ra.rattention(q, q, q, window=3, rope_theta=1e4), Array)
    assert_type(ra.residual_linear_attention(q, q, q, window=3, return_state=True), LinearResult)
    assert_type(ra.gated_linear_attention(q, q, q, q[..., 0], scale=1.0, return_state=True), LinearResult)
    assert_type(ra.rattention(q, q, q, window=3, return_state=flag), Array | LinearResult)
    output, state = ra.rattention(q, q, q, window=3, return_state=True)
    assert_type(output, Array)
    assert_type(state, Array)
    cache = ra.RAttentionCache(1, 2, 8, 3, scale=0.1)
    assert_type(ra.rattention_step(q, q, q, cache), Array)
    ra.rattention(q, q, q)  # type: ignore[call-overload]


def tensors(t: Tensor, flag: bool) -> None:
    assert_type(rt.attention(t, t, t, causal=True), Tensor)
    assert_type(rt.attention(t, t, t, return_lse=True), AttentionResult[Tensor])
    assert_type(rt.attention(t, t, t, return_lse=True).lse, Tensor | None)
    assert_type(rt.attention(t, t, t, return_lse=flag), Tensor | AttentionResult[Tensor])
    assert_type(rt.gravitational_attention(t, t, t, t, t, gravity=t), Tensor)
    assert_type(rt.rattention(t, t, t, window=3, local_norm_weight=t), Tensor)
    assert_type(rt.residual_linear_attention(t, t, t, window=3, return_state=True), LinearResult[Tensor])
    assert_type(rt.gated_linear_attention(t, t, t, t[..., 0]), Tensor)
    assert_type(rt.scaled_dot_product_attention(t, t, t, None, 0.0, True), Tensor)
    assert_type(rt.attention_metrics(t, t).entropy, Tensor)
    assert_type(rt.attention_rows(t, t, [0, 1]), Tensor)
    assert_type(rt.attention_map(t, t, shape=(3, 4), lse=t), Tensor)
    assert_type(rt.attention_segments(t, t, [0, 3], t), Tensor)
    assert_type(rt.attention_top_keys(t, t, 4, rows=(0, 2)).weights, Tensor)
    assert_type(rt.attention_distances(t, t, [0, 3], causal=True), Tensor)
    assert_type(rt.rotary(t), Tensor)
    rt.attention(t, t, t, casual=True)  # type: ignore[call-overload]
    rt.attention_rows(t, t, [0], causal=1)  # type: ignore[arg-type]


def modules(model: torch.nn.Module) -> None:
    with ra.capture(model) as seen:
        assert_type(seen[0].query, Array)
