"""Movie reviews from where they are: an unpacked archive, Parquet files, the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rattention._arguments import first_line
from rattention._extras import require
from rattention._files import read_text

Review = tuple[str, int]
"""A text and its label, 0 against and 1 for the movie."""

Columns = tuple[str, Sequence[Any], Sequence[Any]]
"""Where reviews come from, their texts and their labels, not yet checked."""

ELSEWHERE = (
    "name a folder: aclImdb as it is unpacked, one with train.parquet and test.parquet, "
    "or a downloaded dataset"
)


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
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(("neg", "pos")):
        files = sorted((folder / name).glob("*.txt"))
        if not files:
            raise ValueError(f"{folder / name} holds no .txt files: is the archive unpacked as a whole?")
        texts += map(read_text, files)
        labels += [label] * len(files)
    return str(folder), texts, labels


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
