"""The explorer's page in a real browser: seconds from what a hand does until the answer is drawn."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from benchmarks.cases.explorer import LONG, MOVES, answered, read_document
from benchmarks.outcome import MEBI, Figure, Outcome, Samples, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rattention.explorer import Reading

    from benchmarks.race import Setup

FIRST_PAINT = 1.0
"""Seconds until something is seen of a page that opens from the disk."""
PAGE, LONG_PAGE = 10e6 / MEBI, 25e6 / MEBI
"""MiB of a page that holds every layer; `LONG_PAGE` for more than `LONG` tokens."""
LAYERS = 24
VIEWPORT = {"width": 1280, "height": 720}
SCRIPT = Path(__file__).with_suffix(".js").read_text("utf-8")
"""What a hand does, and when the page has drawn what it asked for."""


def live(setup: Setup) -> Outcome:
    """Moves in the map of one head, and clicks on tokens, in Chromium: seconds until the answer is drawn."""
    reading = read_document(setup.length)
    try:
        with _browser() as browser, _served(reading) as address:
            page = browser.new_page(viewport=VIEWPORT)
            page.add_init_script(SCRIPT)
            page.goto(f"{address}#l=0&h=0")
            page.wait_for_selector(".token", state="attached", timeout=120_000)
            page.evaluate("settled()")
            times = 5 if setup.quick else MOVES
            moves, clicks = _moves(page, times), _clicks(page, setup.length, times)
    except (ImportError, FileNotFoundError) as error:
        return Outcome([], missing={"Chromium": str(error)})
    return answered(moves, clicks, setup.length, ", drawn")


def offline(setup: Setup) -> Outcome:
    """The page of a document read by 24 layers of one narrow head: its bytes, and its first paint."""
    from rattention.explorer.explorer import Explorer
    from rattention.explorer.offline import offline_page

    reading = read_document(setup.length, layers=LAYERS, head_dim=16)
    page = offline_page(Explorer(reading)).encode("utf-8")
    size = at_most(LONG_PAGE if setup.length > LONG else PAGE)
    figures = [Figure(f"bytes of the page, {LAYERS} layers", len(page) / MEBI, "MiB", size)]
    try:
        with _browser() as browser:
            paints = tuple(_first_paint(browser, page) for _ in range(setup.rounds))
    except (ImportError, FileNotFoundError) as error:
        return Outcome(figures, missing={"Chromium": str(error)})
    seen = Figure(f"first paint, median of {setup.rounds}", median(paints), "s", at_most(FIRST_PAINT))
    return Outcome([*figures, seen], {"first paint": Samples(paints)})


@contextmanager
def _browser() -> Iterator[Any]:
    """Chromium, driven by playwright. ImportError, FileNotFoundError where there is none."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise FileNotFoundError("chromium is not on the PATH, and CHROMIUM does not name it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def _served(reading: Reading) -> Iterator[str]:
    """The address of a live page of a reading."""
    import uvicorn
    from rattention.explorer.server import address, application, listening
    from rattention.explorer.session import Session

    class Given:
        name = "seeded"

        def read(self, *_: Any) -> Reading:
            return reading

    session = Session(cast("Any", Given()))
    session.read(reading.document.text)
    listener = listening(0)
    app = application(session, listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield address(listener)
    finally:
        server.should_exit = True
        session.close()
        thread.join()


def _moves(page: Any, times: int) -> tuple[float, ...]:
    """Seeded turns of the wheel above the map, drags by arrow keys, now and then the whole map."""
    rng = np.random.default_rng(0)
    box = page.locator("canvas.map").bounding_box()
    took = []
    for _ in range(times):
        x, y = (float(v) for v in rng.uniform(0.2, 0.95, 2))
        at = box["x"] + x * box["width"], box["y"] + y * box["height"]
        kind = rng.choice(["in", "in", "in", "out", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown", "0"])
        if kind in ("in", "out"):
            page.mouse.move(*at)
            delta = -400 if kind == "in" else 400
            took.append(page.evaluate("([x, y, d]) => timed(() => turnWheel(x, y, d))", [*at, delta]))
        else:
            took.append(page.evaluate("(key) => timed(() => pressOnMap(key))", str(kind)))
    return tuple(t / 1000 for t in took)


def _clicks(page: Any, length: int, times: int) -> tuple[float, ...]:
    """Clicks on tokens in all of the document; scrolling there does not count."""
    took = []
    for token in np.random.default_rng(1).integers(0, length, times).tolist():
        page.evaluate("(share) => scrollText(share)", token / length)
        took.append(page.evaluate("() => timedUntil('/api/reads', tokenClick())"))
    return tuple(t / 1000 for t in took)


def _first_paint(browser: Any, content: bytes) -> float:
    """Seconds from the navigation to the first contentful paint of a file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_bytes(content)
        page = browser.new_page(viewport=VIEWPORT)
        page.goto((Path(folder) / "page.html").as_uri())
        page.wait_for_selector(".token", state="attached", timeout=120_000)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.close()
    return float(paint) / 1000
