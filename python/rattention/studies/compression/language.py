"""Language models: what follows a compressed prefix, token by token, against what follows the full one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rattention._extras import require
from rattention._models import kind_of
from rattention.compression.compressing import Compression, compress
from rattention.compression.past import Budget, resolve_budget
from rattention.compression.strategies import STRATEGIES, Strategy
from rattention.nn import LanguageModel, RAttention
from rattention.studies.compression.results import Constant, Measured, Preview
from rattention.studies.compression.tasks import Task, draw_pieces

torch: Any = require("torch")


class Continuation(Task):
    """Perplexity of the continuation of pieces of a text, after the prefix was compressed.

    The prefix is read in one pass; then the tokens that follow come one by one, as in generation, with the
    cuts that happen then. A seed draws the pieces.

    Parameters
    ----------
    model:
        A causal language model of Transformers, or a `rattention.nn.LanguageModel`.
    ids:
        The text's tokens ``[length]``.
    prefix, continuation:
        Tokens of each piece.
    batch:
        Pieces that a seed draws.
    slack:
        As in `rattention.compress`; smaller by default, to hold little more than the budget.
    """

    quality = "perplexity of the continuation"
    higher_is_better = False
    strategies = tuple(STRATEGIES)

    def __init__(
        self,
        model: Any,
        ids: ArrayLike,
        *,
        prefix: int = 256,
        continuation: int = 32,
        batch: int = 2,
        slack: int = 8,
    ) -> None:
        self.model, self.reader, self.ids = model, _reader_of(model), np.asarray(ids, np.int64)
        self.prefix, self.continuation, self.batch, self.slack = prefix, continuation, batch, slack
        if min(prefix, continuation - 1, batch) < 1:
            raise ValueError(
                f"prefix and batch must be >= 1 and continuation >= 2, got {prefix}, {batch}, {continuation}"
            )
        if len(self.ids) < prefix + continuation:
            raise ValueError(
                f"the text has {len(self.ids)} tokens, fewer than prefix and continuation together, "
                f"{prefix + continuation}"
            )
        model.eval()
        self.name = f"{type(model).__name__}, {continuation} tokens after {prefix}"
        self._full: tuple[Any, Measured] | None = None

    def full(self, seed: int) -> Measured:
        """Pieces of this seed, nothing compressed."""
        self._draw(seed)
        self._full = self._read(None)
        return self._full[1]

    def compressed(self, strategy: Strategy, budget: Budget) -> Measured:
        """The same pieces."""
        assert self._full is not None, "full comes first"
        resolve_budget(budget, self.prefix)
        with compress(self.model, strategy, budget, slack=self.slack) as use:
            logits, measured = self._read(use)
        return replace(measured, against_full=_differences(self._full[0], logits))

    def preview(self, seed: int, strategy: Strategy, budget: Budget) -> Preview:
        """Of the prefix of one piece, for each layer and key/value head."""
        resolve_budget(budget, self.prefix)
        self._draw(seed)
        with torch.no_grad(), compress(self.model, strategy, budget, slack=self.slack) as use:
            self.reader.read(self._pieces[:1, : self.prefix], self.reader.new_cache(1))
        every = np.arange(self.prefix)[None]
        kept = {
            f"{layer.name} head {head}": row.tolist()
            for layer in use.layers
            for head, row in enumerate(every if layer.positions is None else layer.positions[0])
        }
        return Preview(kept, self.prefix, _mean_mass(use), use.nbytes, use.full_nbytes)

    def constant(self) -> Constant | None:
        """What the caches of a model with RAttention layers hold, against keys and values of all tokens."""
        windows = self.reader.windows()
        if not windows or self._full is None:
            return None
        tokens = self.batch * (self.prefix + self.continuation - 1)
        label = f"RAttention, window {max(windows)} + state"
        return Constant(label, self._full[1].nbytes, tokens * self.reader.token_nbytes())

    def _draw(self, seed: int) -> None:
        length = self.prefix + self.continuation
        self._pieces = torch.from_numpy(draw_pieces(self.ids, length, self.batch, seed))

    def _read(self, use: Compression | None) -> tuple[Any, Measured]:
        """Logits ``[batch, continuation - 1, vocabulary]``, float64, of the pieces read under `use`."""
        pieces, reader = self._pieces, self.reader
        cache = reader.new_cache(len(pieces))
        start = time.perf_counter()
        with torch.no_grad():
            reader.read(pieces[:, : self.prefix], cache)
            mass = None if use is None else _mean_mass(use)
            places = range(self.prefix, pieces.shape[1] - 1)
            rows = [reader.read(pieces[:, at : at + 1], cache) for at in places]
            seconds = time.perf_counter() - start
        logits, wanted = torch.cat(rows, dim=1).double(), pieces[:, self.prefix + 1 :]
        perplexity = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).exp()
        choosing = 0.0 if use is None else use.seconds
        return logits, Measured(float(perplexity), seconds, choosing, reader.nbytes(cache), mass)


def _mean_mass(use: Compression) -> float:
    """What was not cut kept everything."""
    return float(np.mean([1.0 if layer.mass_kept is None else layer.mass_kept for layer in use.layers]))


def _differences(full: Any, ours: Any) -> dict[str, float]:
    """Between logits: Kullback-Leibler divergence in nats, share of equal first choices, relative error."""
    log_full, log_ours = full.log_softmax(dim=-1), ours.log_softmax(dim=-1)
    divergence = (log_full.exp() * (log_full - log_ours)).sum(dim=-1).mean()
    return {
        "kl": float(divergence),
        "top1_agreement": float((full.argmax(dim=-1) == ours.argmax(dim=-1)).double().mean()),
        "output_error": float((ours - full).norm() / full.norm()),
    }


class _Reader:
    """A model of `rattention.nn` that reads tokens ``[batch, length]`` part by part."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def new_cache(self, batch: int) -> Any:
        return self.model.new_cache(batch)

    def read(self, tokens: Any, cache: Any) -> Any:
        """Logits ``[batch, length, vocabulary]``; the tokens go into the cache."""
        return self.model(tokens, cache=cache)

    def nbytes(self, cache: Any) -> int:
        return int(cache.nbytes)

    def windows(self) -> list[int]:
        """Of the layers of RAttention."""
        kinds = [layer.mechanism for layer in self.model.encoder.attention_layers()]
        return [kind.window for kind in kinds if isinstance(kind, RAttention)]

    def token_nbytes(self) -> int:
        """Bytes of the keys and values of one token in all layers, were they all kept."""
        layers = self.model.encoder.attention_layers()
        return sum(2 * a.key.out_features * a.key.weight.element_size() for a in layers)


class _PretrainedReader(_Reader):
    """The same of a model of Transformers."""

    def new_cache(self, batch: int) -> Any:
        return require("transformers").DynamicCache(config=self.model.config)

    def read(self, tokens: Any, cache: Any) -> Any:
        return self.model(tokens, past_key_values=cache, use_cache=True).logits

    def nbytes(self, cache: Any) -> int:
        """Of keys and values, or of what a layer says it holds."""
        holders = [getattr(layer, "held", layer) for layer in cache.layers]
        parts = [(h,) if hasattr(h, "nbytes") else (h.keys, h.values) for h in holders]
        return sum(int(part.nbytes) for pair in parts for part in pair if part is not None)

    def windows(self) -> list[int]:
        from rattention.hf.converted import RAttentionModule

        return [m.window for m in self.model.modules() if isinstance(m, RAttentionModule)]

    def token_nbytes(self) -> int:
        config = self.model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize)


def _reader_of(model: Any) -> _Reader:
    if isinstance(model, LanguageModel):
        return _Reader(model)
    if kind_of(model) == "transformers":
        return _PretrainedReader(model)
    raise TypeError(
        "model must be a rattention.nn.LanguageModel or a causal language model of Transformers, got "
        f"{type(model).__name__}"
    )
