"""PyTorch: residual linear attention in chunks, compiled, and its gradients by autograd."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import compiled, load, needs_compiler, output
from benchmarks.peers.pytorch_gradients import by_name
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs

CHUNKS = (64, 128, 256)
TRIALS = 3


def residual_linear(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """The fastest of three chunk lengths, compiled (except in a quick run, which is about answers)."""
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs]

    def candidate(chunk: int) -> Callable[[], Any]:
        forward = compiled(setup, torch, partial(_chunked, torch, window=window, chunk=chunk))
        return torch.no_grad()(lambda: forward(*tensors))

    with needs_compiler(torch):
        return Runner(_fastest([candidate(chunk) for chunk in _chunks(setup)]), output)


def residual_linear_gradients(setup: Setup, inputs: Inputs, grad: NDArray[Any], *, window: int) -> Runner:
    """Forward and backward pass, the fastest of three chunk lengths, compiled or not."""
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
    gradient = torch.from_numpy(grad)

    def candidate(chunk: int, compile_it: bool) -> Callable[[], Any]:
        forward = partial(_chunked, torch, window=window, chunk=chunk)
        forward = compiled(setup, torch, forward) if compile_it else forward
        return lambda: torch.autograd.grad(forward(*tensors), tensors, gradient)

    ways = [(chunk, way) for chunk in _chunks(setup) for way in ((False,) if setup.quick else (False, True))]
    with needs_compiler(torch):
        return Runner(_fastest([candidate(*way) for way in ways]), by_name)


def _chunks(setup: Setup) -> tuple[int, ...]:
    return CHUNKS[:1] if setup.quick else CHUNKS


def _fastest(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    return calls[0] if len(calls) == 1 else min(calls, key=_seconds)


def _seconds(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(TRIALS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)


def _chunked(torch: ModuleType, query: Any, key: Any, value: Any, *, window: int, chunk: int) -> Any:
    """Products within chunks, and a running sum over the chunks' states; all chunks at once.

    Keys and values come ``window + 1`` rows late, so that plain causal linear attention sees what the
    residual branch does. A length that is no multiple of the chunk is not needed here.
    """
    batch, heads, length, dim = query.shape
    pad = torch.nn.functional.pad
    late = (0, 0, window + 1, 0)
    features = [torch.cat([x.softmax(-1), (-x).softmax(-1)], -1) for x in (query, key)]
    shape = (batch, heads, length // chunk, chunk)
    q = features[0].reshape(*shape, 2 * dim)
    k = pad(features[1], late)[:, :, :length].reshape(*shape, 2 * dim)
    v = pad(value, late)[:, :, :length].reshape(*shape, value.shape[3])
    states = k.transpose(-1, -2) @ v
    before = states.cumsum(2) - states
    return ((q @ k.transpose(-1, -2)).tril() @ v + q @ before).reshape(batch, heads, length, -1)
