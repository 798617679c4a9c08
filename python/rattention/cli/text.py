"""Text for people: tables, marks and bars, by rich where it is installed and plain otherwise."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO, TypeVar

Item = TypeVar("Item")

WIDEST, UNKNOWN = 100, 120
"""Columns: the longest line of prose, and what a pipe is taken to have."""

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"

_NUMBER = re.compile(r"[-+]?(\d[\d.,]*)?\d ?(%|x|MiB|s)?( (±|\+-|\(|of ).*)?|[-–]|")
"""What stands to the right in its column."""


@dataclass(frozen=True)
class Style:
    """What a stream can show."""

    symbols: bool
    """Characters beyond ASCII."""
    colour: bool
    """ANSI colours."""

    @classmethod
    def of(cls, stream: TextIO | None = None) -> Style:
        """Plain text under NO_COLOR or an encoding other than UTF-8; colours in terminals only."""
        stream = sys.stdout if stream is None else stream
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        symbols = utf8 and not os.environ.get("NO_COLOR")
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        return cls(symbols, symbols and terminal)

    def paint(self, text: str, code: str) -> str:
        """`text` in a colour, where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def title(self, text: str) -> str:
        """A heading with a rule under it."""
        wrapped = paragraph(text)
        rule = ("─" if self.symbols else "-") * max(map(len, wrapped.splitlines()))
        return f"{self.paint(wrapped, BOLD)}\n{self.paint(rule, DIM)}"

    def section(self, title: str, *parts: str) -> str:
        """A heading, and what belongs to it."""
        return "\n".join([self.title(title), *filter(None, parts)])

    def bar(self, share: float, width: int = 10) -> str:
        """A bar for a share between 0 and 1, in eighths of a character where the stream has them."""
        share = min(1.0, max(0.0, share))
        if not self.symbols:
            return ("#" * round(share * width)).ljust(width, ".")
        full, eighths = divmod(round(share * width * 8), 8)
        return ("█" * full + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")).ljust(width)

    def bullets(self, sentences: Iterable[str]) -> str:
        """A list, each sentence wrapped."""
        first = "• " if self.symbols else "- "
        return "\n".join(paragraph(sentence, "  ", first=first) for sentence in sentences)

    def ascii(self, text: str) -> str:
        """`text` in ASCII where it must be."""
        return text if self.symbols else text.replace("–", "-").replace("±", "+-").replace("×", "x")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], style: Style) -> str:
    """Columns, numbers aligned to the right; a header may have several lines. With rich, cells wrap."""
    cells = [[style.ascii(cell) for cell in row] for row in rows]
    right = [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*cells, strict=True)]
    draw = _plain_table
    try:
        import rich  # noqa: F401

        draw = _rich_table
    except ImportError:
        pass
    return textwrap.indent("\n".join(draw([*header], cells, right or [False] * len(header), style)), "  ")


def table_of(columns: Mapping[str, Callable[[Item], str]], items: Iterable[Item], style: Style) -> str:
    """A table with a row for each item; columns by header, each with the text of its cell."""
    return table([*columns], [[cell(item) for cell in columns.values()] for item in items], style)


def _rich_table(header: list[str], rows: list[list[str]], right: list[bool], style: Style) -> list[str]:
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD if style.symbols else None, show_edge=False, pad_edge=False)
    made.padding = (0, 0, 0, 1) if style.symbols else (0, 2, 0, 0)  # two spaces between columns
    for head, is_number in zip(header, right, strict=True):
        justify: Literal["right", "left"] = "right" if is_number else "left"
        made.add_column(head, header_style="bold", justify=justify, vertical="bottom", overflow="fold")
    for row in rows:
        made.add_row(*(Text.from_ansi(cell) for cell in row))
    out = io.StringIO()
    console = Console(file=out, width=columns() - 2, force_terminal=style.colour, no_color=not style.colour)
    console.print(made)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _plain_table(header: list[str], rows: list[list[str]], right: list[bool], style: Style) -> list[str]:
    heads = [head.split("\n") for head in header]
    height = max(map(len, heads))
    above = [[head[i] if i < len(head) else "" for head in heads] for i in range(height)]
    lines = [*above, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def number(value: float | None, form: str) -> str:
    """A number in a fixed format such as ``,.2f``; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def columns() -> int:
    """The width of the terminal in characters."""
    return max(20, shutil.get_terminal_size((UNKNOWN, 24)).columns)


def text_width() -> int:
    """The width of a line of prose in characters."""
    return min(WIDEST, columns())


def paragraph(text: str, indent: str = "", first: str | None = None) -> str:
    """Wrapped to the terminal, at most `WIDEST` characters wide; names of files stay whole."""
    return textwrap.fill(
        text,
        text_width(),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def note(text: str) -> None:
    """A remark for the person at the terminal, on stderr."""
    print(f"note: {text}", file=sys.stderr)


def progress(items: Sequence[Item], description: str) -> Iterable[Item]:
    """A bar on stderr when that is a terminal and rich is there."""
    if not sys.stderr.isatty():
        return items
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return items
    return track(items, description, console=Console(stderr=True), transient=True)
