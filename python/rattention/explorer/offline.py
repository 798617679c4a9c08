"""One HTML file that shows a reading without a server: the page, and the answers it will ask for."""

from __future__ import annotations

import base64
import html
import zlib
from collections.abc import Iterator
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from rattention.explorer.bundle import module, page_files
from rattention.explorer.document import Document
from rattention.explorer.explorer import Explorer
from rattention.explorer.params import MEAN
from rattention.explorer.passages import KEPT, Choice, Passages, passages, units_of
from rattention.explorer.reading import Progress, Reading, no_progress
from rattention.explorer.wire import Answer, encode

MOST_BYTES = 13_000_000
"""Single heads are embedded as long as everything stays below about this size."""
SIDE = 256
"""Bins of rows and of keys in an embedded map."""
BUDGETS = (0.1, 0.25, 0.5, 0.75)
"""Shares of the tokens for which it is embedded what compression would keep."""
LEVELS = 255


def offline_page(explorer: Explorer, progress: Progress = no_progress) -> str:
    """The file's text. It holds every layer's mean and, where they fit, single heads."""
    answers = list(_answers(explorer, progress))
    blocks = "\n".join(_block(question, params, answer) for question, params, answer in answers)
    page = page_files()["index.html"].decode("utf-8")
    style = page_files()["style.css"].decode("utf-8")
    title = html.escape(explorer.reading.document.title or explorer.reading.model)
    page = _replaced(page, '<link rel="stylesheet" href="style.css">', f"<style>\n{style}</style>")
    script = f'{blocks}\n<script type="module">\n{module("main.js")}</script>'
    page = _replaced(page, '<script type="module" src="main.js"></script>', script)
    return _replaced(page, "<title>Attention explorer</title>", f"<title>{title}</title>")


def _replaced(page: str, part: str, by: str) -> str:
    if page.count(part) != 1:
        raise ValueError(f"index.html must hold {part} once, it does {page.count(part)} times")
    return page.replace(part, by)


def _block(question: str, params: dict[str, str], answer: Answer) -> str:
    packed = zlib.compress(encode(answer), 9, wbits=-15)
    named = html.escape(urlencode(sorted(params.items())))
    data = base64.b64encode(packed).decode("ascii")
    return f'<script type="text/plain" data-ask="{question}" data-params="{named}">{data}</script>'


def _answers(explorer: Explorer, progress: Progress) -> Iterator[tuple[str, dict[str, str], Answer]]:
    document = explorer.reading.document
    choices, units = _choices(explorer.reading), units_of(document)
    yield "document", {}, _document(explorer, choices)
    for question in ("grid", "window"):
        yield question, {}, explorer.ask(question)
    for budget in BUDGETS:
        given = {"budget": str(budget)}
        yield "compression", given, explorer.ask("compression", given)
    told = passages(explorer.reading, units, set(choices), progress)
    for choice in choices:
        given = {name: str(part) for name, part in zip(("layer", "head"), _named(choice), strict=True)}
        overview = explorer.ask("overview", given)
        yield "overview", given, overview | {"received": _rounded(overview["received"])}
        yield "map", given, _small_map(explorer, given)
        yield "passages", given, _passages_answer(units, told[choice])


def _document(explorer: Explorer, choices: list[Choice]) -> Answer:
    document = explorer.ask("document") | {"live": False, "state": "ready"}
    document["choices"] = [_named(choice) for choice in choices]
    if all(head is None for _, head in choices):
        document["remarks"] = [*document["remarks"], "this file holds means over the heads of each layer"]
    return document


def _choices(reading: Reading) -> list[Choice]:
    """All means over heads, and all heads where they fit."""
    counts = [int(layer.query.shape[1]) for layer in reading.layers]
    layers = [None, *range(len(counts))]
    means: list[Choice] = [(layer, None) for layer in layers]
    single: list[Choice] = [
        (layer, head) for layer in layers for head in range(max(counts) if layer is None else counts[layer])
    ]
    return means + single if _size(reading.document) * (len(means) + len(single)) < MOST_BYTES else means


def _size(document: Document) -> float:
    """About how many bytes a choice takes, packed and as base64."""
    cells = min(len(document), SIDE) ** 2
    return 4 / 3 * (cells + 3 * len(document) + 9 * KEPT * len(units_of(document)))


def _named(choice: Choice) -> list[int | str]:
    return [MEAN if part is None else part for part in choice]


def _small_map(explorer: Explorer, given: dict[str, str]) -> Answer:
    """The whole map in 256 levels, finer where weights are small."""
    length = len(explorer.reading.document)
    whole = {"rows": f"0,{length}", "keys": f"0,{length}", "shape": f"{SIDE},{SIDE}"}
    answer = explorer.ask("map", given | whole)
    weights = answer["weights"]
    scale = float(np.nanmax(weights, initial=0)) or 1.0
    levels = np.rint(LEVELS / 8 * np.log2(1 + LEVELS * np.nan_to_num(weights) / scale))
    return answer | {"weights": levels.astype(np.uint8), "scale": scale}


def _passages_answer(units: NDArray[np.int64], read: Passages) -> Answer:
    to, share = read.to
    by, given = read.by
    return {
        "starts": units.astype(np.int32),
        "to": to.astype(np.int32),
        "share": _rounded(share),
        "from": by.astype(np.int32),
        "given": _rounded(given),
    }


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """With 8 bits behind the point, in which zeros are left to be packed."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF)) & np.uint32(0xFFFF0000)).view(np.float32)
