"""Parts of the command line: lists of numbers, bars and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tyro", reason="needs the extra 'cli'")

from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, table

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]


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
        assert whole_numbers("lengths", text) == numbers

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
        with pytest.raises(ValueError, match="--lengths must be whole numbers"):
            whole_numbers("lengths", text)


class TestTerminal:
    def test_bars(self) -> None:
        fine, plain = Style(True, False), Style(False, False)
        assert [fine.bar(s, 4) for s in (0, 0.5, 1, 2, -1)] == ["    ", "██  ", "████", "████", "    "]
        assert fine.bar(0.53125, 4) == "██▏ "
        assert [plain.bar(s, 4) for s in (0, 0.5, 1)] == ["....", "##..", "####"]

    def test_table_aligns(self) -> None:
        shown = table(("a\nunit", "b", ""), [("1", "22", "x"), ("333", "4", "y")], Style(False, False))
        assert shown == "     a   b\n  unit\n     1  22  x\n   333   4  y"
