"""The attention module that replaces another in a converted model."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

import rattention.torch as rt
from rattention.hf.attention import refuse
from rattention.hf.cache import CACHES, RAttentionCacheLayer, given_cache, layer_of
from rattention.hf.masks import PatternMask
from rattention.hf.rotation import RECEIVER, LayerShape, no_rotation, with_implementation
from rattention.torch.calibration import begin_as_window
from rattention.torch.checks import as_tensor
from rattention.torch.rotary import aligned_rotary

if TYPE_CHECKING:
    from transformers import Cache

    from rattention.nn.attention import Hook


class RAttentionModule(torch.nn.Module):
    """RAttention in an attention module, whose projections, norms of queries and keys and output stay.

    It is mixed into the class of the module, see `become_converted`. New are the weights of its two norms,
    ``local_norm_weight`` and ``linear_norm_weight``, ``[heads, value_dim]``, 1 unless they are calibrated.
    Positions count the tokens of the sequence; position ids are ignored.
    """

    config: Any
    layer_idx: int
    window: int
    shape: LayerShape
    local_norm_weight: torch.nn.Parameter
    linear_norm_weight: torch.nn.Parameter
    attention_hook: Hook | None
    """Shown the local branch as that of `rattention.nn.SelfAttention`."""
    calibrating = False
    """Whether the next call sets the norms' weights by what the layer is called with."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: torch.Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """What the module returned before, of RAttention."""
        masks = self._masks(arguments, attention_mask)
        receive = functools.partial(self._attend, masks, given_cache(arguments))
        others = {name: value for name, value in arguments.items() if name not in CACHES}
        return super().forward(  # its own queries and keys, not rotated
            hidden_states=hidden_states,
            position_embeddings=no_rotation(hidden_states, self.shape.rotary_dims),
            attention_mask=None,
            **others | {RECEIVER: receive},
        )

    def _attend(
        self,
        masks: dict[str, torch.Tensor],
        cache: Cache | None,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        dropout: float = 0.0,
        scaling: float | None = None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """The output ``[batch, tokens, heads, value_dim]``, and None in place of an attention map."""
        refuse(self, dropout, arguments)
        if self.shape.rotation is not None:
            query, key = (self.shape.rotation.ordered(tensor) for tensor in (query, key))
        settings = self._settings(scaling)
        tokens = [query, key, value]
        if self.attention_hook is not None or self.calibrating:
            query, key, options = self._local(query, key, masks, cache, settings)
            if self.attention_hook is not None:
                self.attention_hook(None, query, key, None, options)
            if self.calibrating:
                self.calibrating = False  # some models have a layer twice
                local = rt.attention(query, key, value, **options)
                begin_as_window(local, self.local_norm_weight, self.linear_norm_weight)
        if cache is None:
            output = rt.rattention(*tokens, **settings | masks)
        else:
            output = self._next(tokens, masks, cache, settings)
        return output.transpose(1, 2).contiguous(), None

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
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        masks: dict[str, Any],
        cache: Cache | None,
        settings: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """What the local branch attends with; ValueError where a cache has left out padding."""
        options = {"causal": True, "window": self.window, "scale": settings["scale"]}
        kept = None if cache is None else self._layer(cache, settings).contents
        if kept is None or kept.length == 0:
            return *aligned_rotary(query, key, frequencies=settings["rope_frequencies"]), options | masks
        seen = torch.cat([as_tensor(kept.recent_keys()), key], dim=2)
        first = kept.length + query.shape[2] - seen.shape[2]
        return *aligned_rotary(
            query, seen, frequencies=settings["rope_frequencies"], first_position=first
        ), options

    def _layer(self, cache: Cache, settings: dict[str, Any]) -> RAttentionCacheLayer:
        def empty() -> RAttentionCacheLayer:
            own: dict[str, Any] = {
                name: value.detach() if isinstance(value, torch.Tensor) else value
                for name, value in settings.items()
            }
            return RAttentionCacheLayer(**own)

        return layer_of(cache, self.layer_idx, empty)

    def _settings(self, scaling: float | None) -> dict[str, Any]:
        """What `rattention.torch.rattention` and the cache take."""
        rotation = self.shape.rotation
        return {
            "window": self.window,
            "rope_frequencies": None if rotation is None else rotation.rates,
            "scale": scaling,
            "local_norm_weight": self.local_norm_weight,
            "linear_norm_weight": self.linear_norm_weight,
        }

    def _next(
        self, tokens: list[torch.Tensor], masks: dict[str, Any], cache: Cache, settings: dict[str, Any]
    ) -> torch.Tensor:
        layer = self._layer(cache, settings)
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
        return rt.rattention(query, key, value, **settings, **new) if differentiable else output


def become_converted(attention: Any, window: int, shape: LayerShape) -> None:
    """Make an attention module an `RAttentionModule`, in place: it keeps its parameters and their names."""
    weight = next(attention.parameters())
    attention.__class__ = _converted_class(type(attention))  # type: ignore[arg-type]
    attention.window, attention.shape = window, shape
    attention.config = with_implementation(attention.config)
    for name in ("local_norm_weight", "linear_norm_weight"):
        ones = torch.ones(shape.heads, shape.value_dim, dtype=weight.dtype, device=weight.device)
        setattr(attention, name, torch.nn.Parameter(ones))
    attention.attention_hook = None


@functools.cache
def _converted_class(kind: type) -> type:
    return type(f"RAttention{kind.__name__}", (RAttentionModule, kind), {"__module__": __name__})


def sliding_window_of(attention: Any) -> int | None:
    """W of a module's own sliding-window attention; Mistral's modules leave it to their configuration."""
    if getattr(attention, "is_sliding", True) is False:  # EXAONE 4's name a window that they do not have
        return None
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window  # type: ignore[no-any-return]
    return getattr(attention.config, "sliding_window", None)
