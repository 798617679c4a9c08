"""Transformers of any pattern of attention layers: an encoder and a decoder-only language model."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rattention._models import evaluating
from rattention.nn.attention import SelfAttention, as_key_mask
from rattention.nn.decoding import DecodingCache
from rattention.nn.mechanisms import Softmax, as_pattern
from rattention.nn.weights import load_model, save_model

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from rattention.nn.attention import LayerCache
    from rattention.nn.mechanisms import Pattern

FULL = Softmax(rope_theta=10_000.0)
"""Every layer sees everything, with rotary embedding."""


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Numbers of parameters in attention, MLPs, embeddings and norms, and in total.

    >>> from rattention.nn import RAttention, SelfAttention, count_parameters
    >>> count_parameters(SelfAttention(64, heads=4, mechanism=RAttention(window=8), causal=True))
    {'attention': 16512, 'total': 16512}
    """
    counts: Counter[str] = Counter()
    kinds = {SelfAttention: "attention", Mlp: "mlp", nn.Embedding: "embedding", nn.RMSNorm: "norm"}
    for kind, name in kinds.items():
        for part in module.modules():
            if isinstance(part, kind):
                counts[name] += sum(p.numel() for p in part.parameters())
    counts["total"] = sum(p.numel() for p in module.parameters())
    return dict(counts)


