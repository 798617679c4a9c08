"""Rotary position embedding, "rotate-half" (arXiv 2104.09864; the pairing of Llama)."""

from __future__ import annotations

import torch


def rotary(*rows: torch.Tensor, theta: float | None, first_position: int = 0) -> tuple[torch.Tensor, ...]:
    """Pairs ``(x_i, x_{i + dim/2})`` of row t turned by ``t * theta^(-2 i / dim)``; None turns nothing.

    Parameters
    ----------
    *rows:
        Queries and keys, ``[..., length, dim]`` of one length and one even dim.
    theta:
        The base, > 0.
    first_position:
        t of the first row.
    """
    if theta is None:
        return rows
    length, dim = rows[0].shape[-2:]
    if dim % 2 != 0:
        raise ValueError(f"rope_theta needs an even head_dim, got {dim}")
    half = dim // 2
    # float64 on the CPU: float32 angles are wrong by 0.01 at position 100 000, and not every device has more.
    positions = torch.arange(first_position, first_position + length, dtype=torch.float64)
    angles = positions[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    cos, sin = (turn.to(torch.float32).to(rows[0].device) for turn in (angles.cos(), angles.sin()))
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
