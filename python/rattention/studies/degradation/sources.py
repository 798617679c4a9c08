"""Where attention comes from: a model that reads a text, or seeded queries and keys of any length, which need
NumPy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import chosen_numbers
from rattention.inspect import LayerAttention, visiting

if TYPE_CHECKING:
    from rattention.models import Bert, Encoding
    from rattention.models.bert_config import BertConfig

Found = TypeVar("Found")

SHORTEST = 3
"""The shortest context worth measuring: two special tokens and one of text."""

LAYERS, HEADS, HEAD_DIM = 4, 8, 64
FREQUENCIES = 16
"""Cosines per head; twice as many of the head's dimensions carry the position, the others carry noise."""
FACT, QUESTION = slice(1, 11), slice(-8, None)
"""Where the synthetic fact and question stand."""


@dataclass(frozen=True, eq=False, repr=False)
class Context:
    """A sequence of some length, and the model that reads it."""

    model: Any
    """What `rattention.inspect.visiting` takes, called with `inputs`."""
    inputs: Any
    sequence_length: int
    """Tokens in the context, special tokens counted."""
    fact: NDArray[np.int64] | None = None
    """In a conversation: positions of a fact."""
    question: NDArray[np.int64] | None = None
    """And those of a question about it."""

    def visit(self, callback: Callable[[LayerAttention], Found]) -> list[Found]:
        """Run the model: what `callback` returns for each layer."""
        found: list[Found] = []
        with visiting(self.model, lambda layer: found.append(callback(layer))):
            self.model(self.inputs)
        return found


class Source(ABC):
    """Gives contexts of any length asked for, each the beginning of the next longer one."""

    layers: int
    """Number of layers."""
    heads: int
    """Heads per layer."""
    shortest: int = SHORTEST
    """Tokens of the shortest context; of a conversation fact and question alone."""

    @abstractmethod
    def context(self, length: int) -> Context:
        """The context of `length` tokens, or a shorter one where the text ends; ValueError for impossible
        lengths."""

    def _require_both_fit(self, length: int) -> None:
        if length < self.shortest:
            raise ValueError(f"fact and question alone take {self.shortest} tokens, more than {length}")


@dataclass(frozen=True)
class Selection:
    """The layers and heads an average is taken over, counted from 0."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def of(
        cls,
        source: Source | BertConfig,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
    ) -> Selection:
        """The layers and heads named, all by default; ValueError for one that `source` does not have."""
        return cls(
            chosen_numbers("layers", layers, range(source.layers)),
            chosen_numbers("heads", heads, range(source.heads)),
        )

    def mean(self, values: NDArray[np.float64]) -> float:
        """Mean over the selected layers and heads of an array ``[layers, heads]``."""
        return float(self.of_array(values).mean())

    @classmethod
    def whole(cls, values: NDArray[np.float64]) -> Selection:
        """All of an array ``[layers, heads, ...]``."""
        layers, heads = values.shape[:2]
        return cls(tuple(range(layers)), tuple(range(heads)))

    def of_array(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The selected part of an array ``[layers, heads, ...]``."""
        return values[np.ix_(self.layers, self.heads)]


class TextSource(Source):
    """The beginning of a text as a model reads it: truncated to N tokens, special tokens counted."""

    def __init__(self, model: Bert, text: str) -> None:
        """ValueError when `text` is empty."""
        if not text.strip():
            raise ValueError("the text is empty")
        self._model, self._text = model, text
        self.layers, self.heads = model.config.layers, model.config.heads

    def context(self, length: int) -> Context:
        """The text truncated to `length` tokens; ValueError below 3 or beyond the model's positions."""
        check_length(length, self._model.config.max_positions)
        encoding = self._model.encode([self._text], max_length=length)
        return Context(self._model, encoding, encoding.input_ids.shape[1])


def check_length(length: int, longest: int | None = None) -> None:
    """Refuse lengths that nothing can be measured at; `longest` is the number of positions a model has."""
    if length < SHORTEST:
        raise ValueError(f"a context length must be at least {SHORTEST} tokens, got {length}")
    if longest is not None and length > longest:
        raise ValueError(
            f"a context length must be at most {longest} tokens, the model's positions; got {length}"
        )


def default_text() -> str:
    """An encyclopedic text that comes with the package: the history of lighthouses, 1280 BERT tokens."""
    return _bundled("lighthouses.txt")


def read_turns() -> tuple[str, ...]:
    """The conversation that comes with the package: about 560 BERT tokens in 30 turns."""
    return tuple(_bundled("conversation.txt").splitlines())


