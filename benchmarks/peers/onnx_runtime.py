"""ONNX Runtime's attention operators, each as a model of one node."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from rattention.mechanisms.residual_linear import reference_features

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def multi_head(setup: Setup, inputs: Inputs, *, causal: bool = False) -> Runner:
    """``MultiHeadAttention`` on ``[batch, length, heads * head_dim]``, its fastest layout."""
    heads = inputs.query.shape[1]
    feeds = _feeds(inputs)
    outputs = {"out": feeds["q"].shape}
    options = {"num_heads": heads, "unidirectional": int(causal)}
    return _runner(setup, "MultiHeadAttention", feeds, outputs, heads, **options)


def grouped_query(setup: Setup, inputs: Inputs, *, window: int = -1) -> Runner:
    """``GroupQueryAttention``, which is always causal and also returns a cache of keys and values."""
    heads = inputs.query.shape[1]
    feeds = _feeds(inputs)
    feeds |= {"last": np.array([inputs.length - 1], np.int32), "total": np.array([inputs.length], np.int32)}
    outputs = {"out": feeds["q"].shape, "keys": inputs.key.shape, "values": inputs.value.shape}
    options = {
        "num_heads": heads,
        "kv_num_heads": heads,
        "local_window_size": window + 1 if window >= 0 else -1,
    }
    return _runner(setup, "GroupQueryAttention", feeds, outputs, heads, **options)


def residual_linear(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """``LinearAttention`` of feature maps made beforehand, keys and values ``window + 1`` rows late."""
    heads, dim = inputs.query.shape[1], inputs.query.shape[3]
    maps = [reference_features(rows, "softmax") for rows in (inputs.query, inputs.key)]
    late = [maps[0], *(np.zeros_like(rows) for rows in (maps[1], inputs.value))]
    for to, rows in zip(late[1:], (maps[1], inputs.value), strict=True):
        to[:, :, window + 1 :] = rows[:, :, : -window - 1]
    feeds = {name: _packed(array.astype(np.float32)) for name, array in zip("qkv", late, strict=True)}
    outputs = {"out": feeds["v"].shape, "state": (1, heads, 2 * dim, inputs.value.shape[3])}
    options = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "linear", "scale": 1.0}
    return _runner(setup, "LinearAttention", feeds, outputs, heads, **options)


def gated_linear(setup: Setup, inputs: Inputs, log_gate: NDArray[np.float32]) -> Runner:
    """``LinearAttention`` with a decay per head and token, or per channel as well."""
    heads, dim = inputs.query.shape[1], inputs.query.shape[3]
    feeds = _feeds(inputs) | {"decay": _packed(log_gate if log_gate.ndim == 4 else log_gate[..., None])}
    outputs = {"out": feeds["v"].shape, "state": (1, heads, dim, inputs.value.shape[3])}
    options = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "gated", "scale": dim**-0.5}
    return _runner(setup, "LinearAttention", feeds, outputs, heads, **options)


def gated_delta(
    setup: Setup, inputs: Inputs, log_gate: NDArray[np.float32], beta: NDArray[np.float32]
) -> Runner:
    """``LinearAttention`` with the delta rule, which wants rows that are normalised; a decay per head and
    token, or per channel as well."""
    heads, dim = inputs.query.shape[1], inputs.query.shape[3]
    unit = [x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + np.float32(1e-6)) for x in inputs[:2]]
    feeds = {name: _packed(array) for name, array in zip("qkv", (*unit, inputs.value), strict=True)}
    feeds["decay"] = _packed(log_gate if log_gate.ndim == 4 else log_gate[..., None])
    feeds["beta"] = _packed(beta[..., None])
    outputs = {"out": feeds["v"].shape, "state": (1, heads, dim, inputs.value.shape[3])}
    options = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "gated_delta", "scale": dim**-0.5}
    return _runner(setup, "LinearAttention", feeds, outputs, heads, **options)


def _feeds(inputs: Inputs) -> dict[str, NDArray[Any]]:
    return {name: _packed(array) for name, array in zip("qkv", inputs, strict=True)}


def _packed(array: NDArray[np.float32]) -> NDArray[Any]:
    batch, _, length, _ = array.shape
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(batch, length, -1)


def _unpacked(array: NDArray[Any], heads: int) -> NDArray[Any]:
    batch, length, width = array.shape
    return array.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def _runner(
    setup: Setup,
    operator: str,
    feeds: dict[str, NDArray[Any]],
    outputs: dict[str, tuple[int, ...]],
    heads: int,
    **attributes: int | float | str,
) -> Runner:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    session = runtime.InferenceSession(
        _model(operator, feeds, outputs, attributes), options, providers=["CPUExecutionProvider"]
    )
    bound = {name: runtime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}

    def answer(results: Any) -> Answer:
        return {"output": _unpacked(results[0].numpy(), heads)}

    return Runner(lambda: session.run_with_ort_values(list(outputs), bound), answer)


def _model(
    operator: str,
    feeds: dict[str, NDArray[Any]],
    outputs: dict[str, tuple[int, ...]],
    attributes: dict[str, int | float | str],
) -> bytes:
    onnx = import_module("onnx")
    helper, float32, int32 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    # Between the values and the rest GroupQueryAttention takes a past of keys and values, LinearAttention a
    # state: none here.
    past = [""] * (1 if "decay" in feeds else 2)
    names = [*"qkv", *(past if len(feeds) > 3 else []), *list(feeds)[3:]]
    node = helper.make_node(operator, names, list(outputs), domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        operator,
        [
            helper.make_tensor_value_info(n, int32 if a.dtype == np.int32 else float32, a.shape)
            for n, a in feeds.items()
        ],
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
