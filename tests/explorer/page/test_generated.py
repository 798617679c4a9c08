"""What the model wrote is told from what was given: in the text, the map, the curves and the exports."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest

from tests.explorer.page.answers import Answers, stored
from tests.explorer.page.test_text import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    Visit = Callable[..., Any]

FIRST = 20


@pytest.fixture
def answers() -> Answers:
    made = stored(PLAIN)
    made.generated = FIRST
    return made


def test_tokens_have_a_style_and_a_label(visit: Visit, answers: Answers) -> None:
    page = visit(answers, "#u=token")
    marked = page.locator(".sheet .token.generated")
    assert marked.evaluate_all("(nodes) => nodes.map((node) => Number(node.dataset.t))") == [
        *range(FIRST, answers.text.count)
    ]
    style = "(node) => getComputedStyle(node).borderBottomStyle"
    assert marked.first.evaluate(style) == "dashed"
    assert page.locator('.sheet [data-t="3"]').evaluate(style) == "none"
    told = page.locator(".text-pane").aria_snapshot()
    before, label, after = told.partition("generated text:")
    assert label
    assert "The keeper lit" in before
    assert "slept" in after
    assert page.locator(".answer-legend").inner_text().endswith(f"{answers.text.count - FIRST} generated")
    text = page.get_by_role("region", name=f"from position {FIRST} on the model wrote it")
    text.focus()
    text.press("End")
    page.wait_for_function("document.querySelector('[aria-live]').textContent.endsWith(', generated')")
    text.press("Enter")
    page.locator(".chip", has_text="generated").wait_for()


def test_curves_mark_the_beginning_and_show_each_token(visit: Visit, answers: Answers) -> None:
    page = visit(answers, "#t=curves&l=0&h=0")
    n = answers.text.count
    begins = page.locator(".curve .begins")
    begins.first.wait_for(state="attached")
    place = float(begins.first.get_attribute("d").removeprefix("M").split()[0]) / 260
    assert place == pytest.approx(FIRST / n, abs=1e-3)
    label = page.locator(".curve svg").first.get_attribute("aria-label")
    assert label.endswith(f"; the answer begins at position {FIRST}")
    page.get_by_role("button", name="answer, token by token").click()
    page.wait_for_function("location.hash.includes('o=answer')")
    dots = page.locator(".curve .dots")
    assert dots.first.get_attribute("d").count("h0") == n - FIRST
    rows = page.locator(".answer-table tbody tr")
    assert rows.count() == n - FIRST
    values = answers.overview("0", "0")[1]["curves"][:, 10:]
    for i in (0, n - FIRST - 1):
        cells = rows.nth(i).locator("td").all_inner_texts()
        assert cells[0] == str(FIRST + i)
        assert cells[1] == f"{values[0, i]:g} nats"
    box = page.locator(".curve svg").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 1.5 / (n - FIRST), box["y"] + 9)
    read = page.locator(".curve-head .quiet").first.inner_text()
    assert read.endswith(f"({FIRST + 1}): {values[0, 1]:g} nats")


def lines_of(page: Any, colour: int) -> None:
    """Waits until the map has a row and a column of pixels in a colour."""
    page.wait_for_function(
        """(colour) => {
          const canvas = document.querySelector('canvas.map');
          if (!canvas.width) return false;
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const rows = new Map();
          for (let i = 0; i < data.length; i += 4) {
            if (((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]) !== colour) continue;
            const row = Math.floor(i / 4 / canvas.width);
            rows.set(row, (rows.get(row) ?? 0) + 1);
          }
          const across = [...rows.values()].some((count) => count > canvas.width / 3);
          return across && rows.size > canvas.height / 3;
        }""",
        arg=colour,
    )


def test_the_map_has_lines_where_the_answer_begins(visit: Visit, answers: Answers) -> None:
    lines_of(visit(answers, "#l=0&h=0"), 0x7B3FB5)


def test_the_map_has_lines_where_parts_begin(visit: Visit) -> None:
    answers = stored(PLAIN)
    answers.parts = (0, 12, 13, 30)
    lines_of(visit(answers, "#l=0&h=0"), 0x4A525C)


def test_nothing_is_marked_where_all_was_given(visit: Visit) -> None:
    page = visit(stored(PLAIN), "#t=curves&o=answer")
    page.locator(".curve svg").first.wait_for()
    for what in (".generated", ".answer-legend", ".curve .begins", ".curve-parts", ".answer-table tr"):
        assert page.locator(what).count() == 0, what


def test_exports_tell_them_apart(visit: Visit, answers: Answers) -> None:
    page = visit(answers)
    page.locator(".menu summary").click()
    with page.expect_download() as found:
        page.get_by_role("button", name="Text as CSV").click()
    rows = list(csv.DictReader(io.StringIO(found.value.path().read_text("utf-8"), newline="")))
    assert [row["generated"] for row in rows] == [str(int(i >= FIRST)) for i in range(answers.text.count)]
