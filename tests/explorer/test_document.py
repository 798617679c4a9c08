"""Tokens, words and sentences of a text, and what JavaScript counts."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.explorer import Document

TEXT = "Hi 😀 you. Next one!\n狼が来た。 e\u0301t"


def spans_of(parts):
    """Of the parts of `TEXT`, one after the other; "" is a special token."""
    spans, at = [], 0
    for part in parts:
        start = TEXT.index(part, at) if part else 0
        spans.append((start, start + len(part)))
        at = max(at, start)
    return np.array(spans)


PARTS = [
    "",
    "Hi",
    " 😀",
    " you",
    ".",
    " Ne",
    "xt",
    " one",
    "!",
    "\n",
    "狼",
    "が",
    "来た",
    "。",
    " e\u0301",
    "t",
    "",
]


def test_utf16():
    document = Document(TEXT, spans_of(PARTS))
    encoded = TEXT.encode("utf-16-le")
    for (start, stop), part in zip(document.utf16, PARTS, strict=True):
        assert encoded[2 * start : 2 * stop].decode("utf-16-le") == part


def test_words_and_sentences():
    document = Document(TEXT, spans_of(PARTS))
    words = [document.part(a, b) for a, b in zip(document.words, [*document.words[1:], 17], strict=True)]
    assert [w.strip() for w in words] == [
        "", "Hi", "😀", "you", ".", "Next", "one", "!", "狼", "が", "来た", "。", "e\u0301", "t", "",
    ]  # fmt: skip
    sentences = [
        document.part(a, b) for a, b in zip(document.sentences, [*document.sentences[1:], 17], strict=True)
    ]
    assert [s.strip() for s in sentences] == ["", "Hi 😀 you.", "Next one!", "狼が来た。", "e\u0301t", ""]


def test_bytes_of_one_character():
    """Tokens may share a character, and belong to the same word."""
    document = Document("a 😀b", np.array([(0, 1), (2, 3), (2, 3), (2, 3), (3, 4)]))
    assert document.utf16.tolist() == [[0, 1], [2, 4], [2, 4], [2, 4], [4, 5]]
    assert document.words.tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        (np.zeros((0, 2)), "tokens >= 1"),
        (np.zeros((3, 3)), r"spans must have shape"),
        (np.array([(0, 5)]), "within the text's 4 characters"),
        (np.array([(2, 1)]), "within the text's 4 characters"),
        (np.array([(-1, 1)]), "within the text's 4 characters"),
    ],
)
def test_bad_spans(spans, said):
    with pytest.raises(ValueError, match=said):
        Document("text", spans)


@pytest.mark.parametrize("parts", [(4,), (-1, 2)])
def test_parts_are_tokens(parts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"parts must be tokens from 0 to 3, got '\(") as error:
        Document("abcd", np.arange(4)[:, None] + [0, 1], parts=parts)
    assert str(parts) in str(error.value)


def test_parts_of_labels() -> None:
    assert Document.of_labels(["a", "b", "c"], parts=[0, 2]).parts == (0, 2)
    assert Document.of_labels(["a", "b", "c"]).parts == ()
