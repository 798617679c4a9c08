"""What a layer whose state decays learns besides projections: a short convolution, gates, a gated norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import rattention.torch as rt
from rattention.nn.mechanisms import GLA, GatedLinear, KimiDelta
from rattention.torch.softmax_composition import segment_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.nn.mechanisms import Recurrent

RATES = (1.0, 16.0)
"""Between which ``exp(log_rate)`` begins: A of Mamba2."""
STEPS = (1e-3, 0.1)
"""Between which the steps of a token that is 0 begin, evenly in their logarithm: dt of Mamba2."""
GATE_RANK, GATE_SLOWNESS = 16, 16.0
"""Of the gates of GLA (arXiv 2312.06635, section 4.4): numbers they are made of, and which root is taken."""
EPS = 1e-8
"""Of the norms, as in `rattention.rattention`: what has been written by small steps is small."""


class ShortConvolution(nn.Module):
    """A causal convolution of every channel of queries, keys and values over the last tokens, then SiLU.

    As in Mamba2 (arXiv 2405.21060, section 7), Gated DeltaNet (arXiv 2412.06464, section 3.4) and Kimi Linear
    (arXiv 2510.26692, section 4). Hidden tokens count as zeros, and so do those of other segments.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Each row is made of `width` rows, its own among them."""
        super().__init__()
        self.taps = nn.Conv1d(channels, channels, width, groups=channels, bias=False)

    def forward(
        self, heads: Sequence[Tensor], *, key_mask: Tensor | None = None, segment_ids: Tensor | None = None
    ) -> list[Tensor]:
        """Tensors ``[batch, heads, length, head_dim]`` to the same."""
        rows = _channels(heads)
        if key_mask is not None:
            rows = torch.where(key_mask[..., None], rows, 0.0)
        if segment_ids is None:
            return _heads(self._made_of(nn.functional.pad(rows, (0, 0, self.before, 0))), heads)
        return _heads(self._within(rows, segment_runs(segment_ids)), heads)

    @property
    def before(self) -> int:
        """Rows that a row is made of besides its own."""
        return self.taps.kernel_size[0] - 1

    def step(self, heads: Sequence[Tensor], recent: Tensor) -> tuple[list[Tensor], Tensor]:
        """The same for tokens that follow `recent`, ``[batch, before, channels]``, and what follows that."""
        rows = torch.cat([recent, _channels(heads).to(recent.dtype)], dim=1)
        return _heads(self._made_of(rows), heads), rows[:, rows.shape[1] - self.before :].clone()

    def _made_of(self, rows: Tensor) -> Tensor:
        """The convolution of rows ``[batch, length, channels]``, without those that have too few before."""
        if rows.shape[1] <= self.before:  # PyTorch refuses to make no row
            return rows[:, :0]
        # A picture of height 1 whose channels lie side by side, as they do here: 3 times as fast as conv1d.
        picture, kernel = rows.mT[:, :, None], self.taps.weight[:, :, None]
        return nn.functional.conv2d(picture, kernel, groups=self.taps.groups)[:, :, 0].mT

    def _within(self, rows: Tensor, run: Tensor) -> Tensor:
        """The convolution within runs of equal segment ids, a tap at a time: PyTorch's does not reset."""
        total, length = torch.zeros_like(rows, dtype=torch.float32), rows.shape[1]
        for back, tap in enumerate(self.taps.weight[:, 0].float().unbind(dim=1)[::-1]):
            same = nn.functional.pad(run, (back, 0), value=-1)[:, :length] == run
            shifted = nn.functional.pad(rows, (0, 0, back, 0))[:, :length]
            total = total + tap * torch.where(same[..., None], shifted, 0.0)
        return total.to(rows.dtype)


def _channels(heads: Sequence[Tensor]) -> Tensor:
    """``[batch, heads, length, head_dim]`` each to ``[batch, length, channels]`` together."""
    return torch.cat([x.transpose(1, 2).flatten(2) for x in heads], dim=2)


def _heads(rows: Tensor, heads: Sequence[Tensor]) -> list[Tensor]:
    """SiLU, and the way back."""
    parts = torch.split(nn.functional.silu(rows), [x.shape[1] * x.shape[3] for x in heads], dim=2)
    return [
        part.reshape(*part.shape[:2], x.shape[1], x.shape[3]).transpose(1, 2)
        for part, x in zip(parts, heads, strict=True)
    ]


