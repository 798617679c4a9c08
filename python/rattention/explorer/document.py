"""A text as a model reads it: tokens with their place in it, and the words and sentences they make up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import brief

WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]"
)
"""Letters and digits, a sign, or a character of a script that puts no spaces between words."""
SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+\s*|\n\s*")
"""What ends a sentence, with the spaces behind it."""


@dataclass(frozen=True, eq=False, repr=False)
class Document:
    """A text and the tokens a model makes of it."""

    text: str
    spans: NDArray[np.int32]
    """``[tokens, 2]``: first and one past the last character of each token; equal where it stands for none,
    as special tokens do. Tokens may share characters: the bytes of one."""
    title: str = ""
    remarks: tuple[str, ...] = ()
    """What a reader should know: how much of a text did not fit."""
    generated: int | None = None
    """The first token that the model wrote itself; those behind it are its own, too. None where all were
    given."""
    how: str = ""
    """How the model chose the tokens that it wrote."""
    parts: tuple[int, ...] = ()
    """The tokens at which parts begin that maps show, such as the episodes of a history."""

    def __post_init__(self) -> None:
        spans = np.asarray(self.spans)
        if spans.ndim != 2 or spans.shape[1] != 2 or not len(spans):
            raise ValueError(f"spans must have shape (tokens >= 1, 2), got {spans.shape}")
        if spans.min() < 0 or spans.max() > len(self.text) or (spans[:, 0] > spans[:, 1]).any():
            raise ValueError(f"spans must lie within the text's {len(self.text)} characters")
        if self.generated is not None and not 0 < self.generated < len(spans):
            raise ValueError(f"generated must be a token from 1 to {len(spans) - 1}, got {self.generated}")
        if any(not 0 <= part < len(spans) for part in self.parts):
            raise ValueError(f"parts must be tokens from 0 to {len(spans) - 1}, got {brief(str(self.parts))}")

    @classmethod
    def of_labels(cls, labels: Sequence[str], title: str = "", parts: Sequence[int] = ()) -> Document:
        """Each label a token: on a line of its own where there are labels of several words."""
        sizes = np.array([len(label) for label in labels])
        starts = np.cumsum(sizes + 1) - sizes - 1
        spans = np.stack([starts, starts + sizes], axis=1).astype(np.int32)
        between = "\n" if any(" " in label for label in labels) else " "
        return cls(between.join(labels), spans, title, parts=tuple(map(int, parts)))

    def __len__(self) -> int:
        return len(self.spans)

    def __repr__(self) -> str:
        return f"Document({brief(self.title or self.text)}, tokens={len(self)})"

    @cached_property
    def utf16(self) -> NDArray[np.int32]:
        """`spans` in UTF-16 units, by which JavaScript counts."""
        units = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32) > 0xFFFF
        before = np.concatenate([[0], np.cumsum(units + 1)])
        return before[self.spans].astype(np.int32)

    @cached_property
    def words(self) -> NDArray[np.int32]:
        """The first token of every word."""
        return self._starts(WORD, ends=False)

    @cached_property
    def sentences(self) -> NDArray[np.int32]:
        """The first token of every sentence."""
        return self._starts(SENTENCE, ends=True)

    def part(self, start: int, stop: int) -> str:
        """The text of tokens `start` to `stop` - 1."""
        inside = self.spans[start:stop]
        inside = inside[inside[:, 0] < inside[:, 1]]
        return self.text[inside[0, 0] : inside[:, 1].max()] if len(inside) else ""

    def _starts(self, pattern: re.Pattern[str], *, ends: bool) -> NDArray[np.int32]:
        """The first token of every part; tokens without characters are parts of their own."""
        marks = np.zeros(len(self.text) + 1, np.int32)
        for match in pattern.finditer(self.text):
            marks[match.end() if ends else match.start()] = 1
        part = np.cumsum(marks)
        own = self._first_letters()
        empty = self.spans[:, 0] == self.spans[:, 1]
        fresh = part[own[1:]] != part[own[:-1]]
        fresh |= empty[1:] | empty[:-1]
        return np.concatenate([[0], 1 + np.flatnonzero(fresh)]).astype(np.int32)

    def _first_letters(self) -> NDArray[np.int64]:
        """Where the first character that is no space stands, of every token that has one."""
        blank = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        spaces = np.isin(blank, [ord(space) for space in " \t\n\r\x0b\x0c\u00a0\u3000"])
        letters = np.append(np.where(spaces, len(self.text), np.arange(len(self.text))), len(self.text))
        following = np.minimum.accumulate(letters[::-1])[::-1]
        first, last = self.spans.T.astype(np.int64)
        place: NDArray[np.int64] = np.where(following[first] < last, following[first], first)
        return place
