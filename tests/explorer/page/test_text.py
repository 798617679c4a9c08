"""The text in the page: exact tokens, hostile text shown as text, only what is in sight in the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.explorer.page.answers import Answers, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    Visit = Callable[..., Any]

PLAIN = "The keeper lit the lamp. The lamp burned until dawn, and the keeper slept.\nShips passed the reef."
HOSTILE = (
    "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'> &amp; "
    "emoji 😀👩 naïve, שלום עולם, left\u202eright\u202c zero\u200bwidth bell\x07 end\n\ttab\r\nline"
)
SHOWN = """() => [...document.querySelectorAll('.token')].map((node) => {
  const copy = node.cloneNode(true);
  const ends = { '↵': '\\n', '␍': '\\r' };
  copy.querySelectorAll('.newline').forEach((sign) => sign.replaceWith(ends[sign.textContent]));
  copy.querySelectorAll('.control').forEach((sign) => sign.replaceWith('['+ sign.textContent + ']'));
  return [Number(node.dataset.t), copy.textContent];
}).reduce((all, [token, text]) => {
  if (all.length && all[all.length - 1][0] === token) all[all.length - 1][1] += text;
  else all.push([token, text]);
  return all;
}, [])"""
BOXES = {"\u202e": "[RLO]", "\u202c": "[PDF]", "\u200b": "[ZWSP]", "\x07": "[U+0007]"}


def expected(answers: Answers) -> list[list[Any]]:
    """Token and text, by offsets in UTF-16; the second token of one character has no span of its own."""
    text, units = answers.text, answers.text.text.encode("utf-16-le")
    found: list[list[Any]] = []
    for token, (start, end) in enumerate(zip(text.starts, text.ends, strict=True)):
        if token and start < end and end <= text.ends[token - 1]:
            continue
        piece = units[2 * start : 2 * end].decode("utf-16-le")
        found.append([token, "".join(BOXES.get(sign, sign) for sign in piece) or "◇"])
    return found


@pytest.mark.parametrize("text", [PLAIN, HOSTILE])
def test_every_token_shows_exactly_its_text(visit: Visit, text: str) -> None:
    answers = stored(text)
    page = visit(answers)
    assert page.evaluate(SHOWN) == expected(answers)
    assert page.evaluate("window.hit") is None
    assert page.locator(".sheet script, .sheet img").count() == 0


def shares(answers: Answers, first: int, stop: int, apart: bool) -> list[tuple[int, float]]:
    """Words by the share they get from rows [first, stop), largest first."""
    one = answers.of("1", "2")[first:stop].mean(0)
    rest = 1 - one[0] if apart else 1
    kept = np.where(np.arange(len(one)) == 0, 0, one) if apart else one
    sums = np.add.reduceat(kept, answers.text.words) / rest
    ranked = np.argsort(-sums, kind="stable")
    return [(int(answers.text.words[word]), float(sums[word])) for word in ranked[:5]]


@pytest.mark.parametrize("apart", [True, False])
def test_a_click_lists_the_shares_of_the_selection(visit: Visit, apart: bool) -> None:
    answers = stored(PLAIN)
    page = visit(answers, f"#l=1&h=2&a={int(apart)}")
    first = int(answers.text.words[9])
    stop = int(answers.text.words[10])
    page.locator(f'[data-t="{first}"]').click()
    page.wait_for_function("document.querySelector('.tabs h3').textContent.includes('reads')")
    for (place, share), entry in zip(
        shares(answers, first, stop, apart), page.locator(".top li").all(), strict=False
    ):
        assert entry.locator(".place").inner_text() == str(place)
        assert float(entry.locator(".share").inner_text().removesuffix(" %")) == pytest.approx(
            100 * share, rel=0.06
        )
    assert page.locator(".chip.sink").count() == apart


def test_only_what_is_in_sight_is_in_the_page(visit: Visit) -> None:
    text = " ".join(f"word{i}" for i in range(9000)) + " harbour\n"
    answers = Answers(text)
    page = visit(answers)
    assert page.locator(".token").count() < 2000
    page.locator(".scroller").press("End")
    last = page.locator(f'[data-t="{answers.text.count - 1}"]')
    last.wait_for()
    assert page.locator(".token").count() < 2000
    assert last.inner_text() == "↵"


def test_find_counts_in_the_whole_text_and_goes_there(visit: Visit) -> None:
    text = ("the lighthouse stood\n" * 400) + "THE END (a+b)"
    page = visit(Answers(text))
    page.keyboard.press("/")
    page.keyboard.type("the ")
    page.wait_for_function("document.querySelector('.find-count').textContent === '1 of 401'")
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".token.present")
    assert page.locator(".find-count").inner_text() == "401 of 401"
    assert "THE" in page.locator(".token.present").first.inner_text()
    page.locator(".find").fill("(a+b)")
    page.wait_for_function("document.querySelector('.find-count').textContent === '1 of 1'")


SCOTLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(sign)) for sign in "gbsct\x7f")
JOINED = f"an 👩\u200d🚀 and {SCOTLAND} fly"


def test_joined_emoji_and_flags_are_left_whole_and_stray_tags_are_boxed(visit: Visit) -> None:
    page = visit(stored(f"{JOINED} with \U000e0061\U000e0062 hidden"), "#t=top&u=sentence")
    assert page.locator(".sheet .control").all_inner_texts() == ["U+E0061", "U+E0062"]
    assert JOINED in page.locator(".line").first.inner_text()
    page.locator(".top li").first.wait_for()
    assert JOINED in page.locator(".top li").first.inner_text()


def test_a_character_of_several_tokens_stands_once_in_its_context(visit: Visit) -> None:
    page = visit(stored("one 😀 two"), "#u=token")
    page.locator(".top li").first.wait_for()
    for line in page.locator(".top .around").all_inner_texts():
        assert line.count("😀") == 1, line


def test_a_title_cannot_turn_the_page(visit: Visit) -> None:
    class Titled(Answers):
        def document(self) -> Any:
            values, arrays = super().document()
            return values | {"title": "a \u202egpj.exe"}, arrays

    page = visit(Titled(PLAIN))
    assert page.locator("h1").inner_text() == "a ·gpj.exe"
    assert page.title() == "a ·gpj.exe · attention"


def test_a_special_token_behind_the_only_other_is_listed_as_special(visit: Visit) -> None:
    """Tokenizers say of their last special token that it stands at the beginning."""
    answers = stored("a")
    answers.text.starts = np.array([0, 0, 0], np.int32)
    answers.text.ends = np.array([0, 1, 0], np.int32)
    answers.text.words = np.array([0, 1, 2], np.int32)
    answers.text.count = 3
    answers.weights = np.full((2, 3, 3, 3), 1 / 3)
    page = visit(answers, "#a=0")
    page.wait_for_selector(".top b")
    assert page.locator(".top b").all_inner_texts() == ["⟨special⟩", "a", "⟨special⟩"]


def test_what_to_do_first_is_not_cut_off(visit: Visit) -> None:
    page = visit(stored(PLAIN))
    line = page.get_by_text("Click a word to see what it reads.")
    page.wait_for_function("document.querySelector('.summary-line').textContent.startsWith('Shaded')")
    assert line.evaluate("(line) => line.scrollWidth <= line.clientWidth")
