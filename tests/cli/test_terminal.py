"""Parts of the command line: lists of numbers, bars and tables."""

from __future__ import annotations

import argparse
import sys

import pytest
from rattention.cli import text
from rattention.cli.options import Numbers, whole_numbers
from rattention.cli.text import Style, number, table

from tests.extras import needs


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("50", (50,)),
            (" 50, 100 ", (50, 100)),
            ("50,100,...,300", (50, 100, 150, 200, 250, 300)),
            ("50,100,...,220", (50, 100, 150, 200, 220)),
            ("8,50,100,...,200", (8, 50, 100, 150, 200)),
            ("1,2,...,2", (1, 2)),
        ],
    )
    def test_lists(self, text: str, numbers: tuple[int, ...]) -> None:
        assert whole_numbers(text) == numbers

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "1.5",
            "1,",
            "...",
            "5,...,9",
            "5,4,...,1",
            "5,5,...,9",
            "1,2,...",
            "1,2,...,5,6",
            "1,2,...,99999999",
        ],
    )
    def test_no_lists(self, text: str) -> None:
        (reads,) = Numbers.__metadata__
        with pytest.raises(argparse.ArgumentTypeError, match=r"must be whole numbers|must not be empty"):
            reads(text)


class TestTerminal:
    def test_bars(self) -> None:
        fine, plain = Style(True, False), Style(False, False)
        assert [fine.bar(s, 4) for s in (0, 0.5, 1, 2, -1)] == ["    ", "██  ", "████", "████", "    "]
        assert fine.bar(0.53125, 4) == "██▏ "
        assert [plain.bar(s, 4) for s in (0, 0.5, 1)] == ["....", "##..", "####"]

    @pytest.mark.parametrize("with_rich", [True, False])
    def test_numbers_to_the_right_words_to_the_left(
        self, monkeypatch: pytest.MonkeyPatch, with_rich: bool
    ) -> None:
        if with_rich:
            needs("cli")
        else:
            monkeypatch.setitem(sys.modules, "rich", None)
        header, rows = ("a\nunit", "b", "c"), [("1", "x", "0.5"), ("333", "yy", "-")]
        shown = table(header, rows, Style(False, False))
        assert [line.rstrip() for line in shown.splitlines()] == [
            *(["     a", "  unit  b     c"] if with_rich else ["     a  b     c", "  unit"]),
            "     1  x   0.5",
            "   333  yy    -",
        ]

    def test_wide_cells_wrap_with_rich(self, monkeypatch: pytest.MonkeyPatch) -> None:
        needs("cli")
        monkeypatch.setenv("COLUMNS", "40")
        shown = table(("name", "text"), [("one", "many words " * 9)], Style(True, False))
        assert max(map(len, shown.splitlines())) <= 40
        assert shown.count("many") == 9

    @pytest.mark.parametrize(
        ("value", "shown"), [(1059.73, "1,059.73"), (0.0743, "0.07"), (float("nan"), "-"), (None, "-")]
    )
    def test_one_format_of_numbers(self, value: float | None, shown: str) -> None:
        assert number(value, ",.2f") == shown

    def test_colours_only_where_there_are_some(self) -> None:
        assert Style(True, True).paint("x", text.RED) == "\x1b[31mx\x1b[0m"
        assert Style(True, False).paint("x", text.RED) == "x"
