"""What layers remember while they generate: ring and state for RAttention, keys and values for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rattention.mechanisms.rattention_cache import RAttentionCache, rattention_step
from rattention.nn.rows import Rows
from rattention.torch.rotary import rotary
from rattention.torch.storage import as_array, as_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rattention.nn.attention import SelfAttention


class LayerCache:
    """The past of one layer."""

    length: int
    """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds."""
        raise NotImplementedError

    def attend(
        self,
        layer: SelfAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
    ) -> torch.Tensor:
        """The heads of new tokens; afterwards they belong to the past."""
        raise NotImplementedError


class KeyValueCache(LayerCache):
    """Keys, values and masses: with a window the last of them, else all, growing with the context."""

    def __init__(self, window: int | None) -> None:
        """Empty."""
        self.length = 0
        self.window = window
        self.kept = Rows()

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept; room for what follows is a quarter of it at most, or 16 tokens."""
        return self.kept.nbytes

    def attend(
        self,
        layer: SelfAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
    ) -> torch.Tensor:
        """Attention to what is kept and to the new tokens."""
        query, key = rotary(query, key, theta=layer.rope_theta, first_position=self.length)
        self.kept.append([key, value, *(rule[name] for name in ("key_mass",) if name in rule)])
        seen = self.kept.tensors()
        self.length += query.shape[2]
        if self.window is not None:
            self.kept.keep_last(self.window)
        rule = rule | dict(zip(("key_mass",), seen[2:], strict=False))
        return layer.softmax_family(query, seen[0], seen[1], **rule)


class StateCache(LayerCache):
    """RAttention's ring and state, whose size does not depend on the context."""

    def __init__(self, layer: SelfAttention, batch: int) -> None:
        """Empty, in the dtype of the layer."""
        weight = layer.key.weight
        if weight.device.type != "cpu":
            raise ValueError(f"RAttention layers generate on the CPU only, the model is on {weight.device}")
        self.length = 0
        self.contents = RAttentionCache(
            batch,
            weight.shape[0] // layer.head_dim,
            layer.head_dim,
            layer.window or 0,
            feature_map=layer.feature_map,
            rope_theta=layer.rope_theta,
            dtype=str(weight.dtype).removeprefix("torch."),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of ring and state."""
        return self.contents.nbytes

    def attend(
        self,
        layer: SelfAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: dict[str, Any],
    ) -> torch.Tensor:
        """One step of the cache."""
        if layer.attention_hook is not None:
            seen = torch.cat([as_tensor(self.contents.recent_keys()), key], dim=2)
            first = self.length + query.shape[2] - seen.shape[2]
            layer.show_local(query, seen, first_position=first)
        queries, keys, values = (as_array(tensor) for tensor in (query, key, value))
        weights: dict[str, Any] = {name: as_array(weight.float()) for name, weight in rule.items()}
        heads = rattention_step(queries, keys, values, self.contents, **weights)
        self.length += query.shape[2]
        return as_tensor(heads)


class DecodingCache:
    """The past of a model's layers, made by `LanguageModel.new_cache`.

    Layers of RAttention and of windowed attention keep the same number of bytes for any context, the others
    keep all keys and values.
    """

    def __init__(self, layers: Iterable[SelfAttention], batch: int) -> None:
        """Empty."""
        self.layers: list[LayerCache] = [
            KeyValueCache(layer.window) if layer.norms is None else StateCache(layer, batch)
            for layer in layers
        ]

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.layers[0].length if self.layers else 0

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers)
