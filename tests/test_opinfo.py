"""PyTorch's own samples of `scaled_dot_product_attention`, with gradients, by `rattention.torch.attention`.

float64 is the truth. The error is at most twice that of PyTorch's plain formula in the same dtype, or what
float32 rounds of the products that gradients are sums of: where one weight is almost 1 they nearly cancel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.extras import needs

needs("torch")
pytest.importorskip("expecttest", reason="needs expecttest, which PyTorch's samples are imported with")

import rattention.torch as rt
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.testing._internal.common_methods_invocations import op_db

(OPERATION,) = (op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DRAWS = 8
ROUNDING = 1
"""Unit of the last place, that is always allowed."""
LEAST_COMPARED = 13
"""Samples without dropout of torch 2.13."""


@cache
def samples(dtype: Any, seed: int) -> list[Any]:
    """PyTorch's own seed is the same every time."""
    torch.manual_seed(seed)
    return list(OPERATION.sample_inputs("cpu", dtype, set_seed=False))


def sample(number: int, dtype: Any, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Query, key and value, and the options, of one sample."""
    drawn = samples(dtype, seed)[number]
    return [drawn.input, *drawn.args], drawn.kwargs


def not_expressible(options: dict[str, Any]) -> str | None:
    return "dropout of weights" if options["dropout_p"] > 0 else None


def whole(inputs: list[Any]) -> list[Any]:
    """With all four axes: where all have three there are no heads, else what is missing is the batch."""
    if max(x.dim() for x in inputs) == 3:
        return [x.unsqueeze(1) for x in inputs]
    batch = max((x for x in inputs), key=lambda x: x.dim()).shape[0]
    return [x.expand(batch, *x.shape[-3:]) for x in inputs]


def by_torch(inputs: list[Any], options: dict[str, Any], backend: Any = SDPBackend.MATH) -> Any:
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(*inputs, **options)


def by_rattention(inputs: list[Any], options: dict[str, Any]) -> Any:
    """PyTorch's causal rows are aligned at the start."""
    output = rt.attention(
        *whole(inputs), causal=options["is_causal"], attn_mask=options.get("attn_mask"), query_offset=0
    )
    return output.squeeze(1) if inputs[1].dim() == 3 else output


def with_gradients(function: Any, inputs: list[Any], options: dict[str, Any], dtype: Any) -> list[Any]:
    """The output and the gradients of query, key and value; a mask has none."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    if "attn_mask" in options:
        options = options | {"attn_mask": options["attn_mask"].detach().to(dtype)}
    output = function(leaves, options)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, weights.to(inputs[0].dtype).to(dtype))]


def error(got: Any, exact: Any, products: float) -> float:
    """The mean square, in units of the last place of the largest number, or of the products that it sums."""
    unit = max(exact.abs().max() * torch.finfo(got.dtype).eps, products * torch.finfo(torch.float32).eps)
    return ((got.double() - exact) / unit).square().mean().item()


def errors(number: int, dtype: Any, seed: int) -> dict[str, list[float]]:
    """Of the output and every gradient, by each of the functions."""
    inputs, options = sample(number, dtype, seed)
    exact = with_gradients(by_torch, inputs, options, torch.float64)
    largest = [x.abs().max().item() for x in inputs]
    weight_gradient = largest[2] * inputs[2].shape[-1] ** 0.5
    products = [0.0, weight_gradient * largest[1], weight_gradient * largest[0], 0.0]
    found = {}
    for function in (by_torch, by_rattention):
        results = with_gradients(function, inputs, options, dtype)
        assert [(x.shape, x.dtype) for x in results] == [(x.shape, dtype) for x in exact]
        found[function.__name__] = [error(*each) for each in zip(results, exact, products, strict=True)]
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(samples(torch.float32, 0))))
def test_sample(number: int, dtype: Any) -> None:
    """Over several draws: scores up to 200 make the error of one a matter of luck."""
    _, options = sample(number, dtype, 0)
    if missing := not_expressible(options):
        pytest.skip(f"not expressible: {missing}")
    draws = [errors(number, dtype, seed) for seed in range(DRAWS)]
    ours, plain = (
        [(sum(column) / DRAWS) ** 0.5 for column in zip(*(d[name] for d in draws), strict=True)]
        for name in ("by_rattention", "by_torch")
    )
    for at, name in enumerate(("output", "query", "key", "value")):
        assert ours[at] <= max(2 * plain[at], ROUNDING), name


def test_enough_samples_are_compared() -> None:
    options = [drawn.kwargs for drawn in samples(torch.float32, 0)]
    compared = sum(not_expressible(o) is None for o in options)
    assert compared >= LEAST_COMPARED
    assert all(o["dropout_p"] > 0 for o in options if not_expressible(o))


def tensors(*shapes: tuple[int, ...], dtypes: tuple[Any, ...] = (torch.float32,) * 3) -> list[Any]:
    return [torch.ones(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


Q, KV = (2, 4, 3, 8), (2, 4, 6, 8)
REFUSED = {
    "another dtype of key": tensors(Q, KV, KV, dtypes=(torch.float32, torch.float16, torch.float32)),
    "another dtype of value": tensors(Q, KV, KV, dtypes=(torch.float32, torch.float32, torch.bfloat16)),
    "integers": tensors(Q, KV, KV, dtypes=(torch.int64,) * 3),
    "vectors": tensors((8,), (8,), (8,)),
    "another head_dim": tensors(Q, (2, 4, 6, 7), KV),
    "another length of value": tensors(Q, KV, (2, 4, 5, 8)),
    "another number of heads": tensors(Q, (2, 3, 6, 8), (2, 3, 6, 8)),
    "another batch": tensors(Q, (3, 4, 6, 8), (3, 4, 6, 8)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse(name: str) -> None:
    with pytest.raises((RuntimeError, ValueError, NotImplementedError)):
        by_torch(REFUSED[name], {})
    with pytest.raises((TypeError, ValueError)):
        rt.attention(*REFUSED[name])


@pytest.mark.parametrize(
    "mask", [torch.zeros(3, 5), torch.zeros(3, 2, 3, 6), torch.zeros(3, 6, dtype=torch.int64)]
)
def test_both_refuse_masks(mask: Any) -> None:
    inputs = tensors(Q, KV, KV)
    with pytest.raises(RuntimeError):
        by_torch(inputs, {"attn_mask": mask})
    with pytest.raises((TypeError, ValueError)):
        rt.attention(*inputs, attn_mask=mask)
