"""`rattention.rotary` and `rattention.rattention_step` on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import rattention as ra
from rattention._arguments import positive
from rattention.mechanisms.rotary import turning_dims
from rattention.torch.checks import INTEGERS, as_array, as_tensor, require_floats, require_tensors
from rattention.torch.rotary import plain_angles, plain_turn, turn

if TYPE_CHECKING:
    from rattention.mechanisms.rattention_cache import RAttentionCache


def rotary(
    x: torch.Tensor,
    *,
    theta: float = 10_000.0,
    positions: torch.Tensor | None = None,
    interleaved: bool = False,
    dims: int | None = None,
    cos: torch.Tensor | None = None,
    sin: torch.Tensor | None = None,
) -> torch.Tensor:
    """Queries or keys turned to their positions, on tensors: `rattention.rotary`.

    Parameters
    ----------
    x:
        A tensor ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16.
    positions:
        Integers ``[length]`` or ``[batch, length]``; 0, 1, 2, ... by default.
    theta, interleaved, dims:
        As in `rattention.rotary`.
    cos, sin:
        Your own tables, tensors ``[length, dims / 2]`` or ``[batch, length, dims / 2]``, in place of `theta`
        and `positions`.

    Returns
    -------
    A tensor like `x`, differentiable in x, cos and sin. Tensors that are not on the CPU, and tables that ask
    for a gradient, take plain PyTorch.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        Another dtype, or objects that are no dense tensors.

    >>> import torch
    >>> import rattention.torch as rt
    >>> query = torch.randn(1, 4, 256, 32)
    >>> rt.rotary(query, theta=500_000.0, positions=torch.arange(100, 356)).shape
    torch.Size([1, 4, 256, 32])
    """
    tensors = {"x": x, "positions": positions, "cos": cos, "sin": sin}
    require_tensors(tensors, tensors)
    require_floats(tensors, ("x", "cos", "sin"))
    if positions is not None and positions.dtype not in INTEGERS:
        raise TypeError(f"positions must be a tensor of integers, got {positions.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must have 4 dimensions, got {x.dim()} (shape {tuple(x.shape)})")
    tables = {name: table for name, table in (("cos", cos), ("sin", sin)) if table is not None}
    turning = turning_dims(
        x.shape,
        dims,
        None if positions is None else positions.shape,
        {name: table.shape for name, table in tables.items()},
    )
    base = positive("theta", theta)
    table = torch.cat([*tables.values()], dim=-1).to(torch.float32) if tables else None
    if x.device.type == "cpu" and not (table is not None and table.requires_grad):
        at = None if positions is None else positions.to(torch.int64)
        turned: torch.Tensor = turn(x, at, table, base, 0, turning, bool(interleaved), False)
        return turned
    if table is None:
        at = torch.arange(x.shape[2], device=x.device) if positions is None else positions
        halves = plain_angles(at, base, turning)
    else:
        halves = table[..., : turning // 2], table[..., turning // 2 :]
    return plain_turn(x, *halves, interleaved=bool(interleaved))


def rattention_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: RAttentionCache,
    *,
    scale: float | None = None,
    local_norm_weight: torch.Tensor | None = None,
    linear_norm_weight: torch.Tensor | None = None,
    eps: float | None = None,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """The rows of `rattention` for the next tokens, on tensors: `rattention.rattention_step`.

    Parameters
    ----------
    query, key, value:
        CPU tensors in the dtype of the cache, ``[batch, heads, tokens, head_dim]``, ``[batch, kv_heads,
        tokens, head_dim]`` and ``[batch, kv_heads, tokens, value_dim]``.
    cache, scale, local_norm_weight, linear_norm_weight, eps:
        As in `rattention.rattention_step`.
    lengths:
        How many of the tokens each sequence has, integers ``[batch]``; all by default.

    Returns
    -------
    ``[batch, heads, tokens, value_dim]``, without gradients.

    Raises
    ------
    ValueError
        Shapes or values that do not fit the cache, or tensors that are not on the CPU.
    TypeError
        Another dtype than the cache's, or objects that are no dense tensors.
    RuntimeError
        The cache is in use by another thread.
    """
    tensors = {
        "query": query,
        "key": key,
        "value": value,
        "local_norm_weight": local_norm_weight,
        "linear_norm_weight": linear_norm_weight,
        "lengths": lengths,
    }
    require_tensors(tensors, tensors)
    require_floats(tensors, ("query", "key", "value", "local_norm_weight", "linear_norm_weight"))
    if query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, got {query.device}: the cache is there")
    arrays: dict[str, Any] = {name: None if x is None else as_array(x) for name, x in tensors.items()}
    return as_tensor(ra.rattention_step(**arrays, cache=cache, scale=scale, eps=eps))
