"""Where attention comes from: a model that reads a text, or anything else that has queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention._metrics import AttentionMetrics, MetricOptions
    from rattention.models import Bert, Encoding

    Visitor = Callable[[int, NDArray[np.float32], NDArray[np.float32]], None]

SHORTEST = 3
"""The shortest context worth measuring: two special tokens and one of text."""


class Context(Protocol):
    """A sequence of a given length whose attention can be looked into."""

    @property
    def sequence_length(self) -> int:
        """Tokens in the context, special tokens counted."""

    def measure(self, options: MetricOptions) -> tuple[AttentionMetrics, ...]:
        """Metrics of every layer, arrays ``[1, heads, sequence_length]``."""

    def visit(self, visitor: Visitor) -> None:
        """Call ``visitor(layer, query, key)`` for every layer: arrays ``[1, heads, length, head_dim]``."""


class Layered(Protocol):
    """Anything with layers of heads."""

    @property
    def layers(self) -> int:
        """Number of layers."""

    @property
    def heads(self) -> int:
        """Heads per layer."""


class Source(Layered, Protocol):
    """Gives contexts of any length asked for, each the beginning of the next longer one."""

    def context(self, length: int) -> Context:
        """The context of `length` tokens, or a shorter one where there are not so many."""


@dataclass(frozen=True)
class Selection:
    """The layers and heads an average is taken over, counted from 0."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def of(
        cls, source: Layered, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> Selection:
        """The layers and heads named, all by default; ValueError for one that `source` does not have."""
        return cls(
            chosen_numbers("layer", layers, source.layers), chosen_numbers("head", heads, source.heads)
        )

    def mean(self, values: NDArray[np.float64]) -> float:
        """Mean over the selected layers and heads of an array ``[layers, heads]``."""
        return float(self.of_array(values).mean())

    def of_array(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The selected part of an array ``[layers, heads, ...]``."""
        return values[np.ix_(self.layers, self.heads)]


def chosen_numbers(kind: str, numbers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """`numbers` sorted, all of `count` for None; ValueError names the `kind` of one that is not there."""
    if numbers is None:
        return tuple(range(count))
    if not numbers:
        raise ValueError(f"{kind}: at least one must be selected")
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"{kind} {number} does not exist: there are {count}, numbered 0 to {count - 1}")
    return tuple(sorted(set(numbers)))


class EncodedContext:
    """Tokens as one pretrained model reads them."""

    def __init__(self, model: Bert, encoding: Encoding) -> None:
        """`encoding` holds one text."""
        self._model = model
        self.encoding = encoding

    @property
    def sequence_length(self) -> int:
        """Tokens in the context, special tokens counted."""
        return int(self.encoding.input_ids.shape[1])

    def measure(self, options: MetricOptions) -> tuple[AttentionMetrics, ...]:
        """Metrics of every layer, taken while the model runs."""
        measured = self._model(self.encoding, metrics=options).metrics
        assert measured is not None
        return measured

    def visit(self, visitor: Visitor) -> None:
        """Run the model and show every layer's queries and keys."""
        self._model(self.encoding, on_attention=visitor)


class TextSource:
    """The beginning of a text as a model reads it: truncated to N tokens, special tokens counted."""

    def __init__(self, model: Bert, text: str) -> None:
        """ValueError when `text` is empty."""
        if not text.strip():
            raise ValueError("the text is empty")
        self._model = model
        self._text = text

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self._model.config.layers

    @property
    def heads(self) -> int:
        """Heads per layer."""
        return self._model.config.heads

    def context(self, length: int) -> EncodedContext:
        """The text truncated to `length` tokens; ValueError below 3 or beyond the model's positions."""
        check_length(length, self._model.config.max_positions)
        return EncodedContext(self._model, self._model.encode([self._text], max_length=length))


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
    return (files("rattention") / "data" / "lighthouses.txt").read_text("utf-8")
