"""A conversation that states a fact in its first turn and asks for it in the last, with talk in between."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from rattention.studies.degradation.sources import Context, Source, check_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rattention.models import Bert, Encoding


class Conversation(Source):
    """The turns of a conversation as a pretrained model reads them, cut between two words to fit a length."""

    def __init__(self, model: Bert, turns: Sequence[str] | None = None) -> None:
        """`turns` are ``Name: words``: the fact first, the question last; by default `read_turns`."""
        turns = read_turns() if turns is None else tuple(turns)
        if len(turns) < 2:
            raise ValueError(f"a conversation needs at least 2 turns, got {len(turns)}")
        self._model = model
        self.layers, self.heads = model.config.layers, model.config.heads
        self._first, self._last = turns[0].strip(), turns[-1].strip()
        self._between = " ".join(turns[1:-1]).split()
        self.shortest = int(model.encode([self._text(0)]).input_ids.shape[1])

    def context(self, length: int) -> Context:
        """As many words in between as fit `length` tokens; ValueError when fact and question alone do not."""
        check_length(length, self._model.config.max_positions)
        if length < self.shortest:
            raise ValueError(f"fact and question alone take {self.shortest} tokens, more than {length}")
        text = self._text(self._words_that_fit(length))
        encoding = self._model.encode([text], max_length=length)
        return Context(
            self._model,
            encoding,
            encoding.input_ids.shape[1],
            fact=_positions(encoding, _start_of_words(self._first), len(self._first)),
            question=_positions(
                encoding, len(text) - len(self._last) + _start_of_words(self._last), len(text)
            ),
        )

    def _text(self, words: int) -> str:
        return " ".join([self._first, *self._between[:words], self._last])

    def _words_that_fit(self, length: int) -> int:
        """Bisection: tokens never become fewer with more words."""
        fits, too_many = 0, len(self._between) + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if is_whole(self._model.encode([self._text(middle)], max_length=length), self._text(middle)):
                fits = middle
            else:
                too_many = middle
        return fits


def read_turns() -> tuple[str, ...]:
    """The conversation that comes with the package: about 560 BERT tokens in 30 turns."""
    return tuple((files("rattention") / "data" / "conversation.txt").read_text("utf-8").splitlines())


def is_whole(encoding: Encoding, text: str) -> bool:
    """Whether nothing was truncated: the last token with a place in `text` reaches its end."""
    return max(end for _, end in encoding.offsets[0]) >= len(text.rstrip())


def _start_of_words(turn: str) -> int:
    """Where the words begin after ``Name:``."""
    return turn.find(": ") + 2 if ": " in turn else 0


def _positions(encoding: Encoding, start: int, end: int) -> NDArray[np.int64]:
    """Tokens that lie within the characters [start, end)."""
    return np.array([i for i, (a, b) in enumerate(encoding.offsets[0]) if start <= a < b <= end], np.int64)
