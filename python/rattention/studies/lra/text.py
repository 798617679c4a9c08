"""Text: whether a movie review is for or against its movie, from its bytes or its words.

The reviews are those of the Large Movie Review Dataset (Maas et al. 2011), 25,000 to train on and 25,000 to
test with, the task "text" of Long Range Arena (arXiv 2011.04006, section 2.2.2). There the test reviews serve
for validation, too; here validation is held out of the training reviews.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rattention._arguments import first_line
from rattention._extras import require
from rattention._files import read_text
from rattention.studies.kit.settings import require_ranges, with_given
from rattention.studies.lra.data import Split, Task, TaskData, held_out
from rattention.studies.lra.settings import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Review = tuple[str, int]
"""A text and its label, 0 against and 1 for the movie."""

Columns = tuple[str, Sequence[Any], Sequence[Any]]
"""Where reviews come from, their texts and their labels, not yet checked."""

ELSEWHERE = (
    "name a folder: aclImdb as it is unpacked, one with train.parquet and test.parquet, "
    "or a downloaded dataset"
)

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


def read_reviews(source: str, part: str) -> tuple[str, list[Review]]:
    """Where the reviews of a part, ``"train"`` or ``"test"``, come from, and those that have a text.

    ValueError says what is wrong with the source.
    """
    name, texts, labels = _columns(source, part)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: texts must be strings")
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: labels must be 0 or 1, got {sorted(set(map(str, labels)))[:5]}")
    reviews = [(text, int(label)) for text, label in zip(texts, array, strict=True) if text.strip()]
    if not reviews:
        raise ValueError(f"{name} holds no review")
    return name, reviews


def _columns(source: str, part: str) -> Columns:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if source.startswith((".", "/", "~")):
            raise ValueError(f"source {source!r} is no folder: {ELSEWHERE}")
        return _from_datasets(source, part)
    if (folder / f"{part}.parquet").exists():
        return _from_parquet(folder / f"{part}.parquet")
    if (folder / part / "pos").is_dir() or (folder / part / "neg").is_dir():
        return _from_archive(folder / part)
    if next(folder.rglob("*.parquet"), None) is not None:  # a dataset of the Hub, downloaded as it is
        return _from_datasets(str(folder), part)
    raise ValueError(
        f"source {source!r} has neither {part}.parquet nor {part}/pos and {part}/neg: {ELSEWHERE}"
    )


def _from_parquet(path: Path) -> Columns:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        there = parquet.read_schema(path).names
        missing = [name for name in ("text", "label") if name not in there]
        if missing:
            raise ValueError(
                f"{path} has no column {' and '.join(missing)}: its columns are {', '.join(there)}"
            )
        columns = parquet.read_table(path, columns=["text", "label"]).to_pydict()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file that can be read: {first_line(error)}") from error
    return str(path), columns["text"], columns["label"]


def _from_archive(folder: Path) -> Columns:
    files = {name: sorted((folder / name).glob("*.txt")) for name in ("neg", "pos")}
    if empty := [name for name, some in files.items() if not some]:
        raise ValueError(f"{folder / empty[0]} holds no .txt files: is the archive unpacked as a whole?")
    labels = np.repeat((0, 1), [len(some) for some in files.values()])
    return str(folder), [read_text(file) for some in files.values() for file in some], labels.tolist()


def _from_datasets(source: str, part: str) -> Columns:
    datasets = require("datasets")
    try:
        loaded = datasets.load_dataset(source, split=part)
        texts, labels = loaded["text"], loaded["label"]
    except Exception as error:  # whatever the network, the Hub or a file of it raises
        raise ValueError(
            f"cannot load the dataset {source!r} ({type(error).__name__}: {first_line(error)}); {ELSEWHERE}"
        ) from error
    return f"{source}, {part}", list(texts), list(labels)


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
