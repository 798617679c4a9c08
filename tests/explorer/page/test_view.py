"""The state of the view: address, keyboard, failures, modules, other hosts."""

from __future__ import annotations

import base64
import re
import zlib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.explorer.page.answers import Answers, pack, stored
from tests.explorer.page.serving import PAGE
from tests.explorer.page.test_text import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    Visit = Callable[..., Any]

MODULES = sorted(PAGE.rglob("*.js"))


def test_wire_format_gives_back_every_array(visit: Visit) -> None:
    rng = np.random.default_rng(3)
    arrays = {
        "a": rng.normal(size=(2, 3)).astype(np.float32),
        "b": np.array([-5, 7], np.int32),
        "c": np.arange(5, dtype=np.uint8),
        "d": np.array([[65535]], np.uint16),
    }
    body = base64.b64encode(pack({"title": "é😀", "none": None}, arrays)).decode()
    page = visit(stored(PLAIN))
    found = page.evaluate(
        """async (body) => {
          const { decode } = await import('/wire.js');
          const bytes = Uint8Array.from(atob(body), (sign) => sign.charCodeAt(0));
          const answer = decode(bytes.buffer);
          const plain = Object.fromEntries('abcd'.split('').map((name) => [name, {
            kind: answer[name].data.constructor.name,
            data: [...answer[name].data],
            shape: answer[name].shape }]));
          let cut = '';
          try { decode(bytes.buffer.slice(0, bytes.length - 9)); } catch (error) { cut = error.message; }
          return { title: answer.title, none: answer.none, cut, ...plain };
        }""",
        body,
    )
    assert (found["title"], found["none"], found["cut"]) == ("é😀", None, "array d is cut short")
    for name, array in arrays.items():
        assert found[name]["shape"] == list(array.shape)
        assert found[name]["data"] == array.ravel().tolist()
        assert found[name]["kind"] == f"{str(array.dtype).capitalize()}Array"


def test_the_address_holds_the_view_and_back_returns(visit: Visit) -> None:
    hashed = "#l=1&h=2&c=0.1&u=token&s=5-9&d=readers&m=2_20_1_19&g=linear&a=0&t=curves"
    page = visit(stored(PLAIN), hashed)
    page.wait_for_selector(".curve svg")
    assert page.locator("select[aria-label=Layer]").input_value() == "1"
    assert page.locator(".text").count() == page.locator("canvas.map").count() == 2
    assert page.locator(".text >> nth=0").locator(".chosen").count() == 4
    pressed = page.locator("[aria-pressed=true]").all_inner_texts()
    assert {"token", "is read by", "linear"} <= {*pressed}
    page.get_by_role("tab", name="Help").click()
    page.wait_for_url("**t=help")
    page.go_back()
    page.wait_for_selector(".curve svg")
    assert page.evaluate("location.hash") == hashed


def test_an_address_that_does_not_fit_is_ignored(visit: Visit) -> None:
    page = visit(stored(PLAIN), "#l=99&h=x&s=9-3&m=1_2&u=page&y=999999&t=conversation&v=77")
    assert page.locator("select[aria-label=Layer]").input_value() == "mean"
    assert page.locator(".chosen").count() == 0
    assert page.get_by_role("tab", selected=True).inner_text() == "Top keys"


def test_names_of_an_address_that_are_no_fields(visit: Visit) -> None:
    page = visit(stored(PLAIN), "#constructor=1&__proto__=2&toString=3&u=token")
    assert page.get_by_role("button", name="token", exact=True).get_attribute("aria-pressed") == "true"


def test_no_part_of_nothing_is_asked_for(visit: Visit) -> None:
    page = visit(stored(PLAIN))
    read = """async (hash) => (await import('/hash.js')).readHash(hash).budget"""
    found = [page.evaluate(read, f"#b={part}") for part in ("0", "0.25", "1", "2", "")]
    assert found == [0.5, 0.25, 1, 0.5, 0.5]


def test_everything_works_by_keyboard(visit: Visit) -> None:
    answers = stored(PLAIN)
    page = visit(answers)
    text = page.locator(".scroller")
    text.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        text.press(key)
    first, stop = answers.text.words[2:4]
    page.wait_for_function(f"location.hash.includes('s={first}-{stop}')")
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes(' reads: ')")
    page.locator("canvas.map").press("+")
    page.wait_for_function("location.hash.includes('m=')")
    page.locator("canvas.map").press("0")
    page.wait_for_function("!location.hash.includes('m=')")
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.locator("canvas.grid").press(key)
    page.wait_for_function("location.hash.includes('l=0&h=0')")
    page.keyboard.press("Escape")
    page.wait_for_function("!location.hash.includes('s=')")


class Refusing(Answers):
    """Has no answer to `reads`."""

    def reads(self, layer: str, head: str, start: str, stop: str) -> Any:
        raise ValueError("no <b>memory</b> left")


def test_a_refusal_is_shown_as_text(visit: Visit) -> None:
    page = visit(Refusing(PLAIN), refused=True)
    page.locator('[data-t="3"]').click()
    page.wait_for_selector(".notice:not([hidden])")
    assert page.locator(".notice").inner_text() == "refused: no <b>memory</b> left"


class Working(Answers):
    """Knows what the keys receive only after it was asked three times how far it is."""

    asked = 0

    def document(self) -> Any:
        values, arrays = super().document()
        return values | {"state": "working" if self.asked < 3 else "ready"}, arrays

    def progress(self) -> Any:
        self.asked += 1
        state = "working" if self.asked < 3 else "ready"
        return {"stage": "Measuring", "done": self.asked, "total": 3, "state": state, "error": ""}, {}

    def overview(self, layer: str, head: str) -> Any:
        if self.asked < 3:
            raise ValueError("not yet")
        return super().overview(layer, head)


