"""What ``rattention demo`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rattention.cli.text import GREEN, RED, YELLOW, Style, columns, paragraph, table
from rattention.studies.degradation import read_turns, summarise
from rattention.studies.degradation.contexts import FIRST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from rattention.studies.degradation import ContextMetrics, Degradation, Thresholds

MARKS = {
    "good_spread": ("✓", "[+]", "good spread", GREEN),
    "strong_local_bias": ("●", "[!]", "strong local bias", YELLOW),
    "poor_long_range": ("○", "[-]", "poor long-range", YELLOW),
    "degradation": ("▼", "[v]", "degradation", RED),
}
"""Per mark: symbol, plain fallback, words, colour."""
BARS = 80
"""Columns of a terminal that has room for bars."""


def text(measured: Degradation, model: Mapping[str, Any], saved: Sequence[Path], style: Style) -> str:
    """Everything that was measured, section by section."""
    sections = [
        style.section(f"Attention of {model['name']} as its context grows", *_opening(measured, model)),
        contexts_table(measured.contexts, measured.thresholds, measured.metrics.long_range_distance, style),
        style.section(f"Dilution: what the first {FIRST_TOKENS} tokens receive", _dilution(measured, style)),
        _window(measured, style),
    ]
    if measured.recall:
        sections.append(_recall(measured, model, style))
    sections.append(style.section("What it means", style.bullets(summarise(measured))))
    names = ", ".join(path.name for path in saved)
    return "\n\n".join([*sections, paragraph(f"Saved in {saved[0].parent}: {names}")])


def remarks(measured: Degradation, shortest: int) -> list[str]:
    """What a reader must know to read the numbers right; fact and question alone take `shortest` tokens."""
    notes = []
    short = [c for c in measured.contexts if c.sequence_length < c.context_length]
    if short:
        asked = _listed(c.context_length for c in short)
        notes.append(
            f"the text has only {short[0].sequence_length} tokens; asked for {asked}, all of it was used"
        )
    distance = measured.metrics.long_range_distance
    near = [c.context_length for c in measured.contexts if c.sequence_length <= distance + 1]
    if near:
        notes.append(
            f"at {_listed(near)} tokens none is more than {distance} away: "
            "long-range attention is 0 by definition"
        )
    left_out = [c.context_length for c in measured.contexts if c.context_length < shortest]
    if left_out:
        notes.append(
            f"fact and question take {shortest} tokens: no information-loss case at {_listed(left_out)}"
        )
    return notes


def contexts_table(
    contexts: Sequence[ContextMetrics], thresholds: Thresholds, distance: int, style: Style
) -> str:
    """A row for each context, with marks, and what the marks mean. Contexts in which nothing is more than
    `distance` tokens away are not called poor at that."""
    marks = [
        [m for m in thresholds.marks(c) if m != "poor_long_range" or c.sequence_length > distance + 1]
        for c in contexts
    ]
    header = (
        *("asked\ntokens", "used\ntokens", "entropy\nnats", "local\nshare", "long-\nrange"),
        *("retention\n0 to 1", "change", "" if columns() >= BARS else None, "marks"),
    )
    rows = [_context_row(c, names, style) for c, names in zip(contexts, marks, strict=True)]
    there = [name for name in MARKS if any(name in names for names in marks)]
    legend = "; ".join(f"{_mark(name, style)} {MARKS[name][2]}" for name in there)
    shown = table([h for h in header if h is not None], rows, style)
    return f"{shown}\n  {legend}" if legend else shown


def _context_row(c: ContextMetrics, marks: Sequence[str], style: Style) -> list[str]:
    return [
        str(c.context_length),
        str(c.sequence_length),
        f"{c.entropy:.2f}",
        f"{c.local_concentration:.3f}",
        f"{c.long_range:.3f}",
        f"{c.retention:.3f}",
        "" if c.retention_change is None else f"{c.retention_change:+.3f}",
        *_bar(c.retention, 10, style),
        " ".join(_mark(name, style) for name in marks),
    ]


def _mark(name: str, style: Style) -> str:
    symbol, plain, _, colour = MARKS[name]
    return style.paint(symbol if style.symbols else plain, colour)


def _bar(share: float, width: int, style: Style) -> list[str]:
    """A cell with a bar, where there is room."""
    return [style.bar(share, width)] if columns() >= BARS else []


def _opening(measured: Degradation, model: Mapping[str, Any]) -> list[str]:
    chosen = measured.selection
    parts = [
        f"{kind}{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"
        for kind, numbers, count in (
            ("layer", chosen.layers, model["layers"]),
            ("head", chosen.heads, model["heads"]),
        )
        if len(numbers) < count
    ]
    averaged = " and ".join(parts) if parts else "all layers and heads"
    near, far = measured.metrics.local_radius, measured.metrics.long_range_distance
    return [
        paragraph(model["description"][0].upper() + model["description"][1:] + "."),
        paragraph(
            f"Averages over query rows and {averaged}. Local: attention within {near} tokens; long-range: "
            f"beyond {far} tokens."
        ),
    ]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _dilution(measured: Degradation, style: Style) -> str:
    rows = (
        (
            str(c.context_length),
            f"{c.first_tokens_share:.1%}",
            f"{c.first_tokens_even_share:.1%}",
            f"{c.first_tokens_share / c.first_tokens_even_share:.2f} x",
            *_bar(c.first_tokens_share, 20, style),
        )
        for c in measured.contexts
    )
    header = ("context\ntokens", "share of\nattention", "even\nshare", "against\neven")
    return table((*header, *_bar(0, 0, style)), rows, style)


def _window(measured: Degradation, style: Style) -> str:
    cutoff = measured.cutoff
    layers = measured.selection.of_array(cutoff.mass).mean(axis=1)
    rows = [
        (f"layer {n}", *(f"{share:.1%}" for share in shares))
        for n, shares in zip(measured.selection.layers, layers, strict=True)
    ]
    rows.append(("mean", *(f"{share:.1%}" for share in layers.mean(axis=0))))
    return style.section(
        f"What a sliding window would cut off at {cutoff.sequence_length} tokens",
        "Share of attention farther away than w tokens on either side:",
        table(("w =", *map(str, cutoff.windows)), rows, style),
    )


def _recall(measured: Degradation, model: Mapping[str, Any], style: Style) -> str:
    turns = read_turns()
    case = f'First turn: "{turns[0]}" Last turn: "{turns[-1]}" Other turns stand in between.'
    if model["synthetic"]:
        case = "The last 8 queries point at 10 keys at the beginning; random ones stand in between."
    return style.section(
        "Information loss: does the question still find its fact?",
        paragraph(case),
        f"{_recall_by_length(measured, style)}\n",
        _recall_by_layer(measured, style),
    )


def _recall_by_length(measured: Degradation, style: Style) -> str:
    rows = []
    for r in measured.recall:
        mass = measured.selection.of_array(r.mass)
        layer, head = divmod(int(mass.argmax()), mass.shape[1])
        rows.append(
            (
                str(r.sequence_length),
                f"{r.mean_mass:.1%}",
                f"{r.even_mass:.1%}",
                f"{mass.max():.1%}",
                f"layer {measured.selection.layers[layer]} head {measured.selection.heads[head]}",
                f"{r.rank} of {r.candidates}",
                *_bar(r.mean_mass / measured.recall[0].mean_mass, 10, style),
            )
        )
    header = (
        "context\ntokens",
        "attention\nto fact",
        "even\nshare",
        "best\nhead",
        "which",
        "rank of\nthe fact",
    )
    bars = ["against the\nshortest"] if columns() >= BARS else []
    return table((*header, *bars), rows, style)


def _recall_by_layer(measured: Degradation, style: Style) -> str:
    """Mean and best head of every layer in the shortest and the longest context."""
    ends = [measured.recall[0], measured.recall[-1]]
    masses = [measured.selection.of_array(r.mass) for r in ends]
    rows = [
        (f"layer {layer}", *(f"{value:.1%}" for m in masses for value in (m[row].mean(), m[row].max())))
        for row, layer in enumerate(measured.selection.layers)
    ]
    heads = [f"{kind}\nat {r.sequence_length}" for r in ends for kind in ("mean", "best head")]
    return table(("", *heads), rows, style)
