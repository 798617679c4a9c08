"""Text: whether a movie review is for or against its movie, from its bytes or its words.

The reviews are those of the Large Movie Review Dataset (Maas et al. 2011), 25,000 to train on and 25,000 to
test with, the task "text" of Long Range Arena (arXiv 2011.04006, section 2.2.2). There the test reviews serve
for validation, too; here validation is held out of the training reviews.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from rattention.studies.kit.settings import require_ranges, with_given
from rattention.studies.lra.data import Split, Task, TaskData, held_out
from rattention.studies.lra.reviews import Review, read_reviews
from rattention.studies.lra.settings import Training

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
        counts = Counter(word for text in texts for word in WORD.findall(text.lower()))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        tokens = ("", "<unknown>", *ranked[:size])
        return cls(tokens, {token: number for number, token in enumerate(tokens) if number > UNKNOWN})

    def encode(self, text: str) -> NDArray[np.int32]:
        """The text's words by number; one unknown word where it has none."""
        numbers = [self.numbers.get(word, UNKNOWN) for word in WORD.findall(text.lower())]
        return np.array(numbers or [UNKNOWN], np.int32)


BYTE_NAMES = ("", *(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in range(256)))


def _bytes(text: str) -> NDArray[np.uint16]:
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.uint16) + 1


@dataclass(frozen=True)
class Text:
    """Settings. ValueError where one is not in its range."""

    source: str = "stanfordnlp/imdb"
    """A folder ``aclImdb`` as it is unpacked, a folder with train.parquet and test.parquet (columns text and
    label), or a dataset of the Hugging Face Hub with these columns and splits: its name, or the folder it was
    downloaded to."""
    level: Literal["bytes", "words"] = "bytes"
    """What a token is: a byte of the text in UTF-8, or a word of the `words` most frequent ones."""
    length: int = 4_096
    """Tokens of a review; what is behind them is cut off."""
    train: int | None = None
    """Reviews to train on; None is all but those for validation."""
    validation: int = 2_500
    """Reviews held out of those to train on."""
    test: int | None = None
    """Reviews to test with; None is all."""
    words: int = 20_000
    """Size of the vocabulary of words."""
    seed: int = 0
    """Of the choice of reviews."""

    def __post_init__(self) -> None:
        if self.level not in ("bytes", "words"):
            raise ValueError(f"level must be one of bytes, words, got {self.level!r}")
        require_ranges(self, length=1, train=1, validation=1, test=1, words=1, seed=0)
        if not isinstance(self.source, str):
            raise TypeError(f"source must be a string, got {type(self.source).__name__}")
        if not self.source:
            raise ValueError("source must name a folder or a dataset, got ''")

    def scaled(self, length: int | None, samples: int | None) -> Text:
        """Cut after `length` tokens, and with `samples` reviews to train on."""
        return with_given(self, length=length, train=samples)

    def load(self) -> TaskData:
        """Read the reviews; it takes seconds.

        Raises
        ------
        ValueError
            No such folder or dataset, damaged files, or fewer reviews than are asked for.
        """
        parts = held_out(self._reviews("train"), self._reviews("test"), self.validation)
        names, encode, dtype = BYTE_NAMES, _bytes, np.uint16
        if self.level == "words":
            vocabulary = Vocabulary.of((text for text, _ in parts["train"]), self.words)
            names, encode, dtype = vocabulary.tokens, vocabulary.encode, np.int32  # type: ignore[assignment]
        splits = {
            name: Split.of(
                (encode(text)[: self.length] for text, _ in some), [label for _, label in some], dtype
            )
            for name, some in parts.items()
        }
        return TaskData("text", len(names), 2, **splits, token_names=names)

    def _reviews(self, part: str) -> list[Review]:
        """Those asked for, in random order; of the training reviews those for validation come first."""
        name, reviews = read_reviews(self.source, part)
        order = np.random.default_rng((self.seed, part == "test")).permutation(len(reviews))
        held, asked = (0, self.test) if part == "test" else (self.validation, self.train)
        count = None if asked is None else held + asked
        least = count or held + 1
        if len(order) < least:
            raise ValueError(
                f"{name} has {len(order):,} reviews with text; {least:,} are asked for"
                + (f", {held:,} of them for validation" if held else "")
            )
        return [reviews[i] for i in order[:count]]


TASK = Task(
    "Text",
    Text,
    {
        "smoke": Text(length=256, train=800, validation=200, test=200),
        "small": Text(length=1_024, train=4_200, validation=500, test=1_000),
    },
    {
        "small": Training(batch=16, learning_rate=2e-3, epochs=2, warmup_steps=50, schedule="cosine", pool=1),
    },
)
