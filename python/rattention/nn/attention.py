"""Self-attention as a module, one class for every mechanism of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import rattention.torch as rt
from rattention.mechanisms.table import MECHANISMS
from rattention.nn.parts import BranchNorms, Gravity, Timescales
from rattention.torch.rotary import aligned_rotary, rotary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattention.nn.decoding import LayerCache

    Hook = Callable[..., Any]

MODULES = tuple(name for name in MECHANISMS if name != "residual_linear")
"""Mechanisms that are a layer by themselves: the linear branch alone does not see the nearest tokens."""

DEFAULT_TIMESCALES = (4.0, 16.0, 64.0, 256.0)


class SelfAttention(nn.Module):
    """Projections, attention by one of the mechanisms, and the projection back.

    Parameters
    ----------
    dim:
        Width of the tokens.
    heads, kv_heads:
        Query heads, and key/value heads, which must divide them (all by default). Of a mechanism with
        timescales: of each timescale.
    mechanism:
        A name in `rattention.MECHANISMS`: ``"softmax"``, ``"sliding_window"``, ``"gravitational"``,
        ``"multi_timescale"``, ``"gravitational_multi_timescale"`` or ``"rattention"``. The gravitational ones
        learn a positive mass of every token for every head and a positive gravity per head. Those with
        timescales have query, key, value and masses of their own for each timescale; the projection back is
        their decoder, a learned linear map from the outputs of all timescales, each an exponentially
        discounted (Laplace-like) view of the sequence, to `dim`. RAttention learns the weights of its two
        norms.
    causal:
        Rows see no later ones. RAttention is always causal and wants this to be True.
    head_dim:
        ``dim // heads`` by default.
    window:
        As in `rattention.attention`; needed for ``"sliding_window"`` and ``"rattention"``.
    rope_theta:
        Base of a rotary embedding of queries and keys; None is none. Not for the gravitational ones, whose
        scores are distances.
    timescales, learn_timescales:
        Numbers of positions over which a weight decays by a factor of e, and whether training changes them.
        4, 16, 64 and 256 by default.
    adaptive_timescales:
        Whether every token sets how far back it looks: a learned linear gate of the token multiplies each
        timescale, for its row, by a factor from 1/e to e; 1 at first.
    distance, learn_exponent:
        Of the gravitational ones: ``"squared_euclidean"`` ``|q - k|^2``, ``"euclidean"`` ``|q - k|``, or
        ``"cosine"`` ``1 - cos(q, k)``, where the cosine with a vector of length 0 is 0; and whether training
        changes the exponent, a positive one of ``|q - k|``, or of ``sqrt(1 - cos)``, for every head.
    softening:
        Added to these distances; it bounds the scores.
    feature_map:
        Of RAttention's linear branch, ``"softmax"`` or ``"relu"``.
    bias:
        Whether projections have one.

    Raises
    ------
    ValueError
        Sizes that do not fit each other, an unknown mechanism, or an option it does not have.

    Notes
    -----
    There is no dropout of attention weights: they are never stored.

    >>> import torch
    >>> from rattention.nn import SelfAttention
    >>> layer = SelfAttention(64, heads=4, kv_heads=2, mechanism="rattention", causal=True, window=8)
    >>> layer(torch.randn(1, 100, 64)).shape
    torch.Size([1, 100, 64])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        mechanism: str = "softmax",
        causal: bool = False,
        head_dim: int | None = None,
        window: int | None = None,
        rope_theta: float | None = None,
        timescales: Sequence[float] | None = None,
        learn_timescales: bool = True,
        adaptive_timescales: bool = False,
        distance: str = "squared_euclidean",
        learn_exponent: bool = False,
        softening: float = 1.0,
        feature_map: str = "softmax",
        bias: bool = False,
    ) -> None:
        """Make the layer; parameters as above."""
        super().__init__()
        if mechanism not in MODULES:
            raise ValueError(f"mechanism must be one of {', '.join(MODULES)}, got {mechanism!r}")
        learned = MECHANISMS[mechanism].parameters
        _require_options(mechanism, learned, causal, window, rope_theta)
        if (timescales is not None or adaptive_timescales) and "log_discount" not in learned:
            raise ValueError(f"mechanism {mechanism!r} has no timescales")
        if (distance != "squared_euclidean" or learn_exponent) and "gravity" not in learned:
            raise ValueError(f"mechanism {mechanism!r} has no distance: its scores are products")
        self.head_dim = _head_dim(dim, heads, kv_heads, head_dim)
        scales = len(timescales or DEFAULT_TIMESCALES) if "log_discount" in learned else 1
        all_heads, all_kv_heads = scales * heads, scales * (kv_heads or heads)
        self.mechanism, self.causal, self.window, self.rope_theta = mechanism, causal, window, rope_theta
        self.softening, self.feature_map = softening, feature_map
        self.query = nn.Linear(dim, all_heads * self.head_dim, bias=bias)
        self.key = nn.Linear(dim, all_kv_heads * self.head_dim, bias=bias)
        self.value = nn.Linear(dim, all_kv_heads * self.head_dim, bias=bias)
        self.output = nn.Linear(all_heads * self.head_dim, dim, bias=bias)
        self.gravity = (
            Gravity(dim, all_heads, all_kv_heads, self.head_dim, distance, learn_exponent)
            if "gravity" in learned
            else None
        )
        self.timescales = (
            Timescales(
                timescales or DEFAULT_TIMESCALES,
                heads,
                learn_timescales,
                dim if adaptive_timescales else None,
            )
            if "log_discount" in learned
            else None
        )
        self.norms = BranchNorms(heads, self.head_dim) if "local_norm_weight" in learned else None
        self.attention_hook: Hook | None = None
        """Called as ``attention_hook(function, query, key, value, options)`` in the place of the function,
        with heads that are rotated. For RAttention's local branch function and value are None."""

    def forward(
        self,
        x: torch.Tensor,
        *,
        key_mask: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        """``[batch, length, dim]`` to the same.

        Masks are those of `rattention.attention`. With a `cache`, see `LanguageModel.new_cache`, the tokens
        go on from those in it; there are no masks then and no gradients.
        """
        query, key, value = (self._heads(linear(x)) for linear in (self.query, self.key, self.value))
        if self.gravity is not None:
            query, key = self.gravity.positions(query, key)
        if cache is None:
            masks = {"key_mask": key_mask, "segment_ids": segment_ids}
            heads = self._attend(query, key, value, self._rule(x), masks)
        else:
            _require_decoding(self.causal, key_mask, segment_ids)
            heads = cache.attend(self, query, key, value, self._rule(x))
        joined: torch.Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        batch, length, width = rows.shape
        return rows.reshape(batch, length, width // self.head_dim, self.head_dim).transpose(1, 2)

    def _rule(self, x: torch.Tensor) -> dict[str, Any]:
        """What the mechanism's function takes besides query, key, value, masks and window."""
        rule: dict[str, Any] = {}
        if self.gravity is not None:
            own, other = self.gravity(x)
            strength = self.gravity.strength()
            rule |= {"query_mass": own, "key_mass": other, "gravity": strength, "eps": self.softening}
            rule["exponent"] = self.gravity.exponent()
        if self.timescales is not None:
            rule["log_discount"] = self.timescales.log_discount(x)
        if self.norms is not None:
            rule["local_norm_weight"] = self.norms.local_norm_weight
            rule["linear_norm_weight"] = self.norms.linear_norm_weight
        return rule

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
        masks: dict[str, Any],
    ) -> torch.Tensor:
        if self.norms is not None:
            self.show_local(query, key, **masks)
            rule |= {"window": self.window, "rope_theta": self.rope_theta, "feature_map": self.feature_map}
            heads = rt.rattention(query, key, value, **rule, **masks)
        else:
            query, key = rotary(query, key, theta=self.rope_theta)
            heads = self.softmax_family(query, key, value, **rule, **masks)
        return heads  # type: ignore[no-any-return]

    def softmax_family(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **rule: Any
    ) -> torch.Tensor:
        """The mechanism on heads that are rotated already."""
        function = rt.attention if self.gravity is None else rt.gravitational_attention
        options = {"causal": self.causal, "window": self.window, **rule}
        if self.attention_hook is not None:
            return self.attention_hook(function, query, key, value, options)  # type: ignore[no-any-return]
        heads: torch.Tensor = function(query, key, value, **options)
        return heads

    def show_local(
        self, query: torch.Tensor, key: torch.Tensor, *, first_position: int = 0, **masks: Any
    ) -> None:
        """Show RAttention's local branch to the hook; the last query and key are of one token, and
        `first_position` is the first key's."""
        if self.attention_hook is not None:
            query, key = aligned_rotary(query, key, theta=self.rope_theta, first_position=first_position)
            self.attention_hook(None, query, key, None, {"causal": True, "window": self.window, **masks})

    def extra_repr(self) -> str:
        """The mechanism, in the module's text."""
        names = ("mechanism", "causal", "window", "rope_theta")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def _head_dim(dim: int, heads: int, kv_heads: int | None, head_dim: int | None) -> int:
    if heads < 1 or (kv_heads is not None and (kv_heads < 1 or heads % kv_heads != 0)):
        raise ValueError(f"kv_heads must divide heads, got heads={heads} and kv_heads={kv_heads}")
    if head_dim is None and dim % heads != 0:
        raise ValueError(f"heads must divide dim or head_dim be given, got dim={dim} and heads={heads}")
    return dim // heads if head_dim is None else head_dim


def _require_options(
    mechanism: str,
    learned: tuple[str, ...],
    causal: bool,
    window: int | None,
    rope_theta: float | None,
) -> None:
    if mechanism in ("sliding_window", "rattention") and window is None:
        raise ValueError(f"mechanism {mechanism!r} needs a window")
    if mechanism == "rattention" and not causal:
        raise ValueError("mechanism 'rattention' is causal: give causal=True")
    if rope_theta is not None and "gravity" in learned:
        raise ValueError(f"mechanism {mechanism!r} has no rope_theta: its scores are distances")


def _require_decoding(causal: bool, *masks: torch.Tensor | None) -> None:
    if not causal:
        raise ValueError("a cache needs causal attention")
    if any(mask is not None for mask in masks):
        raise ValueError("key_mask and segment_ids do not go with a cache")
    if torch.is_grad_enabled():
        raise ValueError("decoding with a cache has no gradients: call it under torch.no_grad()")
