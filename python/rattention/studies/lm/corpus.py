"""A corpus: texts as tokens on the disk, made once, checked by hashes, read through memory maps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._files import replacing, writable_folder, write_json
from rattention.studies.kit.folder import default_folder
from rattention.studies.kit.settings import require_ranges
from rattention.studies.lm.settings import Level
from rattention.studies.lm.texts import SPLITS, Text, read_texts
from rattention.studies.lm.tokenizers import TOKENIZER, tokenizer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """Which texts, and how they become tokens."""

    source: str | None = None
    """As in `read_texts`."""
    level: Level = "bytes"
    """Bytes, or a byte-pair encoding that is trained on the training split."""
    vocabulary: int = 4096
    """Tokens of the byte-pair encoding; bytes have 256."""
    most_bytes: int = 32_000_000

    def __post_init__(self) -> None:
        require_ranges(self, vocabulary=257, most_bytes=1)
        if self.vocabulary > 2**16:
            raise ValueError(f"vocabulary must be <= 65536, got {self.vocabulary}")

    def load(self, context: int = 1) -> CorpusData:
        """Make the tokens, or read them where they are whole.

        Those of installed sources are kept as they were first read, so that a study goes on after packages
        have changed; other sources are read again and compared.

        Raises
        ------
        ValueError
            As `read_texts`, or a split with less than one sequence of `context` tokens.
        OSError
            A source or the cache that cannot be read or written.
        """
        key = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]
        folder = default_folder() / "lm" / key
        texts = None if self.source is None else read_texts(self.source, self.most_bytes)
        data = _whole(folder, texts)
        if data is None:
            _make(self, texts or read_texts(None, self.most_bytes), writable_folder(folder))
            data = _whole(folder, texts)
            assert data is not None
        return data.require(context)


@dataclass(frozen=True, eq=False)
class CorpusData:
    """Tokens of the three splits, one text behind the other."""

    folder: Path
    manifest: dict[str, Any]
    train: NDArray[np.integer[Any]]
    validation: NDArray[np.integer[Any]]
    test: NDArray[np.integer[Any]]

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.manifest["vocabulary"])

    @property
    def sha256(self) -> str:
        """Of all tokens: two corpora with the same are the same."""
        joined = "".join(self.manifest["splits"][split]["sha256"] for split in SPLITS)
        return hashlib.sha256(joined.encode()).hexdigest()

    def bytes_per_token(self) -> NDArray[np.float64]:
        """``[vocabulary]``: how many bytes of text each token stands for."""
        return np.array(self.manifest["bytes_per_token"], np.float64)

    def encode(self, text: str) -> NDArray[np.int64]:
        """The tokens of a text."""
        return tokenizer_of(self.folder, self.manifest["level"]).encode(text.encode())

    def require(self, context: int) -> CorpusData:
        """Itself; ValueError where a split is shorter than a sequence of `context` tokens and its next."""
        for split in SPLITS:
            if (there := len(getattr(self, split))) <= context:
                raise ValueError(
                    f"the {split} split has {there:,} tokens, too few for a context of {context:,}: give "
                    "more text or a shorter context"
                )
        return self


def _make(corpus: Corpus, texts: list[Text], folder: Path) -> None:
    """Write the tokens of every split, and last the manifest."""
    (folder / MANIFEST).unlink(missing_ok=True)
    by_split = {split: [text.content for text in texts if text.split == split] for split in SPLITS}
    tokenizer = tokenizer_of(folder, corpus.level, by_split["train"], corpus.vocabulary)
    splits = {}
    for split, contents in by_split.items():
        tokens = tokenizer.encode_all(contents)
        with replacing(folder / f"{split}.bin") as temporary:
            tokens.tofile(temporary)
        splits[split] = {
            "texts": len(contents),
            "bytes": sum(map(len, contents)),
            "tokens": len(tokens),
            "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        }
    write_json(
        folder / MANIFEST,
        asdict(corpus)
        | {
            "vocabulary": tokenizer.vocabulary,
            "dtype": np.dtype(tokenizer.dtype).name,
            "tokenizer_sha256": tokenizer.sha256,
            "bytes_per_token": tokenizer.bytes_per_token(),
            "splits": splits,
            "files": _listed(texts),
        },
    )


def _listed(texts: list[Text]) -> list[dict[str, Any]]:
    return [
        {"name": text.name, "bytes": len(text.content), "sha256": text.sha256, "split": text.split}
        for text in texts
    ]


def _whole(folder: Path, texts: list[Text] | None) -> CorpusData | None:
    """What is in the cache, where it is whole and of these texts."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if texts is not None and manifest["files"] != _listed(texts):
            return None
        maps = {split: _mapped(folder / f"{split}.bin", manifest, split) for split in SPLITS}
        tokenizer = tokenizer_of(folder, manifest["level"])
        return (
            CorpusData(folder, manifest, **maps) if tokenizer.sha256 == manifest["tokenizer_sha256"] else None
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path, manifest: dict[str, Any], split: str) -> NDArray[np.integer[Any]]:
    """ValueError where the file does not hold what was written."""
    dtype, said = np.dtype(manifest["dtype"]), manifest["splits"][split]
    if not said["tokens"]:
        return np.zeros(0, dtype)
    tokens = np.memmap(path, dtype, mode="r")
    if hashlib.sha256(tokens.tobytes()).hexdigest() != said["sha256"]:
        raise ValueError(f"{path} is damaged")
    return tokens


__all__ = ["MANIFEST", "TOKENIZER", "Corpus", "CorpusData"]
