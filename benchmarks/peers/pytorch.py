"""PyTorch: scaled_dot_product_attention, and FlexAttention under torch.compile."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rattention.mechanisms.pooled_map import MAP_SHAPE, bin_edges

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def load(setup: Setup) -> ModuleType:
    """Torch with our number of threads."""
    torch = import_module("torch")
    torch.set_num_threads(setup.threads)
    return torch


def sdpa(setup: Setup, inputs: Inputs, *, causal: bool = False) -> Runner:
    """Inputs may be bfloat16."""
    torch = load(setup)
    tensors = [_tensor(torch, array) for array in inputs]
    attend = torch.nn.functional.scaled_dot_product_attention
    return Runner(lambda: attend(*tensors, is_causal=causal), output)


def sdpa_steps(setup: Setup, inputs: Inputs, steps: int) -> Runner:
    """Attention of the last token to all of them, several times over."""
    torch = load(setup)
    query, key, value = (_tensor(torch, array) for array in inputs)
    attend, token = torch.nn.functional.scaled_dot_product_attention, query[:, :, -1:].contiguous()

    def call() -> Any:
        for _ in range(steps):
            result = attend(token, key, value)
        return result

    return Runner(call, output)


def masked_sdpa(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """SDPA with a causal window as a floating mask; a boolean one, converted in every call, is slower."""
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs]
    mask = window_mask(torch, inputs.length, window)
    attend = torch.nn.functional.scaled_dot_product_attention
    return Runner(lambda: attend(*tensors, attn_mask=mask), output)


def window_mask(torch: ModuleType, length: int, window: int) -> Any:
    position = torch.arange(length, dtype=torch.int32)
    distance = position[:, None] - position[None, :]
    return torch.zeros(length, length).masked_fill_((distance < 0) | (distance > window), -torch.inf)


def flex(setup: Setup, inputs: Inputs, *, window: int) -> Runner:
    """Compiled FlexAttention with a block mask. The default blocks of 128 are fastest of 32, 64, 128, 256."""
    torch = load(setup)
    flexible = import_module("torch.nn.attention.flex_attention")

    def visible(_batch: Any, _head: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (i - j <= window)

    blocks = flexible.create_block_mask(visible, None, None, inputs.length, inputs.length, device="cpu")
    attend = torch.compile(flexible.flex_attention, dynamic=False)
    tensors = [torch.from_numpy(array) for array in inputs]
    with needs_compiler(torch):
        attend(*tensors, block_mask=blocks)
    return Runner(lambda: attend(*tensors, block_mask=blocks), output)


def pooled_map(setup: Setup, inputs: Inputs) -> Runner:
    """The causal map pooled to `MAP_SHAPE`: one bin of query rows at a time, its weights in memory."""
    torch = load(setup)
    query, key = (torch.from_numpy(array) for array in inputs[:2])
    query = query * query.shape[3] ** -0.5
    down, across = (torch.from_numpy(bin_edges(0, inputs.length, most)) for most in MAP_SHAPE)
    bins = torch.arange(len(across) - 1).repeat_interleave(across.diff())
    cells = down.diff()[:, None] * across.diff()

    def call() -> Any:
        sums = torch.zeros(*query.shape[:2], len(down) - 1, len(across) - 1)
        for r, (first, last) in enumerate(itertools.pairwise(down.tolist())):
            scores = query[:, :, first:last] @ key[:, :, :last].transpose(2, 3)
            future = torch.arange(last) > torch.arange(first, last)[:, None]
            weights = scores.masked_fill_(future, -torch.inf).softmax(-1)
            sums[:, :, r].index_add_(-1, bins[:last], weights.sum(2))
        return sums / cells

    return Runner(call, lambda means: {"map": means.numpy()})


def _tensor(torch: ModuleType, array: Any) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


@contextmanager
def needs_compiler(torch: ModuleType) -> Iterator[None]:
    """ImportError, so that the peer counts as missing, where torch.compile has no C++ compiler."""
    try:
        yield
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = str(error).partition("\n")[0]
        raise ImportError(f"torch.compile needs a C++ compiler that works ({reason})") from error


def compiled(setup: Setup, torch: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under torch.compile; in a quick run, which is about answers, as it is."""
    return function if setup.quick else torch.compile(function, dynamic=False)  # type: ignore[no-any-return]


def output(tensor: Any) -> Answer:
    """The answer of a call that returns the output alone."""
    return {"output": tensor.float().numpy()}
