"""The recurrence of Mamba2 layers, on the kernels of gated linear attention.

Of every token a head reads ``y_t = S_t C_t + D x_t``, with ``S_t = exp(dt_t A) S_(t-1) + (dt_t x_t) B_t^T``:
Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), section 7. C is the query, B the key, ``dt x`` the
value and ``dt A`` the log gate. Several heads, a group, share one B and one C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rattention.hf.overflow import known_gates
from rattention.hf.packed import packed_ids
from rattention.torch import gated_linear_attention

if TYPE_CHECKING:
    from collections.abc import Callable


def not_fused(theirs: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """What layers call first in training; without a result they go on to convolution and scan."""


def scan(
    theirs: Callable[..., Any],
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int | None = None,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **others: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """What layers call to mix tokens: output ``[batch, tokens, heads, head_dim]`` and, where asked for, the
    state ``[batch, heads, head_dim, state_dim]``, both float32 as theirs.

    ``hidden_states`` are like the output, ``dt`` is ``[batch, tokens, heads]``, ``A`` and ``D`` are
    ``[heads]``, ``B`` and ``C`` ``[batch, tokens, groups, state_dim]``.
    """
    steps = _steps(dt, dt_bias, dt_softplus).clamp(*dt_limit)
    rows = hidden_states.float()
    ids = packed_ids(others, dt.shape[1])
    log_gate, written = known_gates(steps * A.float(), steps)
    output, state = _mixed(rows * written[..., None], log_gate, B.float(), C.float(), initial_states, ids)
    if D is not None:
        output = output + rows * D[:, None]
    output = output.contiguous()
    return (output, state) if return_final_states else output


def step(
    theirs: Callable[..., Any],
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **others: Any,
) -> Tensor:
    """What layers call for one token: output ``[batch, heads, head_dim]``, and `state` as it is afterwards.

    As in `scan` without the axis of tokens, but that ``dt``, ``A``, ``D`` and ``dt_bias`` come repeated for
    every channel; ``z`` is like the output, and gates it.
    """
    made = scan(
        theirs,
        hidden_states[:, None],
        dt[:, None, :, 0],
        A[:, 0, 0],
        B[:, None],
        C[:, None],
        D=None if D is None else D[:, 0],
        dt_bias=None if dt_bias is None else dt_bias[:, 0],
        initial_states=state.clone() if torch.is_grad_enabled() else state,  # a backward pass reads it again
        dt_softplus=dt_softplus,
        return_final_states=True,
    )
    output = made[0][:, 0] if z is None else made[0][:, 0] * torch.nn.functional.silu(z)
    state.copy_(made[1])
    return output.to(hidden_states.dtype)


def _steps(dt: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    steps = dt.float() if bias is None else dt.float() + bias.float()
    return torch.nn.functional.softplus(steps) if softplus else steps


def _mixed(
    value: Tensor, log_gate: Tensor, key: Tensor, query: Tensor, state: Tensor | None, ids: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output and state, laid out as those of `scan`; the groups of a sequence are sequences to the kernel, so
    that the heads of each can read one query and one key."""
    batch, groups = value.shape[0], key.shape[2]
    value, log_gate, query, key = (_by_group(rows, groups) for rows in (value, log_gate, query, key))
    query, key = (rows.expand(-1, value.shape[1], -1, -1) for rows in (query, key))
    output, end = gated_linear_attention(
        query,
        key,
        value,
        log_gate,
        scale=1.0,
        initial_state=None if state is None else state.reshape(len(value), -1, *state.shape[2:]).mT,
        segment_ids=None if ids is None else ids.repeat_interleave(groups, dim=0),
        return_state=True,
    )
    output, end = (heads.reshape(batch, -1, *heads.shape[2:]) for heads in (output, end))
    return output.transpose(1, 2), end.mT


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """``[batch, tokens, groups * heads, ...]`` to ``[batch * groups, heads, tokens, ...]``; no copy where one
    of both is 1."""
    apart = rows.reshape(*rows.shape[:2], groups, rows.shape[2] // groups, *rows.shape[3:])
    return apart.movedim(1, 3).flatten(0, 1)
