"""PyTorch: causal sliding windows, by scaled_dot_product_attention in blocks of rows and by FlexAttention."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import fastest, load, needs_compiler, output, tensor
from benchmarks.peers.pytorch_gradients import by_name
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs

ROWS = (128, 256, 512)
"""Query rows of a block. Of FlexAttention 32 and 64 are slower, too, wherever they were tried."""


def sdpa(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """SDPA of blocks of query rows and the keys that they see, the fastest of three block lengths."""
    torch = load(setup)
    tensors = [tensor(torch, array) for array in inputs]

    def candidate(rows: int) -> Callable[[], Any]:
        attend = in_blocks(torch, inputs.length, window, rows, tensors[0].dtype)
        return torch.no_grad()(lambda: attend(*tensors))

    return Runner(fastest([candidate(rows) for rows in _rows(setup)]), output)


def sdpa_backward(setup: Setup, inputs: Inputs, grad: NDArray[Any], *, window: int) -> Runner:
    """The gradients of the same, the forward pass done beforehand."""
    torch = load(setup)
    gradient = torch.from_numpy(grad)

    def candidate(rows: int) -> Callable[[], Any]:
        tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
        result = in_blocks(torch, inputs.length, window, rows, torch.float32)(*tensors)
        return lambda: torch.autograd.grad(result, tensors, gradient, retain_graph=True)

    return Runner(fastest([candidate(rows) for rows in _rows(setup)]), by_name)


def in_blocks(torch: ModuleType, length: int, window: int, rows: int, dtype: Any) -> Callable[..., Any]:
    """A function of query, key and value; its masks are made here.

    Masks are floating: boolean ones, which every call converts, are slower.
    """
    attend = torch.nn.functional.scaled_dot_product_attention
    blocks = [(first, max(0, first - window), min(first + rows, length)) for first in range(0, length, rows)]
    inner = window_mask(torch, min(rows, length), window, window).to(dtype)
    masks: dict[tuple[int, int], Any] = {}
    for first, begin, last in blocks:
        shape = (last - first, last - begin)
        if shape not in masks:
            skipped = window - (first - begin)
            masks[shape] = inner[: shape[0], skipped : skipped + shape[1]].contiguous()

    def call(query: Any, key: Any, value: Any) -> Any:
        parts = [
            attend(
                query[:, :, first:last],
                key[:, :, begin:last],
                value[:, :, begin:last],
                attn_mask=masks[last - first, last - begin],
            )
            for first, begin, last in blocks
        ]
        return torch.cat(parts, 2)

    return call


def window_mask(torch: ModuleType, length: int, window: int, before: int = 0) -> Any:
    """Of rows [0, length) and keys [-before, length): 0 where a row sees the key, else -inf."""
    row = torch.arange(length, dtype=torch.int32)
    distance = row[:, None] - torch.arange(-before, length, dtype=torch.int32)
    return torch.zeros(distance.shape).masked_fill_((distance < 0) | (distance > window), -torch.inf)


def flex(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """Compiled FlexAttention with a block mask, the fastest of three block lengths."""
    torch = load(setup)
    flexible = import_module("torch.nn.attention.flex_attention")
    tensors = [tensor(torch, array) for array in inputs]

    def visible(_batch: Any, _head: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (i - j <= window)

    def candidate(rows: int) -> Callable[[], Any]:
        length = inputs.length
        blocks = flexible.create_block_mask(
            visible, None, None, length, length, device="cpu", BLOCK_SIZE=rows
        )
        attend = torch.compile(flexible.flex_attention, dynamic=False)
        return torch.no_grad()(lambda: attend(*tensors, block_mask=blocks))

    with needs_compiler(torch):
        return Runner(fastest([candidate(rows) for rows in _rows(setup)]), output)


def _rows(setup: Setup) -> tuple[int, ...]:
    return ROWS[:1] if setup.quick else ROWS