def _bundled(name: str) -> str:
    return (files("rattention") / "data" / name).read_text("utf-8")


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
        self._require_both_fit(length)
        text = self._text(self._words_that_fit(length))
        encoding = self._model.encode([text], max_length=length)
        fact = _positions(encoding, _start_of_words(self._first), len(self._first))
        asked = len(text) - len(self._last) + _start_of_words(self._last)
        question = _positions(encoding, asked, len(text))
        return Context(self._model, encoding, encoding.input_ids.shape[1], fact, question)

    def _text(self, words: int) -> str:
        return " ".join([self._first, *self._between[:words], self._last])

    def _words_that_fit(self, length: int) -> int:
        """Bisection: tokens never become fewer with more words."""

        def too_many(words: int) -> bool:
            text = self._text(words)
            return not is_whole(self._model.encode([text], max_length=length), text)

        return bisect_left(range(1, len(self._between) + 1), True, key=too_many)


def is_whole(encoding: Encoding, text: str) -> bool:
    """Whether nothing was truncated: the last token with a place in `text` reaches its end."""
    return max(end for _, end in encoding.offsets[0]) >= len(text.rstrip())


def _start_of_words(turn: str) -> int:
    """Where the words begin after ``Name:``."""
    return turn.find(": ") + 2 if ": " in turn else 0


def _positions(encoding: Encoding, start: int, end: int) -> NDArray[np.int64]:
    """Tokens that lie within the characters [start, end)."""
    return np.array([i for i, (a, b) in enumerate(encoding.offsets[0]) if start <= a < b <= end], np.int64)


class _Layer:
    def __init__(self) -> None:
        self.attention_hook: Callable[..., Any] | None = None


class _SyntheticModel:
    """Shows the queries and keys that it is called with, in the place of a model that computes them."""

    def __init__(self) -> None:
        self._layers = {f"layer {i}": _Layer() for i in range(LAYERS)}

    def attention_layers(self) -> dict[str, _Layer]:
        """By name, for `rattention.inspect.visiting`."""
        return self._layers

    def __call__(self, arrays: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
        """Queries and keys, ``[layers, 1, heads, length, head_dim]`` each."""
        for layer, query, key in zip(self._layers.values(), *arrays, strict=True):
            if layer.attention_hook is not None:
                layer.attention_hook(None, query, key, None, {})


class SyntheticSource(Source):
    """Seeded queries and keys: 4 layers of 8 heads. Nothing in them comes from a model or a text.

    A head's score is a bump around its own position plus noise, ``strength * exp(-d^2 / (2 width^2)) +
    noise``: heads of the first layers are local, those of the last look everywhere. The bump is a sum of
    random cosines (random Fourier features of a Gaussian), so that a context is the beginning of every longer
    one.
    """

    layers = LAYERS
    heads = HEADS

    def __init__(self, seed: int = 0) -> None:
        """The same `seed` gives the same numbers."""
        np.random.default_rng(seed)  # loads NumPy's module here: Ctrl-C is lost within Cython meanwhile
        self._seed = seed
        self._model = _SyntheticModel()

    def context(self, length: int) -> Context:
        """The first `length` positions; ValueError below 3."""
        return Context(self._model, self._arrays(length), length)

    def _arrays(self, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        check_length(length)
        rng = np.random.default_rng(self._seed)
        bump = _bump_features(rng, length)
        noise = rng.standard_normal((length, 2, LAYERS, 1, HEADS, HEAD_DIM - bump.shape[-1]))
        noise = np.moveaxis(noise, 0, -2) * _per_head(1.0, 1.5)
        query, key = (np.concatenate([bump, n], axis=-1, dtype=np.float32) for n in noise)
        return query, key


class SyntheticConversation(SyntheticSource):
    """The same, with a question at the end whose queries point at the keys of a fact at the beginning."""

    shortest = 20
    """Fact, question and a little room."""

    def context(self, length: int) -> Context:
        """`length` positions; ValueError where fact and question do not fit."""
        self._require_both_fit(length)
        query, key = self._arrays(length)
        direction = np.random.default_rng([self._seed, 1]).standard_normal((LAYERS, 1, HEADS, 1, HEAD_DIM))
        direction *= HEAD_DIM**0.25 * _per_head(1.0, 1.6) / np.linalg.norm(direction, axis=-1, keepdims=True)
        key[..., FACT, :] += direction.astype(np.float32)
        query[..., QUESTION, :] += direction.astype(np.float32)
        positions = np.arange(length)
        return Context(self._model, (query, key), length, positions[FACT], positions[QUESTION])


def _bump_features(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Features of every position whose dot product is the bump: ``[layers, 1, heads, length, features]``."""
    width = np.geomspace(2, 40, HEADS)[:, None, None]
    frequency = rng.standard_normal((LAYERS, 1, HEADS, 1, FREQUENCIES)) / width
    angle = np.arange(length)[:, None] * frequency
    strength = _per_head(6.0, 1.0) * HEAD_DIM**0.5
    waves = np.concatenate([np.cos(angle), np.sin(angle)], -1)
    return np.asarray(waves * (strength / FREQUENCIES) ** 0.5)


def _per_head(first: float, last: float) -> NDArray[np.float64]:
    """Numbers from `first` in the very first head to `last` in the last: ``[layers, 1, heads, 1, 1]``."""
    return np.linspace(first, last, LAYERS * HEADS).reshape(LAYERS, 1, HEADS, 1, 1)
