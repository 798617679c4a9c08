"""ONNX Runtime's attention operators, each as a model of one node."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def multi_head(setup: Setup, inputs: Inputs) -> Runner:
    """``MultiHeadAttention`` on ``[batch, length, heads * head_dim]``, its fastest layout."""
    heads = inputs.query.shape[1]
    feeds = {name: _packed(array) for name, array in zip("qkv", inputs, strict=True)}
    return _runner(setup, "MultiHeadAttention", feeds, {"out": feeds["q"].shape}, heads, num_heads=heads)


def grouped_query(setup: Setup, inputs: Inputs) -> Runner:
    """``GroupQueryAttention``, which is always causal and also returns a cache of keys and values."""
    heads = inputs.query.shape[1]
    feeds = {name: _packed(array) for name, array in zip("qkv", inputs, strict=True)}
    feeds |= {"last": np.array([inputs.length - 1], np.int32), "total": np.array([inputs.length], np.int32)}
    outputs = {"out": feeds["q"].shape, "keys": inputs.key.shape, "values": inputs.value.shape}
    return _runner(setup, "GroupQueryAttention", feeds, outputs, heads, num_heads=heads, kv_num_heads=heads)


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
    **attributes: int,
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
    attributes: dict[str, int],
) -> bytes:
    onnx = import_module("onnx")
    helper, float32, int32 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    # GroupQueryAttention takes a past of keys and values between the values and the lengths: none here.
    names = [*"qkv", *([""] * 2 if len(feeds) > 3 else []), *list(feeds)[3:]]
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
