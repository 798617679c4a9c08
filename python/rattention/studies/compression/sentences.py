"""BERT: what a sentence means to it when it is given some of the sentence's tokens."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rattention.compression.past import Budget, Past, along, resolve_budget, share_kept
from rattention.compression.strategies import Strategy, TopK
from rattention.models import Bert
from rattention.studies.compression.history import TOKEN_STRATEGIES, observed_past
from rattention.studies.compression.results import Measured, Preview
from rattention.studies.compression.tasks import Task, draw_pieces


class Sentences(Task):
    """Cosine between the embeddings of a whole piece of text and of the tokens that a strategy keeps.

    An embedding is the mean of the last hidden states. [CLS] and [SEP] are always kept and do not count
    towards the budget; kept tokens close up. Attention is that of the whole piece, with [CLS] as the query
    where a strategy needs one. A seed determines the pieces.

    Parameters
    ----------
    model:
        A `rattention.models.Bert`.
    text:
        From which pieces are drawn.
    length:
        Tokens of a piece without [CLS] and [SEP].
    batch:
        Pieces that a seed draws.
    """

    quality = "cosine with the full embedding"
    strategies = TOKEN_STRATEGIES

    def __init__(self, model: Bert, text: str, *, length: int = 126, batch: int = 4) -> None:
        self.model, self.length, self.batch = model, length, batch
        if min(length, batch) < 1:
            raise ValueError(f"length and batch must be >= 1, got {length} and {batch}")
        whole = model.tokenizer.encode(text)
        self.first, self.last = whole.ids[0], whole.ids[-1]
        self.ids = np.array(whole.ids[1:-1])
        if len(self.ids) < length:
            raise ValueError(f"the text has {len(self.ids)} tokens, fewer than the {length} of a piece")
        self.name = f"{model.name}, {length} tokens"

    def full(self, seed: int) -> Measured:
        """Whole pieces of this seed."""
        self._pieces = draw_pieces(self.ids, self.length, self.batch, seed)
        self._embedding, seconds = self._embed(self._pieces)
        return Measured(1.0, seconds, nbytes=self._nbytes(self.length))

    def compressed(self, strategy: Strategy, budget: Budget) -> Measured:
        """Some of their tokens."""
        count = resolve_budget(budget, self.length)
        began = time.perf_counter()
        kept = strategy.keep(self._past(strategy), count).indices
        choosing = time.perf_counter() - began
        ours, seconds = self._embed(along(self._pieces, kept))
        norms = np.linalg.norm(self._embedding, axis=1)
        cosine = (ours * self._embedding).sum(axis=1) / (np.linalg.norm(ours, axis=1) * norms)
        return Measured(
            float(cosine.mean()),
            choosing + seconds,
            choosing,
            self._nbytes(count),
            self._mass(kept),
            {"output_error": float((np.linalg.norm(ours - self._embedding, axis=1) / norms).mean())},
        )

    def preview(self, seed: int, strategy: Strategy, budget: Budget) -> Preview:
        """Of one piece, [CLS] at position 0 not counted."""
        self._pieces = draw_pieces(self.ids, self.length, self.batch, seed)[:1]
        count = resolve_budget(budget, self.length)
        kept = strategy.keep(self._past(strategy), count).indices
        sizes = (self._nbytes(count), self._nbytes(self.length))
        return Preview({"all layers": kept[0].tolist()}, self.length, self._mass(kept), *sizes)

    def _past(self, strategy: Strategy) -> Past:
        """Keys and attention of the whole pieces, [CLS] and [SEP] left out of the choice."""
        return observed_past(self.model, self._whole, self._pieces.shape, strategy, first=1, query_row=0)

    def _mass(self, kept: NDArray[np.int64]) -> float:
        return share_kept(self._past(TopK(by="query")).attention("query"), kept)

    def _whole(self) -> None:
        self.model(self._framed(self._pieces))

    def _embed(self, pieces: NDArray[np.int64]) -> tuple[NDArray[np.float32], float]:
        began = time.perf_counter()
        states = self.model(self._framed(pieces)).last_hidden_state
        return states.mean(axis=1), time.perf_counter() - began

    def _framed(self, pieces: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.pad(pieces, ((0, 0), (1, 1)), constant_values=((0, 0), (self.first, self.last)))

    def _nbytes(self, tokens: int) -> int:
        """Keys and values of all layers, float32."""
        config = self.model.config
        return len(self._pieces) * 2 * config.layers * (tokens + 2) * config.hidden_size * 4