class Decay(nn.Module):
    """The step of every token, ``softplus(linear map + bias)``, and the decay ``exp(-rate * step)`` by it.

    One step per head and token, or one per key channel as well; one rate per head, whose logarithm is the
    parameter. First values are those of Mamba2: see `RATES` and `STEPS`.
    """

    def __init__(self, dim: int, heads: int, head_dim: int | None = None) -> None:
        """With a `head_dim` there is a step per channel, by way of as many numbers as a head has channels:
        a linear map of low rank, as in Kimi Linear (arXiv 2510.26692, section 4)."""
        super().__init__()
        self.heads = heads
        if head_dim is None:
            self.step: nn.Module = nn.Linear(dim, heads, bias=False)
        else:
            wide = nn.Linear(head_dim, heads * head_dim, bias=False)
            self.step = nn.Sequential(nn.Linear(dim, head_dim, bias=False), wide)
        first = torch.empty(heads * (head_dim or 1)).uniform_(*map(math.log, STEPS)).exp()
        self.step_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(*RATES).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps and log gates of tokens ``[batch, length, dim]``, float32, both ``[batch, heads, length]`` or
        ``[batch, heads, length, head_dim]``."""
        bias = self.step_bias.float().view(self.heads, 1, -1)
        rows = self.step(x).float().reshape(*x.shape[:2], self.heads, bias.shape[2]).transpose(1, 2)
        # Contiguous: compilers of PyTorch 2.13 misjudge the strides of softplus' gradient otherwise.
        steps = nn.functional.softplus(rows.contiguous() + bias)
        log_gate = -self.log_rate.float().exp()[:, None, None] * steps
        if isinstance(self.step, nn.Linear):
            return steps[..., 0], log_gate[..., 0]
        return steps, log_gate


class ChannelGate(nn.Module):
    """The decay of every key channel in GLA: the 16th root of a sigmoid of a linear map of low rank (arXiv
    2312.06635, section 4.4)."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        wide = nn.Linear(GATE_RANK, heads * head_dim)
        self.logit = nn.Sequential(nn.Linear(dim, GATE_RANK, bias=False), wide)

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        """No steps, and log gates of tokens ``[batch, length, dim]``, float32 ``[batch, heads, length,
        head_dim]``."""
        rows = self.logit(x).float().unflatten(2, (self.heads, -1)).transpose(1, 2)
        return None, nn.functional.logsigmoid(rows.contiguous()) / GATE_SLOWNESS


class Recurrence(nn.Module):
    """The recurrence of a layer, from its projections to what its heads give back.

    Queries, keys and values pass a `ShortConvolution`. The state decays as `Decay` says, that of GLA as
    `ChannelGate` does. Of its value a token writes ``sigmoid`` of a linear map with the delta rules, where
    queries and keys have length 1; in gated linear attention it writes its step, as in Mamba2 (arXiv
    2405.21060, section 3.2), in GLA all of it. What the heads read is
    normed, head by head, and multiplied by SiLU of a linear map of the token, as in Gated DeltaNet (arXiv
    2412.06464, section 3.4).
    """

    def __init__(self, options: Recurrent, dim: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.options = options
        linear = isinstance(options, GatedLinear | GLA)
        channels = (heads + 2 * kv_heads) * head_dim
        width = options.convolution
        self.convolution = ShortConvolution(channels, width) if width > 0 else None
        per_channel = head_dim if isinstance(options, KimiDelta) else None
        self.decay: Decay | ChannelGate = (
            ChannelGate(dim, kv_heads, head_dim)
            if isinstance(options, GLA)
            else Decay(dim, kv_heads if linear else heads, per_channel)
        )
        self.write = None if linear else nn.Linear(dim, heads, bias=False)
        self.gate = nn.Linear(dim, heads * head_dim, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(head_dim))

    def rule(self, x: Tensor) -> dict[str, Any]:
        """``log_gate`` and ``beta``, how much of its value a token writes (None is all), for tokens ``[batch,
        length, dim]``: float32 ``[batch, heads, length]``, gates also with head_dim; kv_heads where these
        decay."""
        steps, log_gate = self.decay(x)
        beta = steps if self.write is None else self.write(x).float().sigmoid().mT
        return {"log_gate": log_gate, "beta": beta}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        log_gate: Tensor,
        beta: Tensor | None,
        key_mask: Tensor | None = None,
        segment_ids: Tensor | None = None,
    ) -> Tensor:
        """What the heads read, ``[batch, heads, length, head_dim]``, of all tokens at once."""
        masks: dict[str, Any] = {"key_mask": key_mask, "segment_ids": segment_ids}
        if self.convolution is not None:
            query, key, value = self.convolution((query, key, value), **masks)
        heads: Tensor
        if self.write is None or beta is None:
            heads = self.linear(query, key, value, log_gate, beta, **masks)
        else:
            heads = rt.gated_delta_rule(query, key, value, log_gate, beta, normalize=True, **masks)
        return heads

    def linear(
        self, query: Tensor, key: Tensor, value: Tensor, log_gate: Tensor, beta: Tensor | None, **more: Any
    ) -> Any:
        """Gated linear attention to what the tokens write; `more` are arguments of its function."""
        written = value if beta is None else (beta[..., None] * value).to(value.dtype)
        if isinstance(self.options, GatedLinear):
            more["feature_map"] = self.options.feature_map
        return rt.gated_linear_attention(query, key, written, log_gate, **more)

    def gated(self, heads: Tensor, x: Tensor) -> Tensor:
        """What the heads read, normed and gated by tokens ``[batch, length, dim]``."""
        rows = heads.transpose(1, 2).float()
        normed = nn.functional.rms_norm(rows, rows.shape[3:], self.norm_weight.float(), EPS)
        gate = nn.functional.silu(self.gate(x).float()).reshape(rows.shape)
        made: Tensor = (normed * gate).to(heads.dtype).transpose(1, 2)
        return made
