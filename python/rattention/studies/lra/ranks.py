"""Processes that train one model together under torchrun; one process is one rank of one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def join() -> None:
    """Meet the other processes that torchrun has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def leave() -> None:
    """End what `join` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Of this process; 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def meet() -> None:
    """Wait for all."""
    if dist.is_initialized():
        dist.barrier()


def totals(numbers: Iterable[float]) -> list[float]:
    """Sums over all ranks, in float64."""
    tensor = torch.tensor(list(numbers), dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return [float(number) for number in tensor]


def as_first(value: Value) -> Value:
    """What rank 0 has, on every rank."""
    held = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(held)
    return held[0]
