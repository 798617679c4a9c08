"""The gated delta rule token by token in float64, and inputs for it."""

from __future__ import annotations

from typing import Any

import torch

CASES: dict[str, dict[str, Any]] = {
    "one gate": {},
    "a gate per channel": {"channels": True},
    "grouped heads": {"heads": 4, "kv_heads": 2, "value_dim": 3},
    "channels and groups": {"channels": True, "heads": 4, "kv_heads": 1},
    "strong gates": {"strongest": 50.0},
    "strong gates per channel": {"strongest": 50.0, "channels": True},
    "no decay": {"strongest": 0.0},
}


def drawn(
    length: int,
    *,
    batch: int = 2,
    heads: int = 2,
    kv_heads: int = 2,
    dim: int = 5,
    value_dim: int = 7,
    channels: bool = False,
    strongest: float = 0.5,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Query, key, value, log gates and betas in float64; keys of norm about 1, betas from 0 to 2, gates from
    1 to e^-strongest, many of them near 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gates = (batch, heads, length, dim) if channels else (batch, heads, length)
    return [
        normal(batch, heads, length, dim),
        normal(batch, kv_heads, length, dim) / dim**0.5,
        normal(batch, kv_heads, length, value_dim),
        -strongest * torch.rand(gates, generator=generator, dtype=torch.float64) ** 4,
        2 * torch.rand(batch, heads, length, generator=generator, dtype=torch.float64),
    ]


def recurrence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_gate: torch.Tensor,
    beta: torch.Tensor,
    *,
    scale: float | None = None,
    normalize: bool = False,
    initial_state: torch.Tensor | None = None,
    key_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and state: ``S_t = D_t S_{t-1} + b_t k_t^T (v_t - k_t D_t S_{t-1})``,
    ``out_t = scale q_t S_t``."""
    query, key, value, log_gate, beta = (x.double() for x in (query, key, value, log_gate, beta))
    if normalize:
        query, key = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (query, key))
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    log_gate = log_gate if log_gate.dim() == 4 else log_gate[..., None]
    batch, heads, length, dim = query.shape
    state = torch.zeros(batch, heads, dim, value.shape[3], dtype=torch.float64)
    if initial_state is not None:
        state = state + initial_state.double()
    outputs = []
    for t in range(length):
        if segment_ids is not None and t > 0:
            same = segment_ids[:, t] == segment_ids[:, t - 1]
            state = torch.where(same[:, None, None, None], state, 0.0)
        decayed = log_gate[:, :, t, :, None].exp() * state
        error = value[:, :, t] - torch.einsum("bhd,bhdv->bhv", key[:, :, t], decayed)
        after = decayed + torch.einsum("bh,bhd,bhv->bhdv", beta[:, :, t], key[:, :, t], error)
        shown = None if key_mask is None else key_mask[:, t, None, None, None]
        state = after if shown is None else torch.where(shown, after, state)
        outputs.append(torch.einsum("bhd,bhdv->bhv", query[:, :, t], state))
    stacked = torch.stack(outputs, dim=2) if outputs else value.new_zeros(batch, heads, 0, value.shape[3])
    return stacked * (dim**-0.5 if scale is None else scale), state
