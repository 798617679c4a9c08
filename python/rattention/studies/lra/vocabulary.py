"""The most frequent words of a collection of texts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
"""Words with at most one apostrophe, and marks one by one; case does not count."""

UNKNOWN = 1


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number: 0 is padding and 1 any word that is not among them."""

    tokens: tuple[str, ...]
    numbers: dict[str, int] = field(repr=False)

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> Vocabulary:
        """The `size` most frequent words; among equally frequent ones the alphabet decides."""
        counts = Counter(word for text in texts for word in split(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        tokens = ("", "<unknown>", *ranked[:size])
        return cls(tokens, {token: number for number, token in enumerate(tokens) if number > UNKNOWN})

    def encode(self, text: str) -> NDArray[np.int32]:
        """The text's words by number; one unknown word where it has none."""
        numbers = [self.numbers.get(word, UNKNOWN) for word in split(text)]
        return np.array(numbers or [UNKNOWN], np.int32)


def split(text: str) -> list[str]:
    """The words and marks of a text, in lower case."""
    return WORD.findall(text.lower())
