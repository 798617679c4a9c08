"""ONNX's own backend cases of `LinearAttention`, by the rules on tensors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.extras import needs

needs("torch")
pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnx.backend.test.case.node.linear_attention", reason="this onnx has no LinearAttention")

import numpy as np
import torch
from onnx import helper
from rattention.torch import gated_delta_rule, gated_linear_attention

from tests.onnx_nodes import heads_of, load_cases, rows_of

CASES = {case.name: case for case in load_cases() if case.model.graph.node[0].op_type == "LinearAttention"}
TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}


def asked(case: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs by their names in the operator, and attributes with their defaults."""
    (node,), (data,) = case.model.graph.node, case.data_sets
    names = ("query", "key", "value", "past_state", "decay", "beta")
    present = [name for name, given in zip(names, node.input, strict=False) if given]
    inputs = {name: torch.tensor(np.array(x)) for name, x in zip(present, data[0], strict=True)}
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return inputs, {"update_rule": b"gated_delta", "scale": 0.0} | attributes


def per_query_head(x: torch.Tensor, attributes: dict[str, Any]) -> torch.Tensor:
    """Numbers of key heads as those of query heads."""
    return x.repeat_interleave(attributes["q_num_heads"] // attributes["kv_num_heads"], dim=1)


def run(inputs: dict[str, Any], attributes: dict[str, Any]) -> list[torch.Tensor]:
    heads, kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
    query = heads_of(inputs["query"], heads)
    key, value = (heads_of(inputs[name], kv_heads) for name in ("key", "value"))
    decay = inputs["decay"].float() if "decay" in inputs else torch.zeros(*inputs["key"].shape[:2], kv_heads)
    gates = heads_of(decay, kv_heads)
    gates = gates[..., 0] if gates.shape[3] == 1 else gates
    past = inputs["past_state"].float() if "past_state" in inputs else None
    options: dict[str, Any] = {"scale": attributes["scale"] or None, "return_state": True}
    if attributes["update_rule"] in (b"linear", b"gated"):
        output, state = gated_linear_attention(query, key, value, gates, initial_state=past, **options)
        return [rows_of(output), state]
    beta = inputs["beta"].float().expand(*inputs["key"].shape[:2], kv_heads).transpose(1, 2)
    past = None if past is None else per_query_head(past, attributes)
    gates, beta = (per_query_head(x, attributes) for x in (gates, beta))
    output, state = gated_delta_rule(query, key, value, gates, beta, initial_state=past, **options)
    return [rows_of(output), state[:, :: heads // kv_heads]]


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    for got, expected in zip(run(*asked(CASES[name])), CASES[name].data_sets[0][1], strict=True):
        tolerance = TOLERANCE[expected.dtype.type]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got.float().numpy(), expected, rtol=tolerance, atol=tolerance)


def test_counts() -> None:
    counts = Counter(asked(case)[1]["update_rule"].decode() for case in CASES.values())
    assert counts["delta"] + counts["gated_delta"] > 0
    if len(CASES) == 14:  # onnx 1.23
        assert counts == {"linear": 2, "gated": 2, "delta": 1, "gated_delta": 9}