class Mlp(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., dim]`` to the same."""
        y: Tensor = self.down(nn.functional.gelu(self.up(x)))
        return y


class Block(nn.Module):
    """Attention and MLP, each after an RMSNorm and added to its input."""

    def __init__(self, attention: SelfAttention, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.attention = attention
        self.mlp = Mlp(dim, mlp_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """``[batch, length, dim]`` to the same, with the options of `SelfAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), **options))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


class TransformerEncoder(nn.Module):
    """Pre-norm transformer layers on embedded tokens.

    Parameters
    ----------
    dim, heads, kv_heads, causal, head_dim, qk_norm:
        As in `SelfAttention`, for all layers.
    depth:
        Number of layers.
    pattern:
        The mechanism of all layers, or a sequence with one for each, repeated from the start where there are
        more layers; see `SelfAttention`. Full attention with rotary embedding by default.
    mlp_dim:
        Width inside the MLPs, ``4 * dim`` by default.
    dropout:
        On what attention and MLP add to the residual stream. Attention weights have none.

    Examples
    --------
    >>> import torch
    >>> from rattention.nn import TransformerEncoder
    >>> encoder = TransformerEncoder(64, heads=4, depth=2, pattern="gravitational")
    >>> mask = torch.arange(50)[None] < torch.tensor([[50], [30]])
    >>> encoder(torch.randn(2, 50, 64), attention_mask=mask).shape
    torch.Size([2, 50, 64])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        depth: int,
        *,
        kv_heads: int | None = None,
        pattern: Pattern = FULL,
        causal: bool = False,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        qk_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kinds, hidden = as_pattern(pattern), 4 * dim if mlp_dim is None else mlp_dim
        options: dict[str, Any] = {"causal": causal, "head_dim": head_dim, "qk_norm": qk_norm}
        attentions = (
            SelfAttention(dim, heads, kv_heads, mechanism=kind, **options)
            for kind in itertools.islice(itertools.cycle(kinds), depth)
        )
        self.layers = nn.ModuleList(Block(attention, dim, hidden, dropout) for attention in attentions)
        self.norm = nn.RMSNorm(dim)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        *,
        segment_ids: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """``[batch, length, dim]`` to the same; masks and errors are those of `SelfAttention`."""
        key_mask = as_key_mask(attention_mask, x)
        caches: Sequence[LayerCache | None] = [None] * len(self.layers) if cache is None else cache.layers
        for layer, past in zip(self.layers, caches, strict=True):
            x = layer(x, attention_mask=key_mask, segment_ids=segment_ids, cache=past)
        y: Tensor = self.norm(x)
        return y

    def attention_layers(self) -> list[SelfAttention]:
        """The attention of every layer, in order."""
        return [layer.attention for layer in self.layers]  # type: ignore[misc]


class LanguageModel(nn.Module):
    """A decoder-only transformer whose output layer shares the embedding's weights.

    Parameters
    ----------
    vocabulary:
        Number of tokens.
    dropout:
        On embeddings and residuals.
    dim, heads, kv_heads, depth, pattern, head_dim, mlp_dim, qk_norm:
        As in `TransformerEncoder`; see `rattention_pattern`.

    Examples
    --------
    >>> import torch
    >>> from rattention.nn import LanguageModel, MultiTimescale, count_parameters
    >>> layers = MultiTimescale(timescales=[4.0, 64.0])
    >>> model = LanguageModel(100, dim=32, heads=2, depth=2, pattern=layers, dropout=0.1)
    >>> model(torch.zeros(1, 7, dtype=torch.int64)).shape
    torch.Size([1, 7, 100])
    >>> count_parameters(model)["total"]
    36132
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        heads: int,
        depth: int,
        *,
        kv_heads: int | None = None,
        pattern: Pattern = FULL,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        qk_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = {
            "dim": dim,
            "heads": heads,
            "depth": depth,
            "kv_heads": kv_heads,
            "pattern": [kind.as_dict() for kind in as_pattern(pattern)],
            "head_dim": head_dim,
            "mlp_dim": mlp_dim,
            "qk_norm": qk_norm,
            "dropout": dropout,
        }
        self.config = {"vocabulary": vocabulary} | layers
        """Arguments that make such a model, as JSON has them."""
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(**layers, causal=True)

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        *,
        segment_ids: Tensor | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Tokens ``[batch, length]`` to logits ``[batch, length, vocabulary]``; masks: `SelfAttention`."""
        x = self.dropout(self.embedding(tokens))
        x = self.encoder(x, attention_mask, segment_ids=segment_ids, cache=cache)
        return nn.functional.linear(x, self.embedding.weight)

    def new_cache(self, batch: int) -> DecodingCache:
        """An empty cache for `batch` sequences: ``forward(tokens, cache=...)`` goes on after its tokens."""
        return DecodingCache(self.encoder.attention_layers(), batch)

    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        cache: DecodingCache | None = None,
    ) -> Tensor:
        """Append `count` tokens, one after another.

        Parameters
        ----------
        tokens:
            The prompt ``[batch, length]``, without padding; with a `cache` what follows the tokens in it.
        count:
            Number of tokens to generate.
        temperature:
            Divides the logits before sampling; 0 takes the most likely token.
        generator:
            Random numbers for sampling.
        cache:
            Of `new_cache`; afterwards it holds all tokens but the last, with which the next call begins.

        Returns
        -------
        The tokens ``[batch, length + count]``. Layers with a state, those of RAttention among them, and of
        windowed attention need memory that does not depend on the length.
        """
        if tokens.dim() != 2 or tokens.shape[1] == 0:
            raise ValueError(
                f"tokens must be [batch, length] with length > 0, got shape {tuple(tokens.shape)}"
            )
        if temperature < 0 or count < 0:
            raise ValueError(f"temperature and count must be >= 0, got {temperature} and {count}")
        parts, cache = [tokens], cache or self.new_cache(len(tokens))
        with evaluating(self):
            for _ in range(count):
                logits = self(parts[-1], cache=cache)[:, -1]
                if temperature == 0:
                    parts.append(logits.argmax(dim=-1, keepdim=True))
                else:
                    weights = (logits.float() / temperature).softmax(dim=-1)
                    parts.append(torch.multinomial(weights, 1, generator=generator))
        return torch.cat(parts, dim=1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to a safetensors file, whole or not at all."""
        save_model(self, self.config, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LanguageModel:
        """The model in a file that `save` wrote, in the dtype of its weights.

        `rattention.models.WeightsError` names the fault of a file that is something else or damaged.
        """
        return load_model(cls, path)
