"""RAttention over several processes: every rank holds one slice of a long sequence (`torch.distributed`).

A rank needs two things of those before it, however long the sequence is: the keys and values of the last
`window` positions, from its neighbour, and one state, the sum of ``phi(k)^T v`` over all keys before those.
Gradients take the same way back. So a rank sends the same number of bytes for any length::

    # train.py: torchrun --nproc-per-node=2 train.py
    from datetime import timedelta
    import torch
    import torch.distributed as dist
    from rattention.torch.distributed import context_parallel_rattention

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.manual_seed(0)  # the same sequence on all ranks, of which each takes its slice
    slices = torch.randn(3, 1, 4, 4096, 32).tensor_split(dist.get_world_size(), dim=3)
    query, key, value = slices[dist.get_rank()].requires_grad_()
    weight = torch.ones(4, 32, requires_grad=True)
    output = context_parallel_rattention(
        query, key, value, window=128, rope_theta=10_000.0, linear_norm_weight=weight
    )
    output.tanh().sum().backward()
    dist.all_reduce(weight.grad)
    print(f"rank {dist.get_rank()}: {tuple(output.shape)}, gradient {weight.grad.norm():.2f}")
    dist.destroy_process_group()
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

import rattention.torch as rt
from rattention.torch.checks import require_shapes, require_tensors
from rattention.torch.functions import autocast
from rattention.torch.linear_composition import features
from rattention.torch.softmax_composition import wide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch.distributed import ProcessGroup

    Exchange = Callable[[Tensor, int, ProcessGroup], Tensor]

__all__ = ["context_parallel_rattention"]

DESCRIPTION = (
    "the length of the slice",
    "batch",
    "heads",
    "kv_heads",
    "head_dim",
    "value_dim",
    "window",
    "scale",
    "rope_theta",
    "eps",
    "whether the dtype is bfloat16",
    "whether the dtype is float16",
    "whether the feature map is relu",
    "whether key or value need gradients",
)
"""What ranks tell each other of their arguments; all but the first must be the same."""


def context_parallel_rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    feature_map: str = "softmax",
    local_norm_weight: Tensor | None = None,
    linear_norm_weight: Tensor | None = None,
    eps: float = 1e-8,
    group: ProcessGroup | None = None,
) -> Tensor:
    """`rattention.torch.rattention` of a sequence whose consecutive slices lie on consecutive ranks.

    All ranks of the group call it, each with its slice, and all call backward or none does, even a rank that
    adds nothing to the loss: gradients of earlier slices flow through its output.

    Parameters
    ----------
    query, key, value:
        This rank's positions, ``[batch, heads, slice, head_dim]``, ``[batch, kv_heads, slice, head_dim]`` and
        ``[batch, kv_heads, slice, value_dim]``, on the CPU. Slices may differ in length; with more than one
        rank each needs at least `window` positions.
    window, scale, rope_theta, feature_map, local_norm_weight, linear_norm_weight, eps:
        As in `rattention.rattention`, the same on all ranks. Rotated scores depend on distances alone, so no
        rank needs to know where its slice begins.
    group:
        The ranks that share the sequence, in its order, with a backend that sends CPU tensors, such as gloo;
        all ranks by default.

    Returns
    -------
    ``[batch, heads, slice, value_dim]``, this rank's rows of the output for the whole sequence.

    Raises
    ------
    ValueError, TypeError
        As `rattention.torch.rattention`; a slice shorter than the window; ranks that do not agree; a process
        without a group.
    RuntimeError
        Another rank has refused its arguments, has ended, or has not answered within the timeout of the
        group, which is gloo's 30 minutes unless `init_process_group` or `new_group` was given another.

    Notes
    -----
    Gradients of query, key and value are those of the whole sequence. Norm weights, like all parameters,
    get this rank's part: sum them over the group.

    In the forward pass a rank sends the keys and values of `window` positions and at most
    ``1 + ceil(log2(ranks - 1))`` states ``[batch, kv_heads, 2 * head_dim, value_dim]`` in float32, besides a
    few numbers that are compared; in the backward pass it sends the gradients of these. It computes
    ``slice + window`` rows.
    """
    group = cast("ProcessGroup", dist.group.WORLD) if group is None else group
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("group must have this process in it")
    options: dict[str, Any] = {
        "window": window,
        "scale": scale,
        "rope_theta": rope_theta,
        "feature_map": feature_map,
        "local_norm_weight": local_norm_weight,
        "linear_norm_weight": linear_norm_weight,
        "eps": eps,
    }
    lengths = _agree(DESCRIPTION, lambda: _described(query, key, value, options), group)
    if len(lengths) == 1:
        return rt.rattention(query, key, value, **options)  # type: ignore[no-any-return]
    query, key, value = (autocast(tensor) for tensor in (query, key, value))
    halo = max(window, 0)
    if min(lengths) < halo:
        raise ValueError(
            f"slices must have at least window = {halo} positions, rank {lengths.index(min(lengths))} has "
            f"{min(lengths)}: use fewer ranks, or a smaller window"
        )
    if halo:
        query, key, value = _with_halo(query, key, value, halo, group)
    passed_on = key.shape[2] - halo
    own = _state(key[:, :, :passed_on], value[:, :, :passed_on], feature_map)
    before = _FromBefore.apply(_exclusive_sum, own, group)  # type: ignore[no-untyped-call]
    output: Tensor = rt.rattention(query, key, value, initial_state=before, **options)
    return output[:, :, output.shape[2] - lengths[rank] :]


def _described(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> list[float]:
    """The arguments, once checked, as the numbers of `DESCRIPTION`."""
    inputs = {"query": query, "key": key, "value": value}
    require_tensors(inputs, inputs, ("query", "key", "value"))
    if query.device.type != "cpu":
        raise ValueError(f"query, key and value must be on the CPU, got {query.device}")
    require_shapes(query, key, value)
    if query.shape[2] != key.shape[2]:
        raise ValueError(f"key has length {key.shape[2]}, query has {query.shape[2]}; they must be equal")
    with torch.no_grad():  # no rows: all checks, before a rank waits for another
        rt.rattention(query[:, :, :0], key[:, :, :0], value[:, :, :0], **options)
    sizes = query.shape[2], *query.shape[:2], key.shape[1], key.shape[3], value.shape[3]
    window, dtype = min(options["window"], 2**62), autocast(key).dtype
    scale = key.shape[3] ** -0.5 if options["scale"] is None else options["scale"]
    numbers = scale, options["rope_theta"] or 0.0, options["eps"]
    flags = (
        dtype == torch.bfloat16,
        dtype == torch.float16,
        options["feature_map"] == "relu",
        torch.is_grad_enabled() and (key.requires_grad or value.requires_grad),
    )
    return [float(number) for number in (*sizes, window, *numbers, *flags)]


def _with_halo(
    query: Tensor, key: Tensor, value: Tensor, halo: int, group: ProcessGroup
) -> tuple[Tensor, ...]:
    """Prepend the previous rank's last `halo` positions, if any: queries 0, rows dropped later."""
    ends = torch.cat([key[:, :, -halo:], value[:, :, -halo:]], dim=3)
    came = _FromBefore.apply(_shifted, ends, group)  # type: ignore[no-untyped-call]
    if dist.get_rank(group) == 0:
        came = came[:, :, :0]  # still in the graph: backward has a message to wait for
    keys, values = came.split([key.shape[3], value.shape[3]], dim=3)
    queries = query.new_zeros((*query.shape[:2], came.shape[2], query.shape[3]))
    pairs = (queries, query), (keys, key), (values, value)
    return tuple(torch.cat(pair, dim=2) for pair in pairs)


