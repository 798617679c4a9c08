"""Texts to tokens: bytes as they are, or a byte-pair encoding of the package ``tokenizers``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention._files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rattention.studies.lm.settings import Level

TOKENIZER = "tokenizer.json"


class Bytes:
    """Every byte is a token."""

    vocabulary, dtype = 256, np.uint8
    sha256 = None

    def encode(self, content: bytes) -> NDArray[np.int64]:
        """The tokens of a text."""
        return np.frombuffer(content, np.uint8).astype(np.int64)

    def encode_all(self, contents: list[bytes]) -> NDArray[np.integer[Any]]:
        """The tokens of texts, one behind the other."""
        return np.frombuffer(b"".join(contents), np.uint8)

    def bytes_per_token(self) -> list[int]:
        """For each token."""
        return [1] * self.vocabulary


class BytePairs:
    """Frequent sequences of bytes are tokens; texts that are no UTF-8 keep what can be read of them."""

    dtype = np.uint16

    def __init__(self, tokenizer: Any, sha256: str) -> None:
        self.tokenizer, self.sha256 = tokenizer, sha256
        self.vocabulary: int = tokenizer.get_vocab_size()

    @classmethod
    def train(cls, folder: Path, contents: list[bytes], vocabulary: int) -> BytePairs:
        """Learn from texts, and write the tokenizer into `folder`."""
        tokenizers = require("tokenizers")
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator((c.decode("utf-8", "replace") for c in contents), trainer)
        with replacing(folder / TOKENIZER) as temporary:
            made.save(str(temporary))
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> BytePairs:
        """The tokenizer in a folder; ValueError where it is damaged."""
        content, tokenizers = (folder / TOKENIZER).read_bytes(), require("tokenizers")
        try:
            made = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        return cls(made, hashlib.sha256(content).hexdigest())

    def encode(self, content: bytes) -> NDArray[np.int64]:
        """The tokens of a text."""
        return np.array(self.tokenizer.encode(content.decode("utf-8", "replace")).ids, np.int64)

    def encode_all(self, contents: list[bytes]) -> NDArray[np.integer[Any]]:
        """The tokens of texts, one behind the other."""
        parts = [self.encode(content).astype(np.uint16) for content in contents]
        return np.concatenate([np.zeros(0, np.uint16), *parts])

    def bytes_per_token(self) -> list[int]:
        """For each token: its letters are bytes."""
        return [len(self.tokenizer.id_to_token(i)) for i in range(self.vocabulary)]


Tokens = Bytes | BytePairs


def tokenizer_of(
    folder: Path, level: Level, contents: list[bytes] | None = None, vocabulary: int = 0
) -> Tokens:
    """That of a corpus in `folder`; trained first where there are `contents`."""
    if level == "bytes":
        return Bytes()
    return BytePairs.read(folder) if contents is None else BytePairs.train(folder, contents, vocabulary)
