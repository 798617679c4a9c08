"""``rattention paper``: what the paper says, how much memory its caches take, and what a PDF says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rattention.cli.options import Numbers, Printed, option
from rattention.cli.text import Style, paragraph, table
from rattention.studies.paper import page
from rattention.studies.paper.pdf import Place, find, read_pages
from rattention.studies.paper.savings import PRESETS, CacheBytes, CacheModel, cache_bytes

PLACES_SHOWN = 2
LOOKS_LIKE_IT = 0.5
"""Share of the terms and numbers that a copy of the paper has at least."""
DESIGNS = {
    "sliding_window": "sliding window",
    "rattention": "RAttention",
    "rattention_state_per_query_head": "state per query head",
}
Found = Mapping[str, list[Place]]
"""Places in a PDF, by expression."""
DTYPES = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Paper(Printed):
    """Say what the RAttention paper says, and compute the memory its caches save.

    The documentation's page about the paper: objectives, method, results with their place in the paper,
    limits, outlook. Then the memory of keys, values and states that a model holds for one sequence at each
    context length.
    """

    EXAMPLES = ("# the page, and cache sizes", "--model 3b --json", "--pdf mine.pdf")

    model: Literal["3b", "12b"] = option("12b", "Begin with this model and replace parts of it.")
    layers: int | None = option(None, "Count caches for N layers.")
    heads: int | None = option(None, "Use N query heads.")
    kv_heads: int | None = option(None, "Use N key/value heads.")
    head_dim: int | None = option(None, "Use heads of width N.")
    window: int | None = option(None, "Let local layers see the current token and N tokens before it.")
    global_every: int | None = option(None, "Make every Nth layer global; 0 makes all layers local.")
    dtype: DTYPES | None = option(None, "Store keys and values in this type.")
    state_dtype: DTYPES | None = option(None, "Store linear-attention states in this type.")
    lengths: Numbers = option(
        (1024, 2048, 4096, 8192, 32768, 131072), "Compute caches for these context lengths."
    )
    pdf: Path | None = option(None, "Search this PDF for the terms and numbers of the page.")

    def run(self) -> int:
        """Print the page, the caches and what the PDF holds."""
        preset = PRESETS[self.model]
        model = replace(preset, **self.given(*asdict(preset)))
        caches = [cache_bytes(model, length) for length in self.lengths or ()]
        found = None if self.pdf is None else find(read_pages(self.pdf), page.searchable())
        self.show(self._data(model, caches, found), lambda style: self._text(model, caches, found, style))
        return 0

    def _data(self, model: CacheModel, caches: list[CacheBytes], found: Found | None) -> dict[str, Any]:
        result: dict[str, Any] = {
            "title": page.TITLE,
            "source": page.SOURCE,
            "sections": [asdict(section) for section in page.sections()],
            "model": asdict(model) | {"global_layers": model.global_layers},
            "caches": [asdict(c) | {"saved": {d: c.saved(d) for d in DESIGNS}} for c in caches],
        }
        if found is not None:
            places = {expression: [asdict(place) for place in at] for expression, at in found.items()}
            alike = _looks_like_the_paper(found)
            result["pdf"] = {"path": str(self.pdf), "looks_like_the_paper": alike, "found": places}
        return result

    def _text(self, model: CacheModel, caches: list[CacheBytes], found: Found | None, style: Style) -> str:
        rows = [
            [f"{c.length:,}", f"{c.full / 2**20:,.1f}"]
            + [f"{getattr(c, d) / 2**20:,.1f} ({c.saved(d):.1%})" for d in DESIGNS]
            for c in caches
        ]
        first, *others = page.sections()
        sections = [
            style.section(first.title, *_parts(first, style)),
            paragraph(_answer(model, caches)),
            *(style.section(section.title, *_parts(section, style)) for section in others),
            style.section(
                "Memory for one sequence, in MiB",
                paragraph(_about(model)),
                table(("tokens", "full\nattention", *DESIGNS.values()), rows, style),
            ),
        ]
        if found is not None:
            sections.append(style.section(f"What {self.pdf} says", *_places(found)))
        return "\n\n".join(sections)


def _parts(section: page.Section, style: Style) -> Iterable[str]:
    """Paragraphs, points and tables, with an empty line before each table."""
    yield from map(paragraph, section.paragraphs)
    yield style.bullets(section.points)
    for part in section.tables:
        header = ("", *(name.replace(" ", "\n") for name in part.columns))
        rows = [(name, *cells) for name, cells in part.rows]
        yield f"\n{paragraph(f'{part.title} [{part.place}]')}\n{table(header, rows, style)}"


def _answer(model: CacheModel, caches: list[CacheBytes]) -> str:
    longest = max(caches, key=lambda cache: cache.length)
    return (
        "In one sentence: a window of 512 tokens together with residual linear attention matches full "
        f"attention, and with a window of {model.window} the caches of this model take "
        f"{1 - longest.saved('rattention'):.0%} of the memory at {longest.length:,} tokens."
    )


def _about(model: CacheModel) -> str:
    return (
        f"{model.layers} layers ({model.global_layers} global), {model.heads} query heads over "
        f"{model.kv_heads} key/value heads of {model.head_dim}, window {model.window}, keys and values in "
        f"{model.dtype}, states in {model.state_dtype}; in brackets the share saved against full attention "
        "in every layer. RAttention needs one state per key/value head; the last column keeps one per query "
        "head."
    )


def _looks_like_the_paper(found: Found) -> bool:
    return sum(map(bool, found.values())) >= LOOKS_LIKE_IT * len(found)


def _places(found: Found) -> Iterable[str]:
    there = {expression: places for expression, places in found.items() if places}
    count = f"{len(there)} of the page's {len(found)} terms and numbers"
    if not _looks_like_the_paper(found):
        yield paragraph(f"This does not look like the paper: only {count} stand in it.")
    else:
        missing = "; ".join(expression for expression in found if expression not in there)
        yield paragraph(f"It has {count}." + (f" Not in it: {missing}." if missing else ""))
    of_paper = page.searchable()
    for expression, places in there.items():
        yield paragraph(
            f"{expression} [{of_paper[expression]} of the paper]: {len(places)} found", "    ", first="  "
        )
        for place in places[:PLACES_SHOWN]:
            yield paragraph(f"page {place.page}: {place.context}", "      ", first="    ")
