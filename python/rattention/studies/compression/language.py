"""Language models: what follows a compressed prefix, token by token, against what follows the full one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.compression.budget import resolve_budget
from rattention.compression.compressing import compress
from rattention.compression.strategies import STRATEGIES
from rattention.studies.compression.readers import reader_of
from rattention.studies.compression.results import Constant, Measured, Preview

torch: Any = require("torch")

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from rattention.compression.budget import Budget
    from rattention.compression.report import Compression
    from rattention.compression.strategies import Strategy


@dataclass(frozen=True)
class _Reading:
    """Of one set of pieces."""

    logits: Any
    """Float64 ``[batch, continuation - 1, vocabulary]``."""
    seconds: float
    """Of prefix and continuation."""
    nbytes: int
    mass: float | None
    """Kept at the cut after the prefix, mean of the layers."""


class Continuation:
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
        Of `rattention.compress`; smaller than there, so that no more than the budget says is held.
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
        self.model, self.reader, self.ids = model, reader_of(model), np.asarray(ids, np.int64)
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
        self._pieces: Any = None
        self._full: _Reading | None = None

    def full(self, seed: int) -> Measured:
        """Pieces of this seed, nothing compressed."""
        self._draw(seed)
        self._full = full = self._read(None)
        return Measured(self._perplexity(full.logits), full.seconds, nbytes=full.nbytes)

    def compressed(self, strategy: Strategy, budget: Budget) -> Measured:
        """The same pieces."""
        assert self._full is not None, "full comes first"
        resolve_budget(budget, self.prefix)
        with compress(self.model, strategy, budget, slack=self.slack) as use:
            reading = self._read(use)
        return Measured(
            self._perplexity(reading.logits),
            reading.seconds,
            use.seconds,
            reading.nbytes,
            reading.mass,
            _differences(self._full.logits, reading.logits),
        )

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
        return Constant(label, self._full.nbytes, tokens * self.reader.token_nbytes())

    def _draw(self, seed: int) -> None:
        length = self.prefix + self.continuation
        starts = np.random.default_rng(seed).integers(0, len(self.ids) - length + 1, self.batch)
        self._pieces = torch.from_numpy(np.stack([self.ids[at : at + length] for at in starts]))

    def _read(self, use: Compression | None) -> _Reading:
        """Read the pieces; `use` is that of the compression they are read under."""
        pieces, reader = self._pieces, self.reader
        cache = reader.new_cache(len(pieces))
        start = time.perf_counter()
        with torch.no_grad():
            reader.read(pieces[:, : self.prefix], cache)
            mass = None if use is None else _mean_mass(use)
            places = range(self.prefix, pieces.shape[1] - 1)
            rows = [reader.read(pieces[:, at : at + 1], cache) for at in places]
            end = time.perf_counter()
        logits = torch.cat(rows, dim=1).double()
        return _Reading(logits, end - start, reader.nbytes(cache), mass)

    def _perplexity(self, logits: Any) -> float:
        wanted = self._pieces[:, self.prefix + 1 :]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).exp())


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
