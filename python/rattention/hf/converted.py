"""The attention module that replaces another in a converted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import rattention.torch as rt
from rattention.hf.attention import refuse
from rattention.hf.cache import RAttentionCacheLayer, layer_of
from rattention.hf.masks import PatternMask
from rattention.torch.checks import as_tensor
from rattention.torch.rotary import aligned_rotary

if TYPE_CHECKING:
    from transformers import Cache

    from rattention.nn.attention import Hook

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class RAttentionModule(torch.nn.Module):
    """RAttention with the projections of another attention module, under the same names.

    New are the weights of its two norms, ``local_norm_weight`` and ``linear_norm_weight``, ``[heads,
    head_dim]``, 1 at first. Positions count the tokens of the sequence; position ids are ignored.
    """

    def __init__(self, attention: Any, window: int, rope_theta: float) -> None:
        super().__init__()
        self.config: Any = attention.config
        self.layer_idx: int = attention.layer_idx
        self.head_dim: int = attention.head_dim
        self.scaling: float = attention.scaling
        self.sliding_window = sliding_window_of(attention)
        """Of the module that it replaces, for `cache_report`."""
        self.window = window
        self.rope_theta = rope_theta
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.o_proj = attention.v_proj, attention.o_proj
        if hasattr(attention, "q_norm"):
            self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        shape = (attention.q_proj.out_features // self.head_dim, self.head_dim)
        self.local_norm_weight = torch.nn.Parameter(attention.q_proj.weight.new_ones(shape))
        self.linear_norm_weight = torch.nn.Parameter(attention.q_proj.weight.new_ones(shape))
        self.attention_hook: Hook | None = None
        """Shown the local branch as that of `rattention.nn.SelfAttention`."""
        self.train(attention.training)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """The module's output ``[batch, tokens, hidden_size]``, and None in place of an attention map.

        `cache` is what Transformers 5.24 calls `past_key_values`.
        """
        refuse(self, self.config.attention_dropout if self.training else 0.0, arguments)
        masks = self._masks(arguments, attention_mask)
        cache = past_key_values if cache is None else cache
        tokens = self._tokens(hidden_states)
        if self.attention_hook is not None:
            query, key, options = self._local(tokens[0], tokens[1], masks, cache)
            self.attention_hook(None, query, key, None, options)
        output = self._whole(tokens, masks) if cache is None else self._next(tokens, masks, cache)
        output = output.transpose(1, 2).reshape(*hidden_states.shape[:-1], -1)
        return self.o_proj(output), None

    def _tokens(self, hidden_states: torch.Tensor) -> list[torch.Tensor]:
        """Query, key and value ``[batch, heads, tokens, head_dim]``, not rotated."""
        split = (*hidden_states.shape[:-1], -1, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (projection(hidden_states).view(split) for projection in projections)
        if hasattr(self, "q_norm"):
            query, key = self.q_norm(query), self.k_norm(key)
        return [tensor.transpose(1, 2) for tensor in (query, key, value)]

    def _masks(self, arguments: dict[str, Any], mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Padding or segments of a causal mask; the window of the layer that was replaced does not count."""
        causal = arguments.get("is_causal") is not False and getattr(self.config, "is_causal", True)
        pattern = mask.pattern if isinstance(mask, PatternMask) else None if mask is not None else {}
        if not causal or not (pattern or {}).get("causal", True):
            raise ValueError("RAttention is causal, got is_causal=False")
        if pattern is None:
            assert mask is not None
            raise ValueError(
                f"converted layers need masks [batch, keys], got shape {tuple(mask.shape)}: keep the model's "
                'implementation, model.set_attn_implementation("rattention"), and give no 4-D masks'
            )
        return {name: pattern[name] for name in ("key_mask", "segment_ids") if name in pattern}

    def _local(
        self, query: torch.Tensor, key: torch.Tensor, masks: dict[str, Any], cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """What the local branch attends with; ValueError where a cache has left out padding."""
        options = {"causal": True, "window": self.window, "scale": self.scaling}
        kept = None if cache is None else self._layer(cache).contents
        if kept is None or kept.length == 0:
            return *aligned_rotary(query, key, theta=self.rope_theta), options | masks
        seen = torch.cat([as_tensor(kept.recent_keys()), key], dim=2)
        first = kept.length + query.shape[2] - seen.shape[2]
        return *aligned_rotary(query, seen, theta=self.rope_theta, first_position=first), options

    def _layer(self, cache: Cache) -> RAttentionCacheLayer:
        def empty() -> RAttentionCacheLayer:
            settings: dict[str, Any] = {
                name: value.detach() if isinstance(value, torch.Tensor) else value
                for name, value in self._settings().items()
            }
            return RAttentionCacheLayer(**settings)

        return layer_of(cache, self.layer_idx, empty)

    def _settings(self) -> dict[str, Any]:
        """What `rattention.torch.rattention` and the cache take."""
        return {
            "window": self.window,
            "rope_theta": self.rope_theta,
            "scale": self.scaling,
            "local_norm_weight": self.local_norm_weight,
            "linear_norm_weight": self.linear_norm_weight,
        }

    def _whole(self, tokens: list[torch.Tensor], masks: dict[str, Any]) -> torch.Tensor:
        query, key, value = tokens
        output: torch.Tensor = rt.rattention(query, key, value, **self._settings(), **masks)
        return output

    def _next(self, tokens: list[torch.Tensor], masks: dict[str, Any], cache: Cache) -> torch.Tensor:
        layer = self._layer(cache)
        new = {name: mask[:, -tokens[0].shape[2] :] for name, mask in masks.items()}
        inputs = (*tokens, self.local_norm_weight, self.linear_norm_weight)
        differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        if differentiable and layer.seen > 0:
            raise ValueError(
                "no gradient flows through the cache of a converted layer: use torch.no_grad(), or "
                "use_cache=False for training"
            )
        query, key, value = tokens
        output = layer.step(query, key, value, new.get("key_mask"))
        return self._whole(tokens, new) if differentiable else output


def sliding_window_of(attention: Any) -> int | None:
    """W of a module's own sliding-window attention; Mistral's modules leave it to their configuration."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window  # type: ignore[no-any-return]
    return getattr(attention.config, "sliding_window", None)
