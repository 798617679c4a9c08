"""From text to the numbers a BERT reads, through the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import brief, fields_in_brief
from rattention._extras import require
from rattention.models.bert_config import BertConfig
from rattention.models.folder import WeightsError, read_json_object

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, eq=False, repr=False)
class Encoding:
    """Tokens of a batch of texts, padded at the end to the longest: arrays and lists ``[batch, length]``."""

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    """0 in a first text, 1 in the second of a pair."""
    attention_mask: NDArray[np.bool_]
    """True where there is a token, False where there is padding."""
    tokens: list[list[str]]
    offsets: list[list[tuple[int, int]]]
    """First and one past the last character of every token in its own text; (0, 0) where there is none."""
    special_tokens_mask: NDArray[np.bool_]
    """True for special tokens and padding, which stand for no characters of a text."""

    def __repr__(self) -> str:
        return fields_in_brief(self, ("input_ids", "token_type_ids", "attention_mask"))


def load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a model folder, without truncation and padding; WeightsError where there is none."""
    library = require("tokenizers")
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer: tokenizers.Tokenizer = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            tokenizer = _word_piece(folder)
        else:
            raise WeightsError(f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.txt")
    except WeightsError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{folder} holds no usable tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _word_piece(folder: Path) -> tokenizers.Tokenizer:
    """BERT's tokenizer from ``vocab.txt`` and, where there is one, ``tokenizer_config.json``."""
    path = folder / "tokenizer_config.json"
    options = read_json_object(path) if path.is_file() else {}
    library = require("tokenizers")
    named = {n: options.get(f"{n}_token", f"[{n.upper()}]") for n in ("unk", "sep", "pad", "cls", "mask")}
    special = {n: str(token["content"] if isinstance(token, dict) else token) for n, token in named.items()}
    vocabulary = library.models.WordPiece.read_file(str(folder / "vocab.txt"))
    missing = [special[name] for name in ("unk", "sep", "pad", "cls") if special[name] not in vocabulary]
    if missing:
        raise WeightsError(f"{folder / 'vocab.txt'} lacks the special tokens {', '.join(missing)}")
    wrapper = library.implementations.BertWordPieceTokenizer(
        vocabulary,
        **{f"{name}_token": token for name, token in special.items()},
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    tokenizer: tokenizers.Tokenizer = library.Tokenizer.from_str(wrapper.to_str())
    return tokenizer


def encode(
    tokenizer: tokenizers.Tokenizer,
    config: BertConfig,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None,
    max_length: int | None,
) -> Encoding:
    """See `Bert.encode`. Changes nothing of the tokenizer: threads may share it."""
    first = _texts("texts", texts)
    second = [None] * len(first) if pairs is None else _texts("pairs", pairs)
    if len(first) != len(second):
        raise ValueError(f"texts and pairs must be equally many, got {len(first)} and {len(second)}")
    special = int(tokenizer.num_special_tokens_to_add(pairs is not None))
    room = _limit(max_length, special, config.max_positions) - special
    encodings = [_encoded(tokenizer, a, b, room) for a, b in zip(first, second, strict=True)]
    length, pad = max(map(len, encodings)), config.pad_token_id
    for encoding in encodings:
        encoding.pad(length, pad_id=pad, pad_type_id=0, pad_token=tokenizer.id_to_token(pad) or "[PAD]")
    return Encoding(
        input_ids=np.array([e.ids for e in encodings], np.int64),
        token_type_ids=np.array([e.type_ids for e in encodings], np.int64),
        attention_mask=np.array([e.attention_mask for e in encodings], bool),
        tokens=[e.tokens for e in encodings],
        offsets=[e.offsets for e in encodings],
        special_tokens_mask=np.array([e.special_tokens_mask for e in encodings], bool),
    )


def _limit(max_length: int | None, least: int, most: int) -> int:
    if max_length is None:
        max_length = most
    if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer):
        raise TypeError(f"max_length must be an integer or None, got {brief(max_length)}")
    if not least <= max_length <= most:
        raise ValueError(
            f"max_length must be between {least} (the special tokens) and {most} "
            f"(the model's positions), got {brief(max_length)}"
        )
    return int(max_length)


def _encoded(tokenizer: tokenizers.Tokenizer, text: str, pair: str | None, room: int) -> Any:
    """Truncates by itself, because a limit set on the tokenizer would be shared by all threads."""
    parts = [tokenizer.encode(part, add_special_tokens=False) for part in (text, pair) if part is not None]
    for part, encoding in zip((text, pair), parts, strict=False):
        if len(encoding) == 0:
            raise ValueError(f"a text holds no token: {part!r:.40}")
    lengths = (room,) if pair is None else longest_first(len(parts[0]), len(parts[1]), room)
    for encoding, length in zip(parts, lengths, strict=True):
        encoding.truncate(length)
    return tokenizer.post_process(parts[0], None if pair is None else parts[1], True)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens to keep of each text of a pair in `room`: the longer gives way first, as in ``tokenizers``."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    kept = (shorter, room - shorter)
    return kept if first <= second else kept[::-1]


def _texts(name: str, texts: str | Sequence[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else texts
    if not isinstance(listed, Sequence) or not all(isinstance(text, str) for text in listed):
        raise TypeError(f"{name} must be a string or a sequence of strings, got {brief(texts)}")
    if not listed:
        raise ValueError(f"{name} holds no text")
    for i, text in enumerate(listed):
        if not text.strip():
            raise ValueError(f"{name}[{i}] is empty: there is nothing to attend to")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}[{i}] is no Unicode text: {error.reason} at {error.start}") from error
    return list(listed)
