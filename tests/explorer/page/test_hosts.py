"""The page in a browser: live and from a file, with the numbers that Python gives."""

from __future__ import annotations

import random
import re
import threading

import numpy as np
import pytest

from tests.extras import needs

needs("explore")

from rattention.explorer.offline import offline_page
from rattention.explorer.server import address, listening, serve
from rattention.explorer.session import Session

from tests.explorer.test_answers import named
from tests.explorer.test_server import Letters

TEXT = "Never odd or even. <script>alert(1)</script>\nMadam, \u202ein Eden\u202c, I'm Adam 😀! " * 3
SELECTED = 40
VIEW = f"#l=0&h=1&u=token&s={SELECTED}-{SELECTED + 1}&a=0&t=top"


@pytest.fixture(scope="module")
def session():
    made = Session(Letters(None, "letters"))
    made.read(TEXT, "palindromes")
    return made


@pytest.fixture(scope="module")
def places(session, tmp_path_factory):
    """Where the page is: a server's address, and a file's."""
    listener = listening(0)
    threading.Thread(target=serve, args=(session, listener), daemon=True).start()
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(offline_page(session.explorer), "utf-8")
    return {"live": address(listener), "offline": file.as_uri()}


@pytest.mark.parametrize("host", ["live", "offline"])
def test_numbers(page, places, session, host):
    """The strongest keys of the selected token, as Python has them."""
    page.goto(places[host] + VIEW)
    page.wait_for_selector("ol.top li .share")
    shown = [
        float(re.sub(r"[^\d.]", "", share)) for share in page.locator("ol.top li .share").all_inner_texts()
    ]
    given = {**named(0, 1), "start": str(SELECTED), "stop": str(SELECTED + 1)}
    reads = session.explorer.ask("reads", given)["reads"]
    expected = 100 * np.sort(reads)[::-1]
    few = min(6, len(shown))
    np.testing.assert_allclose(shown[:few], expected[:few], rtol=0.02, atol=0.06)
    places_shown = [int(t.replace(",", "")) for t in page.locator("ol.top li .place").all_inner_texts()]
    assert places_shown[0] == int(np.argmax(reads))


@pytest.mark.parametrize("host", ["live", "offline"])
def test_text_is_shown_as_text(page, places, host):
    page.goto(places[host])
    page.wait_for_selector(".line .token")
    shown = page.locator(".line").first.inner_text()
    assert shown.startswith("Never odd or even. <script>alert(1)</script>")
    assert page.evaluate("document.querySelectorAll('.line script').length") == 0


def test_back_and_forward(page, places):
    page.goto(places["live"])
    page.wait_for_selector(".line .token")
    page.locator(".line .token").nth(7).click()
    page.wait_for_url("**/#*s=*")
    page.go_back()
    page.wait_for_url(lambda address: "s=" not in address)


@pytest.mark.slow
def test_a_long_session(page, places):
    """500 clicks and keys at random: nothing is said, and no more elements are there than at first."""
    page.goto(places["live"])
    page.wait_for_selector(".line .token")
    count = "document.querySelectorAll('*').length"
    rng, before = random.Random(0), page.evaluate(count)
    keys = [
        "ArrowRight",
        "ArrowLeft",
        "ArrowDown",
        "ArrowUp",
        "+",
        "-",
        "Enter",
        "Tab",
        "Escape",
        "PageDown",
        "Home",
    ]
    for _ in range(250):
        page.mouse.click(rng.randrange(5, 1275), rng.randrange(60, 715))
        page.keyboard.press(rng.choice(keys))
    page.keyboard.press("Escape")
    assert page.evaluate(count) < 3 * before