def _state(key: Tensor, value: Tensor, feature_map: str) -> Tensor:
    """What these keys add to the state of all later rows, in float32."""
    with torch.autocast(key.device.type, enabled=False):
        return features(key, feature_map).mT @ wide(value)


class _FromBefore(torch.autograd.Function):
    """What `exchange` brings from the ranks before; its gradient takes the same way back."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, tensor: Tensor, group: ProcessGroup) -> Tensor:
        ctx.exchange, ctx.group = exchange, group
        return exchange(tensor, 1, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, ctx.exchange(grad, -1, ctx.group), None


def _agree(names: Sequence[str], describe: Callable[[], Sequence[float]], group: ProcessGroup) -> list[int]:
    """The first number of every rank, once all ranks have described the same in the others.

    Where `describe` raises, that error is raised here and a RuntimeError on all other ranks, so that no
    rank waits for one that failed.
    """
    try:
        mine = describe()
    except Exception:
        _gathered([math.nan] * len(names), group)
        raise
    everybody = _gathered(mine, group)
    for rank, numbers in enumerate(everybody):
        if math.isnan(numbers[0]):
            raise RuntimeError(f"rank {rank} has refused its arguments; the error there says why")
    for rank, numbers in enumerate(everybody):
        for name, number, first in zip(names[1:], numbers[1:], everybody[0][1:], strict=True):
            if number != first:
                raise ValueError(
                    f"{name} must be the same on all ranks: {first:g} on rank 0, {number:g} on rank {rank}"
                )
    return [int(numbers[0]) for numbers in everybody]


def _gathered(numbers: Sequence[float], group: ProcessGroup) -> list[list[float]]:
    own = torch.tensor(numbers, dtype=torch.float64)
    everybody = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    others = [rank for rank in range(len(everybody)) if rank != dist.get_rank(group)]
    with _or_lost("arguments", others, group):
        dist.all_gather(everybody, own, group=group)
    return [tensor.tolist() for tensor in everybody]


def _exclusive_sum(own: Tensor, step: int, group: ProcessGroup) -> Tensor:
    """The sum over all ranks before this one (after it if `step` is -1), or zeros: each round doubles the
    number of ranks summed."""
    total = _shifted(own, step, group)
    distance = 1
    while distance < dist.get_world_size(group) - 1:
        total = total + _shifted(total, step * distance, group)
        distance *= 2
    return total


def _shifted(tensor: Tensor, by: int, group: ProcessGroup) -> Tensor:
    """The tensor of rank ``rank - by``, zeros if there is none; all ranks pass the same shape."""
    came = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
    rank, ranks = dist.get_rank(group), range(dist.get_world_size(group))
    calls = {rank + by: (dist.isend, tensor.contiguous()), rank - by: (dist.irecv, came)}
    messages = {other: call for other, call in calls.items() if other in ranks}
    with _or_lost("a slice's ends", messages, group):
        exchanged = [
            dist.P2POp(*call, dist.get_global_rank(group, other), group) for other, call in messages.items()
        ]
        for work in dist.batch_isend_irecv(exchanged) if exchanged else ():
            work.wait()
    return came


@contextmanager
def _or_lost(what: str, others: Iterable[int], group: ProcessGroup) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        listing = " or ".join(map(str, others))
        raise RuntimeError(
            f"rank {dist.get_rank(group)} could not exchange {what} with rank {listing}: a process has ended "
            f"or has not answered within its group's timeout ({error})"
        ) from error
