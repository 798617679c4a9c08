"""Movie reviews from where they are: an unpacked archive, Parquet files, the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import first_line
from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CLASSES = ("neg", "pos")
"""Folders of an unpacked archive, by label."""

ELSEWHERE = (
    "name a folder: aclImdb as it is unpacked, one with train.parquet and test.parquet, "
    "or a downloaded dataset"
)


@dataclass(frozen=True, eq=False)
class Reviews:
    """Texts and labels, 0 against and 1 for the movie; reviews without text are left out."""

    name: str
    """Where they come from."""
    texts: list[str]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, texts: Sequence[Any], labels: Sequence[Any]) -> Reviews:
        """ValueError where texts or labels are something else."""
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}: texts must be strings")
        array = np.asarray(labels)
        if array.dtype.kind not in "iu" or not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name}: labels must be 0 or 1, got {sorted(set(map(str, labels)))[:5]}")
        shown = [i for i, text in enumerate(texts) if text.strip()]
        if not shown:
            raise ValueError(f"{name} holds no review")
        return cls(name, [texts[i] for i in shown], array[shown].astype(np.int64))

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: NDArray[np.int64]) -> Reviews:
        """Some of them, in that order."""
        return Reviews(self.name, [self.texts[i] for i in indices], self.labels[indices])


def read_reviews(source: str, part: str) -> Reviews:
    """The reviews of a part, ``"train"`` or ``"test"``; ValueError says what is wrong with the source."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return _from_hub(source, part)
    if (folder / f"{part}.parquet").exists():
        return _from_parquet(folder / f"{part}.parquet")
    if (folder / part / "pos").is_dir() or (folder / part / "neg").is_dir():
        return _from_archive(folder / part)
    if next(folder.rglob("*.parquet"), None) is not None:  # a dataset of the Hub, downloaded as it is
        return _from_datasets(str(folder), part)
    raise ValueError(
        f"source {source!r} has neither {part}.parquet nor {part}/pos and {part}/neg: {ELSEWHERE}"
    )


def _from_parquet(path: Path) -> Reviews:
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
    return Reviews.of(str(path), columns["text"], columns["label"])


def _from_archive(folder: Path) -> Reviews:
    texts, labels = [], []
    for label, name in enumerate(CLASSES):
        files = sorted((folder / name).glob("*.txt"))
        if not files:
            raise ValueError(f"{folder / name} holds no .txt files: is the archive unpacked as a whole?")
        for file in files:
            try:
                texts.append(file.read_text("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{file} is no UTF-8 text: {error}") from error
        labels += [label] * len(files)
    return Reviews.of(str(folder), texts, labels)


def _from_hub(source: str, part: str) -> Reviews:
    if source.startswith((".", "/", "~")):
        raise ValueError(f"source {source!r} is no folder: {ELSEWHERE}")
    return _from_datasets(source, part)


def _from_datasets(source: str, part: str) -> Reviews:
    datasets = require("datasets")
    try:
        loaded = datasets.load_dataset(source, split=part)
        texts, labels = loaded["text"], loaded["label"]
    except Exception as error:  # whatever the network, the Hub or a file of it raises
        raise ValueError(
            f"cannot load the dataset {source!r} ({type(error).__name__}: {first_line(error)}); {ELSEWHERE}"
        ) from error
    return Reviews.of(f"{source}, {part}", list(texts), list(labels))
