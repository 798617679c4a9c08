"""The operators of ONNX that the public functions express, and the backend cases that come with `onnx`.

A node of `Attention` (opset 23 to 25), `LinearAttention` (27) or `RotaryEmbedding` (23) becomes calls of
`rattention`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import rattention as ra

RAW, CAPPED, WITH_BIAS, WEIGHTS = range(4)
"""What `qk_matmul_output` holds, by `qk_matmul_output_mode`."""


def load_cases() -> list[Any]:
    """The cases of the three operators; those named "expanded" have the same data for simpler ones.

    Their inputs are drawn when their modules are imported: from a fixed seed here.
    """
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    for name in ("attention", "linear_attention", "rotaryembedding"):
        import_module(f"onnx.backend.test.case.node.{name}")
    np.random.set_state(state)  # noqa: NPY002
    found = import_module("onnx.backend.test.case.node")._NodeTestCases
    return [case for case in found if case.model.graph.node[0].op_type in OPERATORS and is_direct(case)]


def is_direct(case: Any) -> bool:
    return len(case.model.graph.node) == 1 and "_expanded" not in case.name


def run(case: Any) -> list[tuple[str, Any, Any]]:
    """``(name, got, expected)`` of every output of a case."""
    helper = import_module("onnx").helper
    (node,), (data,) = case.model.graph.node, case.data_sets
    names = [name for name in node.input if name]
    inputs = dict(zip(names, (np.array(array) for array in data[0]), strict=True))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    wanted = [name for name in node.output if name]
    got = OPERATORS[node.op_type](inputs, attributes, wanted)
    return [(name, got[name], expected) for name, expected in zip(wanted, data[1], strict=True)]


def attention(inputs: dict[str, Any], attributes: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    query, key, value = (inputs[name] for name in "QKV")
    flat = query.ndim == 3
    if flat:
        query = heads_of(query, attributes["q_num_heads"])
        key, value = (heads_of(x, attributes["kv_num_heads"]) for x in (key, value))
    past = inputs["past_key"].shape[2] if "past_key" in inputs else 0
    if past:
        key = np.concatenate([inputs["past_key"], key], axis=2)
        value = np.concatenate([inputs["past_value"], value], axis=2)
    softcap = attributes.get("softcap", 0.0)
    score: dict[str, Any] = {"scale": attributes.get("scale")} | ({"softcap": softcap} if softcap else {})
    masks = {"attn_mask": padded_mask(inputs.get("attn_mask"), key.shape[2])} | visible(attributes)
    # Lengths of its own for every batch entry are positions of their own.
    entries = [slice(b, b + 1) for b in range(len(query))] if "nonpad_kv_seqlen" in inputs else [slice(None)]
    mode = attributes.get("qk_matmul_output_mode", RAW)
    made: dict[str, list[Any]] = {"Y": [], "qk_matmul_output": []}
    for entry in entries:
        own = masks | positions(inputs, entry, past, query.shape[2], key.shape[2])
        mask = masks["attn_mask"]
        own["attn_mask"] = mask[entry] if mask is not None and mask.ndim == 4 and len(mask) > 1 else mask
        rows = query[entry], key[entry], value[entry]
        made["Y"].append(ra.attention(*rows, **score, **own))
        if "qk_matmul_output" in wanted:
            made["qk_matmul_output"].append(scores(*rows, mode, score, own))
    results = {name: np.concatenate(parts) for name, parts in made.items() if parts}
    results["Y"] = rows_of(results["Y"]) if flat else results["Y"]
    return results | {"present_key": key, "present_value": value}


def visible(attributes: dict[str, Any]) -> dict[str, Any]:
    sides = [attributes.get(f"{side}_window_size", -1) for side in ("left", "right")]
    return {
        "causal": bool(attributes.get("is_causal", 0)),
        "window": None if sides == [-1, -1] else tuple(None if side < 0 else side for side in sides),
    }


def positions(inputs: dict[str, Any], entry: slice, past: int, rows: int, keys: int) -> dict[str, Any]:
    """Rows follow the past; where keys are padded, the last row is at the last of them that counts."""
    if "nonpad_kv_seqlen" not in inputs:
        return {"query_offset": past}
    (valid,) = inputs["nonpad_kv_seqlen"][entry]
    return {"query_offset": int(valid) - rows, "key_mask": np.arange(keys)[None] < valid}


def padded_mask(mask: Any, keys: int) -> Any:
    """Keys beyond the mask are hidden."""
    if mask is None:
        return None
    beyond = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
    return np.pad(mask, beyond, constant_values=mask.dtype.type(False if mask.dtype == bool else -np.inf))


def scores(query: Any, key: Any, value: Any, mode: int, score: dict[str, Any], masks: dict[str, Any]) -> Any:
    """Weights, or scores: the weights' logarithm, plus that of their denominator."""
    if mode in (RAW, CAPPED):
        masks = {}
    if mode == RAW:
        score = {"scale": score["scale"]}
    weights = ra.attention_rows(query, key, np.arange(query.shape[2]), **score, **masks)
    if mode == WEIGHTS:
        return weights
    lse = ra.attention(query, key, value, return_lse=True, **score, **masks).lse
    with np.errstate(divide="ignore"):
        return np.log(weights) + lse[..., None]


def linear_attention(inputs: dict[str, Any], attributes: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    rule = attributes.get("update_rule", b"gated_delta").decode()
    heads, kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
    query = heads_of(inputs["query"], heads)
    key, value = (heads_of(inputs[name], kv_heads) for name in ("key", "value"))
    decay = inputs.get("decay", np.zeros((*inputs["key"].shape[:2], kv_heads), np.float32))
    gates = heads_of(decay, kv_heads)  # one per head, or one per channel
    gates = gates[..., 0] if gates.shape[3] == 1 else gates
    options = {"scale": attributes.get("scale", 0.0) or None, "return_state": True}
    past = inputs.get("past_state")
    past = None if past is None else past.astype(np.float32)
    if rule in ("linear", "gated"):
        output, state = ra.gated_linear_attention(query, key, value, gates, initial_state=past, **options)
        return {"output": rows_of(output), "present_state": state}
    group = heads // kv_heads  # with betas every query head has gates and a state of its own
    beta = np.broadcast_to(inputs["beta"], (*inputs["key"].shape[:2], kv_heads)).swapaxes(1, 2)
    gates, beta = (np.repeat(x, group, axis=1) for x in (gates, beta))
    past = None if past is None else np.repeat(past, group, axis=1)
    output, state = ra.gated_delta_rule(query, key, value, gates, beta, initial_state=past, **options)
    return {"output": rows_of(output), "present_state": state[:, ::group]}


def rotary_embedding(inputs: dict[str, Any], attributes: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    x = inputs["input"]
    flat = x.ndim == 3
    at = inputs.get("position_ids", slice(None))
    output = ra.rotary(
        heads_of(x, attributes["num_heads"]) if flat else x,
        interleaved=bool(attributes.get("interleaved", 0)),
        dims=attributes.get("rotary_embedding_dim", 0) or None,
        cos=inputs["cos_cache"][at],
        sin=inputs["sin_cache"][at],
    )
    return {"output": rows_of(output) if flat else output}


def heads_of(x: Any, heads: int) -> Any:
    """``[batch, heads, length, dim]`` of ``[batch, length, heads * dim]``."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def rows_of(x: Any) -> Any:
    return x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1)


OPERATORS = {
    "Attention": attention,
    "LinearAttention": linear_attention,
    "RotaryEmbedding": rotary_embedding,
}