def test_what_was_at_work_is_shown_once_it_is_there_and_the_page_stays(visit: Visit) -> None:
    page = visit(Working(PLAIN), refused=True)
    page.evaluate("document.querySelector('.scroller').mine = true")
    page.wait_for_selector(".progress:not([hidden]) progress[value]")
    assert page.locator(".top li").count() == 0
    page.wait_for_selector(".top li")
    assert page.locator(".progress").is_hidden()
    assert page.locator(".notice").is_hidden()
    assert page.evaluate("document.querySelector('.scroller').mine")


def block(question: str, answer: tuple[dict[str, Any], dict[str, Any]], params: str = "") -> str:
    packer = zlib.compressobj(wbits=-15)
    body = base64.b64encode(packer.compress(pack(*answer)) + packer.flush()).decode()
    return f'<script type="text/plain" data-ask="{question}" data-params="{params}">{body}</script>'


def passages(answers: Answers) -> dict[str, Any]:
    """Passages of five tokens, and the four that each reads most."""
    edges = np.arange(0, answers.text.count, 5)
    rows = np.split(answers.of("mean", "mean"), edges[1:])
    shares = np.stack([np.add.reduceat(one.mean(0), edges) for one in rows])
    to = np.argsort(-shares, axis=1)[:, :4]
    share = np.take_along_axis(shares, to, 1)
    return {
        "starts": np.append(edges, answers.text.count),
        "to": to,
        "from": to,
        "share": share,
        "given": share,
    }


def offline(answers: Answers) -> str:
    """The page with answers for the mean of all heads."""
    n, one, mean = answers.text.count, answers.of("mean", "mean"), "head=mean&layer=mean"
    found = passages(answers)
    arrays = {k: v.astype(np.float32 if v.dtype == np.float64 else np.int32) for k, v in found.items()}
    values, document = answers.document()
    weights = np.round(255 / 8 * np.log2(1 + 255 * one)).astype(np.uint8)
    blocks = [
        block("document", (values | {"choices": [["mean", "mean"]]}, document)),
        block("grid", answers.grid()),
        block("overview", answers.overview("mean", "mean"), mean),
        block("map", ({"rows": [0, n], "keys": [0, n], "scale": 1.0}, {"weights": weights}), mean),
        block("passages", ({"unit": "passage"}, arrays), mean),
    ]
    return (PAGE / "index.html").read_text("utf-8").replace("<main>", "".join(blocks) + "<main>")


def test_a_file_answers_for_itself(visit: Visit) -> None:
    answers = stored(PLAIN)
    page = visit(answers, "inline.html#u=token&a=0&s=13-18", inline_html=offline(answers))
    page.wait_for_function("document.querySelector('.tabs h3').textContent.includes('whole passages')")
    found = passages(answers)
    shares = np.zeros(len(found["starts"]))
    for passage, part in ((2, 2 / 5), (3, 3 / 5)):  # two of five rows are those of the passage [10, 15)
        shares[found["to"][passage]] += part * found["share"][passage] / 5
    shown = float(page.locator(".top .share").first.inner_text().removesuffix(" %"))
    assert shown == pytest.approx(100 * shares.max(), rel=0.04)
    page.locator("canvas.map").hover(position={"x": 90, "y": 250})
    assert "weight" in page.locator(".hint").inner_text()


WIDGET = """
<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><div></div>
<script type="module" src="fake.js"></script>
"""
FAKE = """
import { render } from './widget.js';
import { decode } from './wire.js';
const listeners = new Set();
const model = {
  get: () => '.token { color: rgb(1, 2, 3); }',
  on: (name, heard) => listeners.add(heard),
  off: (name, heard) => listeners.delete(heard),
  async send({ id, question, params }) {
    const query = new URLSearchParams(params);
    const headers = { 'X-Explorer': '1', 'X-Reading': 'of the test' };
    const response = await fetch(`/api/${question}?${query}`, { headers });
    const body = await response.arrayBuffer();
    const length = new DataView(body).getUint32(0, true);
    const { values, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(body, 4, length)));
    const buffers = [new DataView(body, 4 + length)];
    for (const heard of listeners) heard({ id, values, arrays }, buffers);
  },
};
const close = render({ model, el: document.querySelector('div') });
window.taken = () => {
  close();
  return [listeners.size, document.querySelector('div').shadowRoot.querySelectorAll('.token').length];
};
"""


def test_the_widget_asks_through_its_model_and_leaves_nothing_behind(visit: Visit) -> None:
    page = visit(stored(PLAIN), "inline.html", inline_html=WIDGET, fake_js=FAKE)
    page.locator('[data-t="3"]').click()
    page.locator(".summary .quoted").first.wait_for()
    colour = page.locator(".token").first.evaluate("(node) => getComputedStyle(node).color")
    assert colour == "rgb(1, 2, 3)"
    assert page.evaluate("location.hash") == ""
    assert page.evaluate("taken()") == [0, 0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PAGE).as_posix())
def test_modules_are_small_and_import_only_by_relative_names(path: Path) -> None:
    source = path.read_text("utf-8")
    assert source.count("\n") < 400
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|import\(", source)
    for line in re.findall(r"^import .*$", source, re.M):
        assert re.fullmatch(r"import \{.*\} from '\.\.?/[\w/]+\.js';", line), line


def test_modules_do_not_import_in_a_circle() -> None:
    graph = {
        path: {
            (path.parent / name).resolve() for name in re.findall(r"from '(\..*?)'", path.read_text("utf-8"))
        }
        for path in MODULES
    }
    assert {name for names in graph.values() for name in names} <= {*MODULES}
    assert len([*TopologicalSorter(graph).static_order()]) == len(MODULES)
