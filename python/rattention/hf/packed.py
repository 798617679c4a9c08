"""Packed sequences in linear layers of models: several texts in one row that must not mix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "rattention_kernels"
"""An argument that layers pass on, with all that they do not know, to the functions that they call: how many
tokens a layer was given."""


def packed_ids(arguments: dict[str, Any], tokens: int) -> Tensor | None:
    """Ids ``[1 or batch, tokens]`` of the sequences in a row; None where they are not packed."""
    ends = next((arguments[n] for n in ("cu_seqlens", "cu_seq_lens_q") if arguments.get(n) is not None), None)
    if ends is None:
        ids: Tensor | None = arguments.get("seq_idx")
        return ids
    positions = torch.arange(tokens, dtype=ends.dtype, device=ends.device)
    return torch.bucketize(positions, ends[1:], right=True)[None]


def convolution(
    theirs: Callable[..., Any],
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    **others: Any,
) -> Tensor:
    """What layers call to mix the last few tokens of each channel, ``[batch, channels, tokens]``; theirs, but
    for packed sequences. What a cache holds comes before the tokens, and belongs to the first sequence."""
    tokens = others.pop(MARK, hidden_states.shape[2])
    ids = packed_ids(others, tokens)
    if ids is None:
        output: Tensor = theirs(hidden_states, weight, bias, activation=activation, **others)
        return output
    ids = torch.cat([ids[:, :1].expand(-1, hidden_states.shape[2] - tokens), ids], dim=1)
    total = hidden_states.new_zeros(()) if bias is None else bias[:, None]
    for back in range(weight.shape[1]):
        shown = _later(ids, back, -1) == ids
        taken = torch.where(shown[:, None], _later(hidden_states, back, 0), 0)
        total = total + taken * weight[:, weight.shape[1] - 1 - back, None]
    activated: Tensor = (total if activation is None else ACT2FN[activation](total)).to(hidden_states.dtype)
    return activated


def _later(tensor: Tensor, count: int, fill: int) -> Tensor:
    """Moved along the last axis."""
    return torch.nn.functional.pad(tensor, (count, 0), value=fill)[..., : tensor.shape[-1]]
