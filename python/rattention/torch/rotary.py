"""Rotary position embedding, "rotate-half" (arXiv 2104.09864; the pairing of Llama)."""

from __future__ import annotations

from typing import Any

import torch

from rattention import _core
from rattention.torch.storage import as_array, as_tensor

IN_KERNEL = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes that the operation takes on the CPU; others are turned in plain PyTorch."""


def rotary(*rows: torch.Tensor, theta: float | None, first_position: int = 0) -> tuple[torch.Tensor, ...]:
    """Pairs ``(x_i, x_{i + dim/2})`` of row t turned by ``t * theta^(-2 i / dim)``; None turns nothing.

    Parameters
    ----------
    *rows:
        Queries and keys, ``[batch, heads, length, dim]`` of one length and one even dim.
    theta:
        The base, > 0.
    first_position:
        t of the first row, >= 0.
    """
    if theta is None:
        return rows
    if all(x.device.type == "cpu" and x.dtype in IN_KERNEL for x in rows):
        return tuple(turn(x, float(theta), first_position, False) for x in rows)
    return plain_rotary(*rows, theta=theta, first_position=first_position)


def plain_rotary(*rows: torch.Tensor, theta: float, first_position: int = 0) -> tuple[torch.Tensor, ...]:
    """The same in plain PyTorch."""
    length, dim = rows[0].shape[-2:]
    if dim % 2 != 0:
        raise ValueError(f"rope_theta needs an even head_dim, got {dim}")
    half = dim // 2
    # float64 on the CPU: float32 angles are wrong by 0.01 at position 100 000, and not every device has more.
    positions = torch.arange(first_position, first_position + length, dtype=torch.float64)
    angles = positions[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    cos, sin = (part.to(torch.float32).to(rows[0].device) for part in (angles.cos(), angles.sin()))
    return tuple(_turned(x[..., :half], x[..., half:], cos, sin).to(x.dtype) for x in rows)


def aligned_rotary(
    query: torch.Tensor, key: torch.Tensor, *, theta: float | None, first_position: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of other lengths, whose last rows are of one token; `first_position` is the first
    key's."""
    offset = first_position + key.shape[-2] - query.shape[-2]
    (queries,) = rotary(query, theta=theta, first_position=offset)
    (keys,) = rotary(key, theta=theta, first_position=first_position)
    return queries, keys


def _turned(first: torch.Tensor, second: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


@torch.library.custom_op("rattention::rotary", mutates_args=(), device_types="cpu")
def turn(rows: torch.Tensor, theta: float, first_position: int, back: bool) -> torch.Tensor:
    """The rows turned to their positions, or back: in one pass over them where plain PyTorch takes nine."""
    return as_tensor(_core.rotary(as_array(rows), theta, first_position, back))


@turn.register_fake
def _(rows: torch.Tensor, theta: float, first_position: int, back: bool) -> torch.Tensor:
    return rows.new_empty(rows.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, *ctx.numbers = inputs


def _turn_back(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
    theta, first_position, back = ctx.numbers
    return turn(grad, theta, first_position, not back), None, None, None


def _batched(info: Any, in_dims: Any, rows: torch.Tensor, *numbers: Any) -> tuple[torch.Tensor, int]:
    """A vmap rule: the batch joins that of the rows."""
    samples = rows.movedim(in_dims[0], 0)
    return turn(samples.flatten(0, 1), *numbers).unflatten(0, samples.shape[:2]), 0


turn.register_autograd(_turn_back, setup_context=_save)
turn.register_vmap(_batched)
