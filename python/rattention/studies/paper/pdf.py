"""Where words and numbers stand in the text of a PDF.

Text is what pypdf reads: pictures and scanned pages have none. An expression that runs over the end of a
page is not found.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CONTEXT_CHARACTERS = 45


class PdfError(ValueError):
    """A file that is no PDF with readable text; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where an expression stands: the page, counted from 1, and the words around it."""

    page: int
    context: str


def read_pages(path: Path) -> Iterator[str]:
    """The text of each page.

    Raises
    ------
    PdfError
        The file cannot be read, is no PDF, needs a password or is damaged.
    ImportError
        pypdf is missing; the message names the extra that brings it.
    """
    pypdf = require("pypdf")
    _require_pdf_header(path)
    with _no_log_messages("pypdf"):
        try:
            reader = pypdf.PdfReader(path)
            locked = reader.is_encrypted and not reader.decrypt("")
            pages = [] if locked else list(reader.pages)
        except Exception as error:
            raise _damaged(path, error) from error
        if locked:
            raise PdfError(f"{path} needs a password; save a copy without one first")
        for page in pages:
            yield _page_text(path, page)


def find(pages: Iterable[str], expressions: Iterable[str]) -> dict[str, list[Place]]:
    """Every place of every expression, whatever the case, line breaks, hyphens and ligatures.

    Raises
    ------
    PdfError
        There is no text at all.
    """
    patterns = {expression: _pattern(expression) for expression in expressions}
    places: dict[str, list[Place]] = {expression: [] for expression in patterns}
    empty = True
    for number, page in enumerate(pages, start=1):
        text = _unbroken(page)
        empty &= not text.strip()
        for expression, pattern in patterns.items():
            places[expression] += [Place(number, _context(text, match)) for match in pattern.finditer(text)]
    if empty:
        raise PdfError("the PDF holds no text: a scan needs text recognition first")
    return places


def _require_pdf_header(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise PdfError(f"cannot read {path}: {error.strerror}") from error
    if b"%PDF-" not in head:
        raise PdfError(f"{path} is not a PDF: it does not begin with %PDF-")


def _page_text(path: Path, page: Any) -> str:
    try:
        return str(page.extract_text())
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> PdfError:
    """Damage surfaces in pypdf as almost any exception, KeyError and RecursionError included."""
    return PdfError(f"{path} cannot be read as a PDF: {error or type(error).__name__}")


@contextmanager
def _no_log_messages(name: str) -> Iterator[None]:
    """Pypdf logs every oddity of a file; what matters reaches the user as an exception."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _unbroken(text: str) -> str:
    """Ligatures spelt out, words broken at the end of a line joined: a hyphen there may be the word's own."""
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "-\n")
    return re.sub(r"(?<=[^\W\d])[-\u2010]\s*\n\s*(?=[^\W\d])", "", text)


def _pattern(expression: str) -> re.Pattern[str]:
    if expression[0].isdigit():
        return re.compile(rf"(?<!\d)(?<!\d[.,]){_number(expression)}(?!\d|[.,]\d)", re.IGNORECASE)
    parts = map(re.escape, re.findall(r"\w+|[^\w\s-]", expression))
    gap = r"[\s\u2010-\u2015-]*"  # may be nothing: the hyphen of a compound went with the line break
    return re.compile(rf"(?<!\w){gap.join(parts)}s?(?!\w)", re.IGNORECASE)


def _number(number: str) -> str:
    """A number with or without a separator of thousands and spaces around its unit or ratio sign."""
    pattern = re.sub(r"(?<=\d)(?=\d{3}$)", ",?", number) if number.isdigit() else re.escape(number)
    return re.sub(r"%|(?<=\d)B$|:", r"\\s*\g<0>\\s*", pattern).removesuffix(r"\s*")


def _context(text: str, match: re.Match[str]) -> str:
    start = max(0, match.start() - CONTEXT_CHARACTERS)
    end = match.end() + CONTEXT_CHARACTERS
    before, after = text[start : match.start()], text[match.end() : end]
    if start > 0:
        before = before.partition(" ")[2]
    if end < len(text):
        after = after.rpartition(" ")[0]
    words = " ".join(f"{before}{match[0]}{after}".split())
    return "".join(filter(str.isprintable, words))  # a PDF may hold sequences that a terminal obeys
