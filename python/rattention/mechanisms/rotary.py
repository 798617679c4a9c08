"""Rotary position embedding: pairs ``(x_i, x_{i + dims/2})`` at position t turn by ``t theta^(-2 i/dims)``.

RoFormer, arXiv 2104.09864, section 3.2.2. That pairing, "rotate-half", is that of Llama and its family;
`interleaved` has the paper's own, ``(x_{2 i}, x_{2 i + 1})``, of GPT-J.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import _core
from rattention._arguments import at_least, float_array, integer_array, positive
from rattention.mechanisms.residual_linear import as_given

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def rotary(
    x: ArrayLike,
    *,
    theta: float = 10_000.0,
    positions: ArrayLike | None = None,
    interleaved: bool = False,
    dims: int | None = None,
    cos: ArrayLike | None = None,
    sin: ArrayLike | None = None,
) -> NDArray[Any]:
    """Queries or keys turned to their positions.

    Parameters
    ----------
    x:
        ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16, any strides.
    theta:
        Base of the angles, > 0. Angles are float64, so that those of position 100 000 000 are as exact in
        float32 as those of 0.
    positions:
        Integers ``[length]`` or ``[batch, length]`` from ``-2^53`` to ``2^53``; 0, 1, 2, ... by default.
    interleaved:
        Neighbours are pairs, (0, 1), (2, 3), ..., instead of one of either half.
    dims:
        Only the first `dims` dimensions turn, an even number; the others are copied. All by default.
    cos, sin:
        Your own tables, ``[length, dims / 2]`` or ``[batch, length, dims / 2]`` of the three dtypes, in
        place of `theta` and `positions` (rows of a longer table: ``cos=table[positions]``).

    Returns
    -------
    An array like `x`, computed in float32.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        Another dtype, or objects that are no arrays.
    """
    rows = float_array("x", x, 4)
    at = None if positions is None else integer_array("positions", positions, np.ndim(positions))
    tables = {
        name: _in_float32(name, table) for name, table in (("cos", cos), ("sin", sin)) if table is not None
    }
    turning = turning_dims(rows.shape, dims, at, tables)
    turned = _core.rotary(
        rows,
        positive("theta", theta),
        0,
        turning,
        positions=at,
        table=np.concatenate([*tables.values()], axis=-1) if tables else None,
        interleaved=bool(interleaved),
    )
    return as_given(turned, x)


def _in_float32(name: str, table: ArrayLike) -> NDArray[np.float32]:
    float_array(name, table)
    return np.asarray(table, np.float32)


def turning_dims(shape: Sequence[int], dims: int | None, positions: Any, tables: dict[str, Any]) -> int:
    """How many dimensions turn, once all shapes fit: those of x and, where given, of positions and tables,
    arrays or tensors."""
    batch, _, length, head_dim = shape
    turning = head_dim if dims is None else at_least("dims", dims, 0)
    if turning % 2 != 0 or turning > head_dim:
        raise ValueError(
            f"dims must be even and at most the head_dim of x, {head_dim}; got "
            f"{'all of them' if dims is None else dims}"
        )
    if len(tables) == 1:
        (given,) = tables
        raise ValueError(f"cos and sin go together, got {given} alone")
    if tables and positions is not None:
        raise ValueError(
            "positions are those of theta's angles; with cos and sin give the tables' rows: cos[positions]"
        )
    if positions is not None:
        _require_per_row("positions", positions.shape, (length,), batch)
    for name, table in tables.items():
        _require_per_row(name, table.shape, (length, turning // 2), batch)
    shapes = [tuple(table.shape) for table in tables.values()]
    if len({*shapes}) > 1:
        raise ValueError(f"cos and sin must have one shape, got {shapes[0]} and {shapes[1]}")
    return turning


def _require_per_row(name: str, shape: Sequence[int], expected: tuple[int, ...], batch: int) -> None:
    if tuple(shape) not in (expected, (batch, *expected)):
        raise ValueError(f"{name} must have shape {expected} or {(batch, *expected)}, got {tuple(shape)}")


def rotary_rates(
    rope_theta: float | None, rope_frequencies: ArrayLike | None, head_dim: int
) -> NDArray[np.float64] | None:
    """Frequencies and factors of the pairs, ``[2, head_dim / 2]``, from the rotary arguments of
    `rattention.rattention`; None if neither is given."""
    if rope_theta is None and rope_frequencies is None:
        return None
    if rope_theta is not None and rope_frequencies is not None:
        raise ValueError("rope_theta and rope_frequencies are two ways to give one thing: give one of them")
    if head_dim % 2 != 0:
        raise ValueError(f"head_dim must be even with a rotary embedding, got {head_dim}")
    if rope_theta is not None:
        return _rates_of(positive("rope_theta", rope_theta), head_dim // 2)
    given = np.asarray(rope_frequencies)
    if given.dtype.kind not in "fi":
        raise TypeError(f"rope_frequencies must be real numbers, got dtype {given.dtype.name}")
    shapes = (head_dim // 2,), (2, head_dim // 2)
    if given.shape not in shapes:
        raise ValueError(f"rope_frequencies must have shape {shapes[0]} or {shapes[1]}, got {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("rope_frequencies must be finite")
    rates = given.astype(np.float64)
    return np.ascontiguousarray(rates) if given.ndim == 2 else np.stack([rates, np.ones_like(rates)])


@lru_cache(maxsize=8)
def _rates_of(theta: float, pairs: int) -> NDArray[np.float64]:
    rates = np.stack([theta ** (-np.arange(pairs) / pairs), np.ones(pairs)])
    rates.flags.writeable = False
    return rates


def reference_rotary(
    rows: NDArray[np.float64],
    theta: float | None = 10_000.0,
    *,
    positions: ArrayLike | None = None,
    interleaved: bool = False,
    dims: int | None = None,
    cos: ArrayLike | None = None,
    sin: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """`rotary` by its definition, in float64; no embedding where `theta` is None."""
    if theta is None:
        return rows
    turning = rows.shape[3] if dims is None else dims
    half = turning // 2
    if cos is None or sin is None:
        at = np.arange(rows.shape[2]) if positions is None else np.asarray(positions)
        angles = at[..., None] * float(theta) ** (-np.arange(half) / half)
        cos, sin = np.cos(angles), np.sin(angles)
    c, s = (np.asarray(table).astype(np.float64) for table in (cos, sin))
    if c.ndim == 3:
        c, s = c[:, None], s[:, None]
    first = slice(0, turning, 2) if interleaved else slice(0, half)
    second = slice(1, turning, 2) if interleaved else slice(half, turning)
    turned = rows.copy()
    with np.errstate(invalid="ignore"):
        turned[..., first] = rows[..., first] * c - rows[..., second] * s
        turned[..., second] = rows[..., second] * c + rows[..., first] * s
    return turned
