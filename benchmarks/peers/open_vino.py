"""OpenVINO's scaled_dot_product_attention on the CPU plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer

ROWS = 256
"""Query rows of a block, under a window."""


def sdpa(setup: Setup, inputs: Inputs, *, causal: bool = False) -> Runner:
    """Of float32 or bfloat16."""
    operators = import_module("openvino.opset13")

    def graph(query: Any, key: Any, value: Any) -> Any:
        return operators.scaled_dot_product_attention(query, key, value, causal=causal)

    return _runner(setup, inputs, graph)


def window(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """SDPA over blocks of query rows and the keys that they see, in one graph: it has no windows itself."""
    operators = import_module("openvino.opset13")

    def rows_of(x: Any, first: int, last: int) -> Any:
        bounds = [np.array([number], np.int64) for number in (first, last, 1, 2)]
        return operators.slice(x, *bounds)

    def graph(query: Any, key: Any, value: Any) -> Any:
        parts = []
        for first in range(0, inputs.length, ROWS):
            begin, last = max(0, first - window), min(first + ROWS, inputs.length)
            keys, values = (rows_of(x, begin, last) for x in (key, value))
            distance = np.arange(first, last)[:, None] - np.arange(begin, last)
            hidden = (distance < 0) | (distance > window)
            mask = operators.constant(np.where(hidden, -np.inf, 0), _element(inputs))
            parts.append(
                operators.scaled_dot_product_attention(
                    rows_of(query, first, last), keys, values, mask, causal=False
                )
            )
        return operators.concat(parts, 2)

    return _runner(setup, inputs, graph)


def _runner(setup: Setup, inputs: Inputs, graph: Any) -> Runner:
    openvino, operators = import_module("openvino"), import_module("openvino.opset13")
    element = _element(inputs)
    bfloat16 = element == openvino.Type.bf16
    parameters = [operators.parameter(list(array.shape), element) for array in inputs]
    model = openvino.Model([graph(*parameters)], parameters)
    options = {
        "INFERENCE_NUM_THREADS": setup.threads,
        # Left alone, it computes in bfloat16 where the CPU can, which of float32 is another answer.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    for i, array in enumerate(inputs):
        shared = openvino.Tensor(array.view(np.uint16) if bfloat16 else array, list(array.shape), element)
        request.set_input_tensor(i, shared)

    def answer(_: Any) -> Answer:
        result = request.get_output_tensor(0).data
        if bfloat16:  # which NumPy is shown as another format of 16 bits
            result = (result.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return {"output": result}

    return Runner(request.infer, answer)


def _element(inputs: Inputs) -> Any:
    types = import_module("openvino").Type
    return types.bf16 if inputs.query.dtype.name == "bfloat16" else types.f32
