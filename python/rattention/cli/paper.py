"""``rattention paper``: what the paper says, what its caches weigh, and where a PDF says the same."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rattention.paper import pdf, summary
from rattention.paper.savings import PRESETS, CacheBytes, CacheModel, cache_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 100
PLACES_SHOWN = 3
DESIGNS = {
    "sliding_window": "sliding window",
    "rattention": "RAttention",
    "rattention_state_per_query_head": "state per query head",
}


@dataclass
class Paper:
    """What the RAttention paper says, and the memory it saves.

    A short summary with the main numbers and their place in the paper, then the bytes of keys, values and
    states that a model holds for one sequence at each context length.
    """

    model: Literal["3b", "12b"] = "12b"
    """One of the paper's models; the options below replace parts of it."""
    layers: int | None = None
    heads: int | None = None
    """Query heads."""
    kv_heads: int | None = None
    """Key/value heads."""
    head_dim: int | None = None
    window: int | None = None
    """A local layer sees the current token and this many before it."""
    global_every: int | None = None
    """The last of every so many layers is global; 0 where all are local."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of keys and values."""
    state_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the linear-attention states."""
    lengths: str = "1024,2048,4096,8192,32768,131072"
    """Context lengths, separated by commas."""
    pdf: Path | None = None
    """A PDF of yours: list where the terms and numbers of the summary stand in it."""
    json: bool = False
    """Print JSON."""


def run(options: Paper) -> int:
    """Print the summary, the cache table and what the PDF holds.

    Raises
    ------
    ValueError
        An impossible model, a bad length or an unreadable PDF.
    ImportError
        pypdf is missing.
    """
    model = _model(options)
    caches = [cache_bytes(model, length) for length in _lengths(options.lengths)]
    found = None if options.pdf is None else _search(options.pdf)
    if options.json:
        print(json.dumps(_as_json(model, caches, options.pdf, found), indent=2))
    else:
        for part in _as_text(model, caches, options.pdf, found):
            print(part)
    return 0


def _model(options: Paper) -> CacheModel:
    preset = PRESETS[options.model]
    given = {name: getattr(options, name) for name in asdict(preset)}
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def _lengths(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"lengths must be whole numbers separated by commas, got {text!r}") from None


def _search(path: Path) -> dict[str, list[pdf.Place]]:
    return pdf.find(pdf.read_pages(path), summary.searchable())


def _as_json(
    model: CacheModel,
    caches: Iterable[CacheBytes],
    path: Path | None,
    found: dict[str, list[pdf.Place]] | None,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "title": summary.TITLE,
        "authors": summary.AUTHORS,
        "source": summary.SOURCE,
        "points": [asdict(point) for point in summary.POINTS],
        "results": [
            {"title": table.title, "place": table.place, "columns": table.columns, "rows": dict(table.rows)}
            for table in summary.RESULTS
        ],
        "model": asdict(model) | {"global_layers": model.global_layers},
        "caches": [asdict(cache) | {"saved": {d: cache.saved(d) for d in DESIGNS}} for cache in caches],
    }
    if found is not None:
        places = {expression: [asdict(place) for place in at] for expression, at in found.items()}
        result["pdf"] = {"path": str(path), "found": places}
    return result


def _as_text(
    model: CacheModel,
    caches: Iterable[CacheBytes],
    path: Path | None,
    found: dict[str, list[pdf.Place]] | None,
) -> Iterable[str]:
    yield f"{summary.TITLE}\n{summary.AUTHORS}; {summary.SOURCE}\n"
    yield "What it says, and where:\n"
    yield from (_point(point) for point in summary.POINTS)
    yield "Main numbers (SWA: sliding window, RAttn: RAttention, followed by the window):\n"
    for table in summary.RESULTS:
        yield f"  {table.title} [{table.place}]"
        yield _table([["", *table.columns], *([name, *values] for name, values in table.rows)])
    yield _cache_title(model)
    yield _table(_cache_rows(caches))
    if found is not None:
        yield f"Where {path} says it:\n"
        yield from _places(found)


def _point(point: summary.Point) -> str:
    head = f"{point.topic} [{point.place}]: "
    return textwrap.fill(head + point.statement, WIDTH, initial_indent="  ", subsequent_indent="    ") + "\n"


def _cache_title(model: CacheModel) -> str:
    text = (
        f"Bytes held for one sequence by {model.layers} layers ({model.global_layers} global), {model.heads} "
        f"query heads over {model.kv_heads} key/value heads of {model.head_dim}, window {model.window}, "
        f"keys and values in {model.dtype}, states in {model.state_dtype}; in brackets the share saved "
        "against full attention in every layer. RAttention needs one state per key/value head; the last "
        "column keeps one per query head."
    )
    return textwrap.fill(text, WIDTH)


def _cache_rows(caches: Iterable[CacheBytes]) -> Iterable[list[str]]:
    yield ["tokens", "full attention", *DESIGNS.values()]
    for cache in caches:
        held = (f"{getattr(cache, d):,} ({100 * cache.saved(d):5.1f} %)" for d in DESIGNS)
        yield [f"{cache.length:,}", f"{cache.full:,}", *held]


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as text, every column as wide as its widest cell."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"    {line}\n" for line in lines)


def _places(found: dict[str, list[pdf.Place]]) -> Iterable[str]:
    in_paper = summary.searchable()
    for expression, places in found.items():
        if not places:
            continue
        yield f"  {expression} [{in_paper[expression]} of the paper]: {len(places)} found"
        yield from (f"    page {place.page}: {place.context}" for place in places[:PLACES_SHOWN])
        if len(places) > PLACES_SHOWN:
            yield f"    and {len(places) - PLACES_SHOWN} more"
    missing = [expression for expression, places in found.items() if not places]
    if missing:
        yield textwrap.fill(
            f"Not in it: {', '.join(missing)}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
