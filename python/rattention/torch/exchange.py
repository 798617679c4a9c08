"""What the ranks of a process group send each other, in the order of the sequence and with gradients."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch.distributed import ProcessGroup


class FromBefore(torch.autograd.Function):
    """The tensor of the rank before, zeros on the first; its gradient goes back there."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        """One message to the next rank."""
        ctx.group = group
        return _shifted(tensor, 1, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """One message to the rank before."""
        return _shifted(grad, -1, ctx.group), None


class SumBefore(torch.autograd.Function):
    """The sum over all ranks before, zeros on the first; its gradient is the sum over all ranks after it."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        """A logarithmic number of messages."""
        ctx.group = group
        return _exclusive_sum(tensor, 1, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """As many in the other direction."""
        return _exclusive_sum(grad, -1, ctx.group), None


def agree(names: Sequence[str], describe: Callable[[], Sequence[float]], group: ProcessGroup) -> list[int]:
    """The first number of every rank, once all ranks have described the same in the others.

    Where `describe` raises, that error is raised here and a RuntimeError on all other ranks, so that nobody
    waits for a rank that does not come.
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


def _exclusive_sum(own: torch.Tensor, step: int, group: ProcessGroup) -> torch.Tensor:
    """The sum over all ranks that the steps come from: each round doubles how many are in it."""
    total = _shifted(own, step, group)
    distance = 1
    while distance < dist.get_world_size(group) - 1:
        total = total + _shifted(total, step * distance, group)
        distance *= 2
    return total


def _shifted(tensor: torch.Tensor, by: int, group: ProcessGroup) -> torch.Tensor:
    """What the rank `by` places before has, zeros where there is none; ranks give shapes alike."""
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
