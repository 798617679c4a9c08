"""Where words and numbers stand in the text of a PDF.

Text is what pypdf reads: pictures and scanned pages have none. An expression that runs over the end of a page
is not found.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CONTEXT = 40
"""Characters shown before and after what was found."""


class PdfError(ValueError):
    """A file that is no PDF with readable text; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where an expression stands: the page, counted from 1, and the words around it."""

    page: int
    context: str


def read_pages(path: Path) -> list[str]:
    """The text of each page.

    Raises
    ------
    PdfError
        The file cannot be read, is no PDF, needs a password, is damaged or holds no text.
    ImportError
        pypdf is missing; the message names the extra that brings it.
    """
    pypdf = require("pypdf")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise PdfError(f"cannot read {path}: {error.strerror}") from error
    if b"%PDF-" not in head:
        raise PdfError(f"{path} is not a PDF: it does not begin with %PDF-")
    with _no_log_messages("pypdf"):
        try:
            reader = pypdf.PdfReader(path)
            locked = reader.is_encrypted and not reader.decrypt("")
            pages = [] if locked else [str(page.extract_text()) for page in reader.pages]
        except (
            Exception
        ) as error:  # damage surfaces as almost any exception, KeyError and RecursionError included
            raise PdfError(f"{path} cannot be read as a PDF: {error or type(error).__name__}") from error
    if locked:
        raise PdfError(f"{path} needs a password; save a copy without one first")
    if not any(page.strip() for page in pages):
        raise PdfError(f"{path} holds no text: a scan needs text recognition first")
    return pages


def find(pages: Iterable[str], expressions: Iterable[str]) -> dict[str, list[Place]]:
    """Every place of every expression, whatever the case, line breaks, hyphens and ligatures."""
    texts = [_unbroken(page) for page in pages]
    return {
        expression: [
            Place(number, _context(text, match))
            for number, text in enumerate(texts, start=1)
            for match in _pattern(expression).finditer(text)
        ]
        for expression in expressions
    }


@contextmanager
def _no_log_messages(name: str) -> Iterator[None]:
    """Pypdf logs every oddity of a file; what matters reaches the user as an exception."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _unbroken(text: str) -> str:
    """Ligatures spelt out, words broken at the end of a line joined: a hyphen there may be the word's own."""
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "-\n")
    return re.sub(r"(?<=[^\W\d])[-\u2010]\s*\n\s*(?=[^\W\d])", "", text)


def _pattern(expression: str) -> re.Pattern[str]:
    if expression[0].isdigit():  # with or without a separator of thousands and a space before the unit
        number = (
            re.sub(r"(?<=\d)(?=\d{3}$)", ",?", expression) if expression.isdigit() else re.escape(expression)
        )
        spaced = re.sub(r"%|(?<=\d)B$", r"\\s*\g<0>", number)
        return re.compile(rf"(?<!\d)(?<!\d[.,]){spaced}(?!\d|[.,]\d)", re.IGNORECASE)
    parts = map(re.escape, re.findall(r"\w+|[^\w\s-]", expression))
    gap = r"[\s\u2010-\u2015-]*"  # may be nothing: the hyphen of a compound went with the line break
    return re.compile(rf"(?<!\w){gap.join(parts)}s?(?!\w)", re.IGNORECASE)


def _context(text: str, match: re.Match[str]) -> str:
    """The words around a match, without what a terminal obeys."""
    start, end = max(0, match.start() - CONTEXT), match.end() + CONTEXT
    before = text[start : match.start()].partition(" ")[2] if start else text[: match.start()]
    after = text[match.end() : end].rpartition(" ")[0] if end < len(text) else text[match.end() :]
    return "".join(filter(str.isprintable, " ".join(f"{before}{match[0]}{after}".split())))
