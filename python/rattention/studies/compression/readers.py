"""The two kinds of language models behind one interface: read tokens, and say what the caches hold."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rattention.nn import LanguageModel, RAttention
from rattention.nn.decoding import DecodingCache

if TYPE_CHECKING:
    import torch


class Reader(ABC):
    """A model that reads tokens ``[batch, length]`` part by part."""

    @abstractmethod
    def new_cache(self, batch: int) -> Any:
        """Empty."""

    @abstractmethod
    def read(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits ``[batch, length, vocabulary]``; the tokens go into the cache."""

    @abstractmethod
    def nbytes(self, cache: Any) -> int:
        """Bytes that the cache holds."""

    @abstractmethod
    def windows(self) -> list[int]:
        """Of the layers of RAttention."""

    @abstractmethod
    def token_nbytes(self) -> int:
        """Bytes of the keys and values of one token in all layers, were they all kept."""


class NativeReader(Reader):
    """Of `rattention.nn`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def new_cache(self, batch: int) -> DecodingCache:
        """The model's own."""
        return self.model.new_cache(batch)

    def read(self, tokens: torch.Tensor, cache: DecodingCache) -> torch.Tensor:
        """One forward pass."""
        return self.model(tokens, cache=cache)  # type: ignore[no-any-return]

    def nbytes(self, cache: DecodingCache) -> int:
        """Of all layers."""
        return cache.nbytes

    def windows(self) -> list[int]:
        """Of layers with the mechanism of that name."""
        kinds = [layer.mechanism for layer in self.model.encoder.attention_layers()]
        return [kind.window for kind in kinds if isinstance(kind, RAttention)]

    def token_nbytes(self) -> int:
        """By the sizes of the projections."""
        layers = self.model.encoder.attention_layers()
        return sum(2 * a.key.out_features * a.key.weight.element_size() for a in layers)


class PretrainedReader(Reader):
    """Of Transformers."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def new_cache(self, batch: int) -> Any:
        """The kind that grows."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def read(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        """One forward pass."""
        return self.model(tokens, past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]

    def nbytes(self, cache: Any) -> int:
        """Of keys and values, or of what a layer says it holds."""
        return sum(_layer_nbytes(layer) for layer in cache.layers)

    def windows(self) -> list[int]:
        """Of the layers that `rattention.hf.convert` has converted."""
        from rattention.hf.converted import RAttentionModule

        return [m.window for m in self.model.modules() if isinstance(m, RAttentionModule)]

    def token_nbytes(self) -> int:
        """By the configuration."""
        config = self.model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize)


def reader_of(model: Any) -> Reader:
    """The reader of a language model; TypeError for other models."""
    if isinstance(model, LanguageModel):
        return NativeReader(model)
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(model, transformers.PreTrainedModel):
        return PretrainedReader(model)
    raise TypeError(
        "model must be a rattention.nn.LanguageModel or a causal language model of Transformers, got "
        f"{type(model).__name__}"
    )


def _layer_nbytes(layer: Any) -> int:
    held = getattr(layer, "held", layer)
    if hasattr(held, "nbytes"):
        return int(held.nbytes)
    return 0 if layer.keys is None else int(layer.keys.nbytes + layer.values.nbytes)
