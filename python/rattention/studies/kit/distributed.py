"""Processes that train one model together under torchrun; one process is rank 0 of 1."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def init() -> None:
    """Join the process group where torchrun has started several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def destroy() -> None:
    """End what `init` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process; 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def all_reduce(numbers: Iterable[float]) -> list[float]:
    """Sums over all ranks, in float64."""
    tensor = torch.tensor(list(numbers), dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return [float(number) for number in tensor]


def all_gather(value: Value) -> list[Value]:
    """The values of all ranks, in their order."""
    gathered = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(gathered, value)
    return gathered


def broadcast(value: Value) -> Value:
    """The value of rank 0."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def broadcast_buffers(model: torch.nn.Module) -> None:
    """Give every rank the buffers of rank 0, such as running statistics, which differ between ranks."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
