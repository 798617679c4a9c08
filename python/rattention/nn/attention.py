"""Self-attention as a module, one class for every mechanism."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import rattention.torch as rt
from rattention._arguments import truth
from rattention.mechanisms.table import MECHANISMS
from rattention.nn.mechanisms import RAttention, Recurrent, WithGravity, WithTimescales, as_mechanism
from rattention.nn.parts import BranchNorms, Gravity, RowNorm, Timescales
from rattention.nn.recurrence import Recurrence
from rattention.torch.rotary import aligned_rotary, rotary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rattention.mechanisms.masks import Window
    from rattention.nn.mechanisms import Mechanism

    Hook = Callable[..., Any]


class LayerCache:
    """What one layer keeps of the tokens before."""

    length: int
    """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds."""
        raise NotImplementedError

    def attend(
        self, layer: SelfAttention, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any]
    ) -> Tensor:
        """The heads' outputs for new tokens, which are in the cache afterwards."""
        raise NotImplementedError


class SelfAttention(nn.Module):
    """Projections, attention by one of the mechanisms, and the projection back.

    Parameters
    ----------
    dim:
        Width of the tokens.
    heads, kv_heads:
        Query heads, and key/value heads, which must divide them (all by default). For mechanisms
        with timescales, per timescale.
    mechanism:
        `Softmax`, `SlidingWindow`, `MultiTimescale`, `Gravitational`, `GravitationalMultiTimescale`,
        `GatedLinear`, `GLA`, `GatedDelta`, `KimiDelta` or `RAttention` of `rattention.nn`, with its options;
        or its name in `rattention.MECHANISMS`, for the default options; or what its `as_dict` gives.
    causal:
        Tokens see no later tokens. The last five are always causal and require True.
    head_dim:
        ``dim // heads`` by default.
    bias:
        Whether projections have one.
    qk_norm:
        Whether queries and keys of each head are normed to a root mean square of 1, times weights of their
        own, before positions and attention (QK norm, as in Gemma 3 and Qwen3).

    Raises
    ------
    ValueError
        Sizes that do not fit each other, an unknown mechanism, or one that needs an option.
    TypeError
        `mechanism` is something else, or `qk_norm` no bool.

    Notes
    -----
    There is no dropout of attention weights: they are never stored. `GatedLinear`, `GLA`, `GatedDelta` and
    `KimiDelta` have no map of weights at all: `rattention.observe` and its like pass over these layers.

    >>> import torch
    >>> from rattention.nn import RAttention, SelfAttention
    >>> layer = SelfAttention(64, heads=4, kv_heads=2, mechanism=RAttention(window=8), causal=True)
    >>> layer(torch.randn(1, 100, 64)).shape
    torch.Size([1, 100, 64])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        mechanism: Mechanism | str | Mapping[str, Any] = "softmax",
        causal: bool = False,
        head_dim: int | None = None,
        bias: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mechanism = options = as_mechanism(mechanism)
        if MECHANISMS[options.name].causal_only and not causal:
            raise ValueError(f"mechanism {options.name!r} is causal: give causal=True")
        self.head_dim = _head_dim(dim, heads, kv_heads, head_dim)
        self.causal = causal
        self.window: Window = getattr(options, "window", None)
        self.rope_theta: float | None = getattr(options, "rope_theta", None)
        scales = len(options.timescales) if isinstance(options, WithTimescales) else 1
        all_heads, all_kv_heads = scales * heads, scales * (kv_heads or heads)
        self.query = nn.Linear(dim, all_heads * self.head_dim, bias=bias)
        self.key = nn.Linear(dim, all_kv_heads * self.head_dim, bias=bias)
        self.value = nn.Linear(dim, all_kv_heads * self.head_dim, bias=bias)
        self.output = nn.Linear(all_heads * self.head_dim, dim, bias=bias)
        self.qk_norm = truth("qk_norm", qk_norm)
        self.query_norm, self.key_norm = (RowNorm(self.head_dim) if qk_norm else None for _ in range(2))
        self.gravity = (
            Gravity(options, dim, all_heads, all_kv_heads, self.head_dim)
            if isinstance(options, WithGravity)
            else None
        )
        self.timescales = Timescales(options, heads, dim) if isinstance(options, WithTimescales) else None
        self.norms = BranchNorms(heads, self.head_dim) if isinstance(options, RAttention) else None
        self.recurrence: Recurrence | None = None
        if isinstance(options, Recurrent):
            self.recurrence = Recurrence(options, dim, all_heads, all_kv_heads, self.head_dim)
        else:
            self.attention_hook: Hook | None = None
            """Called as ``attention_hook(function, query, key, value, options)`` in the place of the
            function, with heads that are rotated. For RAttention's local branch function and value are None.
            Layers without a map have no such attribute."""

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        *,
        segment_ids: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """``[batch, length, dim]`` to the same.

        Parameters
        ----------
        x:
            The tokens.
        attention_mask:
            As in Transformers: ``[batch, length]``, bool or integers, 1 or True = attend, 0 or False =
            padding, which no token sees. (``key_padding_mask`` of `torch.nn` has the opposite meaning.)
        segment_ids:
            Integers ``[batch, length]``; tokens see those with the same number.
        cache:
            Of `LanguageModel.new_cache`: the tokens follow those in it. Excludes masks and gradients.

        Raises
        ------
        TypeError
            `attention_mask` is no tensor of bools or integers.
        ValueError
            A mask of another shape or with other numbers than 0 and 1, or a cache with masks or gradients.
        """
        query, key, value = self.projected(x)
        if self.gravity is not None:
            query, key = self.gravity.positions(query, key)
        if cache is None:
            masks = {"key_mask": as_key_mask(attention_mask, x), "segment_ids": segment_ids}
            heads = self._attend(query, key, value, self._rule(x), masks)
        else:
            _require_decoding(self.causal, attention_mask, segment_ids)
            heads = cache.attend(self, query, key, value, self._rule(x))
        if self.recurrence is not None:
            heads = self.recurrence.gated(heads, x)
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return joined

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values ``[batch, heads, length, head_dim]``, normed with `qk_norm`, not rotated."""
        query, key, value = (self._heads(linear(x)) for linear in (self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value

    def _heads(self, rows: Tensor) -> Tensor:
        batch, length, width = rows.shape
        return rows.reshape(batch, length, width // self.head_dim, self.head_dim).transpose(1, 2)

    def _rule(self, x: Tensor) -> dict[str, Any]:
        """What the mechanism's function takes besides query, key, value, masks and window."""
        if self.recurrence is not None:
            return self.recurrence.rule(x)
        rule = {} if self.gravity is None else self.gravity.rule(x)
        if self.timescales is not None:
            rule["log_discount"] = self.timescales.log_discount(x)
        return rule if self.norms is None else self.norms.rule()

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any], masks: dict[str, Any]
    ) -> Tensor:
        if isinstance(self.mechanism, RAttention):
            self.show_local(query, key, **masks)
            rule |= {"window": self.window, "rope_theta": self.rope_theta}
            rule["feature_map"] = self.mechanism.feature_map
            heads = rt.rattention(query, key, value, **rule, **masks)
        elif self.recurrence is not None:
            heads = self.recurrence(query, key, value, **rule, **masks)
        else:
            query, key = rotary(query, key, theta=self.rope_theta)
            heads = self.softmax_family(query, key, value, **rule, **masks)
        return heads  # type: ignore[no-any-return]

    def softmax_family(self, query: Tensor, key: Tensor, value: Tensor, **rule: Any) -> Tensor:
        """The mechanism on heads that are rotated already."""
        function = rt.attention if self.gravity is None else rt.gravitational_attention
        options = {"causal": self.causal, "window": self.window, **rule}
        if self.attention_hook is not None:
            return self.attention_hook(function, query, key, value, options)  # type: ignore[no-any-return]
        heads: Tensor = function(query, key, value, **options)
        return heads

    def show_local(self, query: Tensor, key: Tensor, *, first_position: int = 0, **masks: Any) -> None:
        """Show RAttention's local branch to the hook; the last query and key belong to the same
        token, and `first_position` is that of the first key."""
        if self.attention_hook is not None:
            query, key = aligned_rotary(query, key, theta=self.rope_theta, first_position=first_position)
            self.attention_hook(None, query, key, None, {"causal": True, "window": self.window, **masks})

    def extra_repr(self) -> str:  # noqa: D102
        return f"mechanism={self.mechanism}, causal={self.causal}, qk_norm={self.qk_norm}"


def as_key_mask(attention_mask: Tensor | None, x: Tensor) -> Tensor | None:
    """An `attention_mask` for tokens `x` ``[batch, length, dim]`` as bool, True = attend."""
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor):
        raise TypeError(f"attention_mask must be a tensor, got {type(attention_mask).__name__}")
    if attention_mask.is_floating_point() or attention_mask.is_complex():
        raise TypeError(f"attention_mask must be bool or integers (1 = attend), got {attention_mask.dtype}")
    if attention_mask.shape != x.shape[:2]:
        raise ValueError(
            f"attention_mask must be [batch, length] = {list(x.shape[:2])}, got {list(attention_mask.shape)}"
        )
    shown = attention_mask.bool()
    # Under torch.compile numbers are not known yet.
    if shown is not attention_mask and not torch.compiler.is_compiling() and not shown.is_meta:
        others = attention_mask[shown != attention_mask]
        if len(others) > 0:
            raise ValueError(f"attention_mask must hold 0 and 1 (1 = attend), got {others[0].item()}")
    return shown


def _head_dim(dim: int, heads: int, kv_heads: int | None, head_dim: int | None) -> int:
    if heads < 1 or (kv_heads is not None and (kv_heads < 1 or heads % kv_heads != 0)):
        raise ValueError(f"kv_heads must divide heads, got heads={heads} and kv_heads={kv_heads}")
    if head_dim is None and dim % heads != 0:
        raise ValueError(f"heads must divide dim or head_dim be given, got dim={dim} and heads={heads}")
    return dim // heads if head_dim is None else head_dim


def _require_decoding(causal: bool, *masks: Tensor | None) -> None:
    if not causal:
        raise ValueError("a cache needs causal attention")
    if any(mask is not None for mask in masks):
        raise ValueError("attention_mask and segment_ids cannot be combined with a cache")
    if torch.is_grad_enabled():
        raise ValueError("decoding with a cache has no gradients: call it under torch.no_grad()")
