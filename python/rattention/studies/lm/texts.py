"""Files of texts: found, read in one order, without doubles, and put into splits by their content."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES = (".txt", ".py", ".md")
COLUMN = "text"
"""Of a Parquet file."""
STANDARD_LIBRARY = "stdlib"
"""The source that is the standard library of the interpreter alone."""
SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05
"""Share of the texts in each of the validation and the test split."""


@dataclass(frozen=True)
class Text:
    """One text, its name and the SHA-256 of its content."""

    name: str
    content: bytes
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Text:
        """With its hash."""
        return cls(name, content, hashlib.sha256(content).hexdigest())

    @property
    def split(self) -> str:
        """By a part of the hash that does not order texts: a text is in the same split in every corpus."""
        share = int(self.sha256[8:16], 16) / 2**32
        if share < HELD_OUT:
            return "test"
        return "validation" if share < 2 * HELD_OUT else "train"


def read_texts(source: str | None, most_bytes: int) -> list[Text]:
    """Different texts that are not empty, in the order of their hashes, up to `most_bytes` in all.

    Parameters
    ----------
    source:
        A folder, whose files `SUFFIXES` are read, or a Parquet file with a column ``text``; ``"stdlib"``
        takes the Python sources of the standard library, which are the same wherever the interpreter is of
        the same release; None takes them and those of the pure Python packages that are installed.
    most_bytes:
        Texts beyond this are left out: which ones their hashes say, so the rest is a fair sample.

    Raises
    ------
    ValueError
        A source without texts, or a Parquet file that cannot be read.
    OSError
        A file that cannot be read.
    """
    different = {text.sha256: text for text in reversed(list(_found(source))) if text.content.strip()}
    if not different:
        what = f"{source}: no text there" if source else "no Python source is installed"
        raise ValueError(f"{what}; a source is a folder with {', '.join(SUFFIXES)}, or a Parquet file")
    kept: list[Text] = []
    total = 0
    for _, text in sorted(different.items()):
        total += len(text.content)
        if kept and total > most_bytes:
            break
        kept.append(text)
    return kept


def _found(source: str | None) -> Iterator[Text]:
    if source is None:
        return _files(chain(_standard_library(), _pure_packages()))
    if source == STANDARD_LIBRARY:
        return _files(_standard_library())
    path = Path(source)
    if path.is_dir():
        found = (p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        return _files((p.relative_to(path).as_posix(), p) for p in found)
    if path.suffix == ".parquet":
        return _rows(path)
    raise ValueError(
        f"source must be {STANDARD_LIBRARY}, a folder or a Parquet file (.parquet), got {source}"
    )


def _files(named: Iterable[tuple[str, Path]]) -> Iterator[Text]:
    return (Text.of(name, path.read_bytes()) for name, path in sorted(named))


def _rows(path: Path) -> Iterator[Text]:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        column = parquet.read_table(path, columns=[COLUMN]).column(0).to_pylist()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, IndexError, arrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet with a column {COLUMN!r}: {error}") from error
    return (Text.of(f"{path.name}:{i}", row.encode()) for i, row in enumerate(column) if row)


def _standard_library() -> Iterator[tuple[str, Path]]:
    """Python sources by name."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in library.rglob("*.py"):
        if "site-packages" not in path.parts and "dist-packages" not in path.parts:
            yield f"{STANDARD_LIBRARY}/{path.relative_to(library).as_posix()}", path


def _pure_packages() -> Iterator[tuple[str, Path]]:
    """Python sources by name, of distributions whose wheels are pure."""
    for package in metadata.distributions():
        if "Root-Is-Purelib: true" in (package.read_text("WHEEL") or ""):
            for file in package.files or ():
                if file.suffix == ".py" and (path := Path(str(file.locate()))).is_file():
                    yield f"{package.name}/{file.as_posix()}", path
