"""``rattention paper``: what the paper says, what its caches weigh, and where a PDF says the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, paragraph, table
from rattention.studies.paper import pdf, summary
from rattention.studies.paper.savings import PRESETS, CacheBytes, CacheModel, cache_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """Context lengths, separated by commas; 1024,2048,...,8192 goes on in equal steps."""
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
    caches = [cache_bytes(model, length) for length in whole_numbers("lengths", options.lengths)]
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
    style = Style.of()
    yield f"{summary.TITLE}\n{summary.AUTHORS}; {summary.SOURCE}\n"
    yield style.title("What it says, and where")
    for point in summary.POINTS:
        yield paragraph(f"{point.topic} [{point.place}]: {point.statement}", indent="    ", first="  ")
    yield "\n" + style.title("Main numbers (SWA: sliding window, RAttn: RAttention, followed by the window)")
    for results in summary.RESULTS:
        rows = [[name, *values] for name, values in results.rows]
        yield f"{results.title} [{results.place}]\n{_numbers(['', *results.columns], rows, style)}\n"
    yield style.title("Bytes held for one sequence")
    yield paragraph(_about_caches(model))
    yield _numbers(["tokens", "full attention", *DESIGNS.values()], _cache_rows(caches), style)
    if found is not None:
        yield "\n" + style.title(f"Where {path} says it")
        yield from _places(found)


def _numbers(header: Sequence[str], rows: Iterable[Sequence[str]], style: Style) -> str:
    """A table of nothing but numbers: the last column of `table`, which holds remarks, stays empty."""
    return table([*header, ""], [[*row, ""] for row in rows], style)


def _about_caches(model: CacheModel) -> str:
    return (
        f"{model.layers} layers ({model.global_layers} global), {model.heads} query heads over "
        f"{model.kv_heads} key/value heads of {model.head_dim}, window {model.window}, keys and values in "
        f"{model.dtype}, states in {model.state_dtype}; in brackets the share saved against full attention "
        "in every layer. RAttention needs one state per key/value head; the last column keeps one per query "
        "head."
    )


def _cache_rows(caches: Iterable[CacheBytes]) -> Iterable[list[str]]:
    for cache in caches:
        held = (f"{getattr(cache, d):,} ({100 * cache.saved(d):5.1f} %)" for d in DESIGNS)
        yield [f"{cache.length:,}", f"{cache.full:,}", *held]


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
        yield paragraph(f"Not in it: {'; '.join(missing)}", indent="    ", first="  ")
