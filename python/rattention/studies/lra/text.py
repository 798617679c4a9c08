"""Text: whether a movie review is for or against its movie, from its bytes or its words.

The reviews are those of the Large Movie Review Dataset (Maas et al. 2011), 25,000 to train on and 25,000 to
test with, the task "text" of Long Range Arena (arXiv 2011.04006, section 2.2.2). There the test reviews serve
for validation, too; here validation is held out of the training reviews.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rattention._arguments import at_least
from rattention.studies.kit.settings import require_ranges
from rattention.studies.lra.data import Split, Task, TaskData
from rattention.studies.lra.reviews import Reviews, read_reviews
from rattention.studies.lra.settings import Training
from rattention.studies.lra.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rattention.studies.lra.data import Progress

LEVELS = ("bytes", "words")
BYTES = 256


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
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {self.level!r}")
        require_ranges(self, length=1, validation=1, words=1, seed=0)
        for name in ("train", "test"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if not isinstance(self.source, str):
            raise TypeError(f"source must be a string, got {type(self.source).__name__}")
        if not self.source:
            raise ValueError("source must name a folder or a dataset, got ''")

    def scaled(self, length: int | None, samples: int | None) -> Text:
        """Cut after `length` tokens, and with `samples` reviews to train on."""
        asked: dict[str, Any] = {"length": length, "train": samples}
        return replace(self, **{name: value for name, value in asked.items() if value is not None})

    def load(self, cache: Path | None = None, progress: Progress | None = None) -> TaskData:
        """Read the reviews; it takes seconds, and `cache` and `progress` are not needed.

        Raises
        ------
        ValueError
            No such folder or dataset, damaged files, or fewer reviews than are asked for.
        """
        known, unseen = (self._some(read_reviews(self.source, part), part) for part in ("train", "test"))
        train = known.select(np.arange(self.validation, len(known)))
        vocabulary = Vocabulary.of(train.texts, self.words) if self.level == "words" else None
        parts = {"train": train, "validation": known.select(np.arange(self.validation)), "test": unseen}
        splits = {name: self._encoded(reviews, vocabulary) for name, reviews in parts.items()}
        size = 1 + BYTES if vocabulary is None else len(vocabulary.tokens)
        names = _BYTE_NAMES if vocabulary is None else vocabulary.tokens
        return TaskData("text", size, 2, **splits, token_names=names)

    def _some(self, reviews: Reviews, part: str) -> Reviews:
        """Those asked for, in an order drawn by the seed; of the training reviews validation comes first."""
        order = np.random.default_rng((self.seed, part == "test")).permutation(len(reviews))
        if part == "test":
            count, least = self.test, self.test or 1
        else:
            count = None if self.train is None else self.validation + self.train
            least = count or self.validation + 1
        if len(order) < least:
            raise ValueError(
                f"{reviews.name} has {len(order):,} reviews with text; {least:,} are asked for"
                + (f", {self.validation:,} of them for validation" if part == "train" else "")
            )
        return reviews.select(order[:count])

    def _encoded(self, reviews: Reviews, vocabulary: Vocabulary | None) -> Split:
        if vocabulary is not None:
            rows = (vocabulary.encode(text)[: self.length] for text in reviews.texts)
            return Split.of(rows, reviews.labels, np.int32)
        return Split.of((_bytes(text)[: self.length] for text in reviews.texts), reviews.labels, np.uint16)


def _bytes(text: str) -> NDArray[np.uint16]:
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.uint16) + 1


_BYTE_NAMES = ("", *(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in range(BYTES)))

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
