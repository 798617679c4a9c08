"""One head of a layer alone: its queries, keys and the options that are its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rattention.inspect.hooks import LayerAttention

AXES = {"sinks": 0, "relative_bias": 0, "gravity": 0, "exponent": 0, "attn_mask": -3, "query_mass": 1}
"""Where heads stand in options that have a number for each."""


def of_head(layer: LayerAttention, head: int) -> LayerAttention:
    """Head `head` of `layer`, as a layer of one head."""
    groups = layer.query.shape[1] // layer.key.shape[1]
    own = {name: _own(name, value, head, groups) for name, value in layer.options.items()}
    pair = layer.query[:, head : head + 1], layer.key[:, head // groups : head // groups + 1]
    lse = None if layer.lse is None else layer.lse[:, head : head + 1]
    return replace(layer, query=pair[0], key=pair[1], options=own, call=None, lse=lse)


def _own(name: str, value: Any, head: int, groups: int) -> Any:
    if name == "key_mass":
        return _at(value, 1, head // groups)
    if name == "log_discount":
        return _at(value, 0 if np.ndim(value) == 1 else 1, head)
    return _at(value, AXES[name], head) if name in AXES else value


def _at(value: Any, axis: int, head: int) -> Any:
    """`value` at `head` of an axis; whole where it has no such axis, or one number for all."""
    array = np.asarray(value)
    if array.ndim <= (axis if axis >= 0 else -axis - 1) or array.shape[axis] == 1:
        return value
    return np.take(array, [head], axis=axis)
