"""Where attention comes from: a model that reads a text, or anything else that has queries and keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import chosen_numbers
from rattention.inspect import visiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rattention.inspect import LayerAttention
    from rattention.models import Bert
    from rattention.models.bert_config import BertConfig

SHORTEST = 3
"""The shortest context worth measuring: two special tokens and one of text."""


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

    def visit(self, callback: Callable[[LayerAttention], None]) -> None:
        """Run the model and call `callback` for each layer."""
        with visiting(self.model, callback):
            self.model(self.inputs)


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
    return (files("rattention") / "data" / "lighthouses.txt").read_text("utf-8")
