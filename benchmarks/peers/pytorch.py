"""PyTorch: scaled_dot_product_attention, and what its other peers share."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any

from rattention.mechanisms.pooled_map import MAP_SHAPE, bin_edges

from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer

WARM_UPS, TRIALS, TRIAL_SECONDS = 2, 9, 1.0
RECOMPILATIONS = 64


def load(setup: Setup) -> ModuleType:
    """Torch with our number of threads."""
    torch = import_module("torch")
    torch.set_num_threads(setup.threads)
    # Every way and length is compiled for itself; beyond the limit PyTorch would go on without its compiler.
    import_module("torch._dynamo").config.recompile_limit = RECOMPILATIONS
    return torch


def sdpa(setup: Setup, inputs: Inputs, *, causal: bool = False, mask: Any = None) -> Runner:
    """Inputs may be bfloat16."""
    torch = load(setup)
    tensors = [tensor(torch, array) for array in inputs]
    attend = torch.nn.functional.scaled_dot_product_attention
    bias = None if mask is None else torch.from_numpy(mask)
    return Runner(lambda: attend(*tensors, attn_mask=bias, is_causal=causal), output)


def sdpa_steps(setup: Setup, inputs: Inputs, steps: int) -> Runner:
    """Attention of the last token to all of them, several times over."""
    torch = load(setup)
    query, key, value = (tensor(torch, array) for array in inputs)
    attend, token = torch.nn.functional.scaled_dot_product_attention, query[:, :, -1:].contiguous()

    def call() -> Any:
        for _ in range(steps):
            result = attend(token, key, value)
        return result

    return Runner(call, output)


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


def tensor(torch: ModuleType, array: Any) -> Any:
    """Of an array, bfloat16 as well."""
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


def fastest(calls: list[Callable[[], Any]]) -> Callable[[], Any]:
    """The peer's best way: of several, each tried a few times."""
    return calls[0] if len(calls) == 1 else min(calls, key=_seconds)


def _seconds(call: Callable[[], Any]) -> float:
    for _ in range(WARM_UPS):
        call()
    times = [_timed(call)]
    while len(times) < TRIALS and sum(times) < TRIAL_SECONDS:
        times.append(_timed(call))
    return median(times)


def _timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def output(result: Any) -> Answer:
    """The answer of a call that returns the output alone."""
    return {"output": result.float().numpy()}
