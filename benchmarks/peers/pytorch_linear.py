"""PyTorch: residual and gated linear attention in chunks, compiled or not, and gradients by autograd."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import fastest, load, needs_compiler, output
from benchmarks.peers.pytorch_gradients import by_name
from benchmarks.peers.pytorch_windows import in_blocks
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs

CHUNKS = (64, 128, 256)
CHUNK, BLOCK_ROWS = 128, 256
"""Of RAttention, where not all are tried."""
EPS = 1e-8


def residual_linear(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """The fastest of two ways and several chunk lengths."""
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs]
    with needs_compiler(torch):
        calls = [partial(forward, *tensors) for forward in _forwards(setup, torch, window)]
        return Runner(fastest([torch.no_grad()(call) for call in calls]), output)


def residual_linear_gradients(setup: Setup, inputs: Inputs, grad: NDArray[Any], *, window: int) -> Runner:
    """Forward and backward pass, the fastest of two ways and several chunk lengths."""
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
    gradient = torch.from_numpy(grad)

    def candidate(forward: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(forward(*tensors), tensors, gradient)

    with needs_compiler(torch):
        return Runner(fastest([candidate(forward) for forward in _forwards(setup, torch, window)]), by_name)


def gated_linear(setup: Setup, inputs: Inputs, log_gate: NDArray[Any]) -> Runner:
    """The fastest of two ways and several chunk lengths."""
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in (*inputs, log_gate)]
    chunks = CHUNKS[:1] if setup.quick else CHUNKS
    forwards = [partial(gated_state, torch, chunk=chunk) for chunk in chunks]
    with needs_compiler(torch):
        if not setup.quick:
            forwards += [torch.compile(forward, dynamic=False) for forward in forwards]
        calls = [torch.no_grad()(partial(forward, *tensors)) for forward in forwards]
        return Runner(fastest(calls), output)


def gated_state(torch: ModuleType, query: Any, key: Any, value: Any, log_gate: Any, *, chunk: int) -> Any:
    """Chunk by chunk, as Mamba2 does it (arXiv 2405.21060, section 6)."""
    state = query.new_zeros(*query.shape[:2], query.shape[3], value.shape[3])
    outputs = []
    for first in range(0, query.shape[2], chunk):
        q, k, v = (x[:, :, first : first + chunk] for x in (query, key, value))
        total = log_gate[:, :, first : first + chunk].cumsum(-1)
        decay = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
        outputs.append((q @ k.mT * decay) @ v + total.exp()[..., None] * (q @ state))
        left = (total[..., -1:] - total).exp()[..., None]
        state = total[..., -1:, None].exp() * state + (k * left).mT @ v
    return torch.cat(outputs, 2) * query.shape[3] ** -0.5


def _forwards(setup: Setup, torch: ModuleType, window: int) -> list[Callable[..., Any]]:
    """All chunks at once compiled and as it is, and a running state, whose loop compilers only unroll."""
    running = [partial(running_state, torch, window=window, chunk=chunk) for chunk in CHUNKS]
    at_once = [partial(_chunked, torch, window=window, chunk=chunk) for chunk in CHUNKS]
    if setup.quick:
        return [running[0], at_once[0]]
    return running + at_once + [torch.compile(forward, dynamic=False) for forward in at_once]


def _chunked(torch: ModuleType, query: Any, key: Any, value: Any, *, window: int, chunk: int) -> Any:
    """Products within chunks, and a running sum over the chunks' states; all chunks at once.

    Keys and values come ``window + 1`` rows late, so that plain causal linear attention sees what the
    residual branch does. A length that is no multiple of the chunk is not needed here.
    """
    batch, heads, length, dim = query.shape
    pad = torch.nn.functional.pad
    late = (0, 0, window + 1, 0)
    phi_q, phi_k = features(torch, query), features(torch, key)
    shape = (batch, heads, length // chunk, chunk)
    q = phi_q.reshape(*shape, 2 * dim)
    k = pad(phi_k, late)[:, :, :length].reshape(*shape, 2 * dim)
    v = pad(value, late)[:, :, :length].reshape(*shape, value.shape[3])
    states = k.transpose(-1, -2) @ v
    before = states.cumsum(2) - states
    return ((q @ k.transpose(-1, -2)).tril() @ v + q @ before).reshape(batch, heads, length, -1)


def running_state(torch: ModuleType, query: Any, key: Any, value: Any, *, window: int, chunk: int) -> Any:
    """The same chunk by chunk: of all states only the last is kept."""
    batch, heads, length, dim = query.shape
    late = window + 1
    state = query.new_zeros(batch, heads, 2 * dim, value.shape[3])
    outputs = [query.new_zeros(batch, heads, min(late, length), value.shape[3])]
    for first in range(late, length, chunk):
        last = min(first + chunk, length)
        q = features(torch, query[:, :, first:last])
        k = features(torch, key[:, :, first - late : last - late])
        v = value[:, :, first - late : last - late]
        outputs.append((q @ k.mT).tril() @ v + q @ state)
        state = state + k.mT @ v
    return torch.cat(outputs, 2)


def features(torch: ModuleType, x: Any) -> Any:
    return torch.cat([x.softmax(-1), (-x).softmax(-1)], -1)


def rms_norm(rows: Any, weight: Any = None) -> Any:
    """Rows over their root mean square; `weight` is ``[heads, dim]``."""
    rows = rows.float()
    normed = rows * (rows.square().mean(-1, keepdim=True) + EPS).rsqrt()
    return normed if weight is None else normed * weight[:, None]


def rattention(setup: Setup, inputs: Inputs, *, window: int, rope_theta: float) -> Runner:
    """SDPA in blocks of rows and linear attention with a running state, each normalised, and their sum."""
    torch = load(setup)
    rotate = import_module("rattention.torch.rotary").rotary
    query, key, value = (torch.from_numpy(array) for array in inputs)
    attend = in_blocks(torch, inputs.length, window, BLOCK_ROWS, query.dtype)

    def call() -> Any:
        near = attend(*rotate(query, key, theta=rope_theta), value)
        far = running_state(torch, query, key, value, window=window, chunk=CHUNK)
        return rms_norm(near) + rms_norm(far)

    return Runner(torch.no_grad()(call), output)
