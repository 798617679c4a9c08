"""OpenVINO's scaled_dot_product_attention on the CPU plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def sdpa(setup: Setup, inputs: Inputs) -> Runner:
    openvino = import_module("openvino")
    operators = import_module("openvino.opset13")
    parameters = [operators.parameter(list(array.shape), np.float32) for array in inputs]
    model = openvino.Model([operators.scaled_dot_product_attention(*parameters, causal=False)], parameters)
    request = openvino.Core().compile_model(model, "CPU", _options(setup)).create_infer_request()
    for i, array in enumerate(inputs):
        request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))

    def answer(_: Any) -> Answer:
        return {"output": request.get_output_tensor(0).data}

    return Runner(request.infer, answer)


def _options(setup: Setup) -> dict[str, Any]:
    # Left alone, it computes in bfloat16 where the CPU can, which is another answer.
    return {
        "INFERENCE_NUM_THREADS": setup.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
