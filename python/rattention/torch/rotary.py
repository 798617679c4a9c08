"""Rotary position embedding, "rotate-half" (arXiv 2104.09864; the pairing of Llama)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rattention import _core
from rattention.torch.checks import FLOATS, as_array, as_tensor, require_no_tangents


def rotary(
    *rows: Tensor, theta: float | None = None, frequencies: Tensor | None = None, first_position: int = 0
) -> tuple[Tensor, ...]:
    """Pairs ``(x_i, x_{i + dim/2})`` of row t turned by ``t * theta^(-2 i / dim)`` or ``t * frequencies[i]``.

    Without both nothing turns.

    Parameters
    ----------
    *rows:
        Queries and keys, ``[batch, heads, length, dim]`` of one length and one even dim.
    theta:
        The base, > 0.
    frequencies:
        `rope_frequencies` of `rattention.rattention`, on the CPU.
    first_position:
        t of the first row, >= 0.
    """
    if theta is None and frequencies is None:
        return rows
    if frequencies is None and all(x.device.type == "cpu" and x.dtype in FLOATS for x in rows):
        require_no_tangents("rotary", rows)
        return tuple(turn(x, None, None, theta, first_position, _even(x), False, False) for x in rows)
    return plain_rotary(*rows, theta=theta, frequencies=frequencies, first_position=first_position)


def plain_rotary(
    *rows: Tensor, theta: float | None = None, frequencies: Tensor | None = None, first_position: int = 0
) -> tuple[Tensor, ...]:
    """The same in plain PyTorch."""
    length, dim = rows[0].shape[-2], _even(rows[0])
    # float64 on the CPU: float32 angles are wrong by 0.01 at position 100 000, and not every device has more.
    positions = torch.arange(first_position, first_position + length)
    if frequencies is not None:
        cos, sin = _scaled_angles(positions, frequencies)
    else:
        assert theta is not None
        cos, sin = plain_angles(positions, theta, dim)
    return tuple(plain_turn(x, cos.to(x.device), sin.to(x.device)) for x in rows)


def plain_angles(positions: Tensor, theta: float, dims: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 ``[*positions.shape, dims / 2]`` of angles in float64."""
    half = dims // 2
    exponents = torch.arange(half, dtype=torch.float64, device=positions.device) / half
    angles = positions.to(torch.float64)[..., None] * theta**-exponents
    return angles.cos().to(torch.float32), angles.sin().to(torch.float32)


def _scaled_angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    rates = frequencies.to(torch.float64)
    if rates.dim() == 1:
        rates = torch.stack([rates, torch.ones_like(rates)])
    angles = positions[:, None] * rates[0]
    return (rates[1] * angles.cos()).to(torch.float32), (rates[1] * angles.sin()).to(torch.float32)


def plain_turn(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate the first dimensions, two per angle, and copy the others."""
    half = cos.shape[-1]
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    turning, rest = x[..., : 2 * half], x[..., 2 * half :]
    shape, axis = ((half, 2), -1) if interleaved else ((2, half), -2)
    first, second = turning.reshape(*x.shape[:-1], *shape).unbind(axis)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=axis).flatten(-2)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


def _even(rows: Tensor) -> int:
    dim = rows.shape[-1]
    if dim % 2 != 0:
        raise ValueError(f"rope_theta needs an even head_dim, got {dim}")
    return dim


def aligned_rotary(
    query: Tensor,
    key: Tensor,
    *,
    theta: float | None = None,
    frequencies: Tensor | None = None,
    first_position: int = 0,
) -> tuple[Tensor, Tensor]:
    """Queries and keys of different lengths, aligned at their last rows; `first_position` is that of the
    first key."""
    offset = first_position + key.shape[-2] - query.shape[-2]
    (queries,) = rotary(query, theta=theta, frequencies=frequencies, first_position=offset)
    (keys,) = rotary(key, theta=theta, frequencies=frequencies, first_position=first_position)
    return queries, keys


@torch.library.custom_op("rattention::rotary", mutates_args=(), device_types="cpu")
def turn(
    rows: Tensor,
    positions: Tensor | None,
    table: Tensor | None,
    theta: float,
    first_position: int,
    dims: int,
    interleaved: bool,
    back: bool,
) -> Tensor:
    """The rows turned to their positions, or back: in one pass over them where plain PyTorch takes nine.

    Angles are those of `positions`, of a `table` ``[..., dims]`` of cosines, then sines, or of
    `first_position` and those after it.
    """
    positions, table = (None if x is None else x.contiguous() for x in (positions, table))
    turned = _core.rotary(
        as_array(rows),
        theta,
        first_position,
        dims,
        positions=None if positions is None else as_array(positions),
        table=None if table is None else as_array(table),
        interleaved=interleaved,
        back=back,
    )
    return as_tensor(turned)


@turn.register_fake
def _(rows: Tensor, *_: Any) -> Tensor:
    return rows.new_empty(rows.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, positions, table, *ctx.numbers = inputs
    ctx.save_for_backward(positions, table)


def _turn_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *numbers, back = ctx.numbers
    return turn(grad, *ctx.saved_tensors, *numbers, not back), *[None] * (len(numbers) + 3)


def _batched(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
    """A vmap rule: the batch joins that of the rows, and so do the angles of every sample and row."""
    rows, positions, table = (
        x if x is None or at is None else x.movedim(at, 0)
        for x, at in zip(inputs[:3], in_dims[:3], strict=True)
    )
    if in_dims[0] is None:
        rows = rows.expand(info.batch_size, *rows.shape)
    angles = [
        None if x is None else _per_row(x, at is not None, rows.shape, trailing)
        for x, at, trailing in zip((positions, table), in_dims[1:3], (0, 1), strict=True)
    ]
    return turn(rows.flatten(0, 1), *angles, *inputs[3:]).unflatten(0, rows.shape[:2]), 0


def _per_row(x: Tensor, mapped: bool, rows: torch.Size, trailing: int) -> Tensor:
    """``[samples * batch, length, ...]`` of what has neither, one or both of those axes."""
    if not mapped:
        x = x[None]
    if x.dim() == 2 + trailing:
        x = x[:, None]
    return x.expand(*rows[:2], *x.shape[2:]).flatten(0, 1)


turn.register_autograd(_turn_back, setup_context=_save)
turn.register_vmap(_batched)
