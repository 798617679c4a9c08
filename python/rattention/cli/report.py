"""A demo's measurements as text for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattention.cli.terminal import Style, paragraph, table, wide
from rattention.studies.degradation import read_turns, summarise
from rattention.studies.degradation.contexts import FIRST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rattention.cli.subject import Subject
    from rattention.studies.degradation import ContextMetrics, Degradation, Thresholds


def text(measured: Degradation, subject: Subject, saved: Sequence[Path], style: Style) -> str:
    """Everything that was measured, section by section."""
    sections = [
        _opening(measured, subject, style),
        contexts_table(measured.contexts, measured.thresholds, style),
        _dilution(measured, style),
        _window(measured, style),
    ]
    if measured.recall:
        sections.append(_recall(measured, subject, style))
    sections.append(_summary(measured, style))
    if saved:
        names = ", ".join(path.name for path in saved)
        sections.append(paragraph(f"Saved in {saved[0].parent}: {names}"))
    return "\n\n".join(sections)


def remarks(measured: Degradation, subject: Subject) -> list[str]:
    """What a reader must know to read the numbers right."""
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
    shortest = subject.conversation.shortest
    left_out = [c.context_length for c in measured.contexts if c.context_length < shortest]
    if left_out:
        notes.append(
            f"fact and question take {shortest} tokens: no information-loss case at {_listed(left_out)}"
        )
    return notes


def contexts_table(contexts: Sequence[ContextMetrics], thresholds: Thresholds, style: Style) -> str:
    """One row per context, with marks."""
    header = (
        "asked\ntokens",
        "used\ntokens",
        "entropy\nnats",
        "local\nshare",
        "long-\nrange",
        "retention\n0 to 1",
        "change",
        "",
    )
    return table(header, (_context_row(c, thresholds, style) for c in contexts), style)


def _context_row(c: ContextMetrics, thresholds: Thresholds, style: Style) -> tuple[str, ...]:
    change = "" if c.retention_change is None else f"{c.retention_change:+.3f}"
    return (
        str(c.context_length),
        str(c.sequence_length),
        f"{c.entropy:.2f}",
        f"{c.local_concentration:.3f}",
        f"{c.long_range:.3f}",
        f"{c.retention:.3f}",
        change,
        f"{style.bar(c.retention) + '  ' if wide() else ''}{style.marks(thresholds.marks(c))}",
    )


def _opening(measured: Degradation, subject: Subject, style: Style) -> str:
    chosen = measured.selection
    parts = [
        f"{kind}{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"
        for kind, numbers, count in (
            ("layer", chosen.layers, subject.source.layers),
            ("head", chosen.heads, subject.source.heads),
        )
        if len(numbers) < count
    ]
    averages = f"averages over query rows and {' and '.join(parts) if parts else 'all layers and heads'}"
    title = style.title(f"Attention of {subject.name} as its context grows")
    near, far = measured.metrics.local_radius, measured.metrics.long_range_distance
    distances = f"local: attention within {near} tokens; long-range: beyond {far} tokens"
    return f"{title}\n{subject.description}\n{averages}\n{distances}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _dilution(measured: Degradation, style: Style) -> str:
    rows = (
        (
            str(c.context_length),
            f"{c.first_tokens_share:.1%}",
            f"{c.first_tokens_even_share:.1%}",
            f"{c.first_tokens_share / c.first_tokens_even_share:.2f} x",
            style.bar(c.first_tokens_share, 20),
        )
        for c in measured.contexts
    )
    title = style.title(f"Dilution: what the first {FIRST_TOKENS} tokens receive")
    header = ("context\ntokens", "share of\nattention", "even\nshare", "against\neven", "")
    return f"{title}\n{table(header, rows, style)}"


def _window(measured: Degradation, style: Style) -> str:
    cutoff = measured.cutoff
    layers = measured.selection.of_array(cutoff.mass).mean(axis=1)
    rows = [
        (f"layer {n}", *(f"{share:.1%}" for share in shares), "")
        for n, shares in zip(measured.selection.layers, layers, strict=True)
    ]
    mean = layers.mean(axis=0)
    rows.append(("mean", *(f"{share:.1%}" for share in mean), ""))
    title = style.title(f"What a sliding window would cut off at {cutoff.sequence_length} tokens")
    lead = "Share of attention farther away than w tokens on either side:"
    return f"{title}\n{lead}\n{table(('w =', *(str(w) for w in cutoff.windows), ''), rows, style)}"


def _recall(measured: Degradation, subject: Subject, style: Style) -> str:
    title = style.title("Information loss: does the question still find its fact?")
    tables = f"{_recall_by_length(measured, style)}\n\n{_recall_by_layer(measured, style)}"
    return f"{title}\n{_case(subject)}\n{tables}"


def _case(subject: Subject) -> str:
    if subject.data["synthetic"]:
        return paragraph(
            "The last 8 queries point at 10 keys at the beginning; random ones stand in between."
        )
    turns = read_turns()
    return paragraph(f'First turn: "{turns[0]}" Last turn: "{turns[-1]}" Other turns stand in between.')


def _recall_by_length(measured: Degradation, style: Style) -> str:
    rows = []
    for r in measured.recall:
        mass = measured.selection.of_array(r.mass)
        layer, head = divmod(int(mass.argmax()), mass.shape[1])
        best = f"layer {measured.selection.layers[layer]} head {measured.selection.heads[head]}"
        rows.append(
            (
                str(r.sequence_length),
                f"{r.mean_mass:.1%}",
                f"{r.even_mass:.1%}",
                f"{mass.max():.1%}",
                best,
                f"{r.rank} of {r.candidates}",
                style.bar(r.mean_mass / measured.recall[0].mean_mass),
            )
        )
    header = (
        "context\ntokens",
        "attention\nto fact",
        "even\nshare",
        "best\nhead",
        "which",
        "rank of\nthe fact",
        "mean, against\nthe shortest",
    )
    return table(header, rows, style)


def _recall_by_layer(measured: Degradation, style: Style) -> str:
    """Mean and best head of every layer in the shortest and the longest context."""
    ends = [measured.recall[0], measured.recall[-1]]
    masses = [measured.selection.of_array(r.mass) for r in ends]
    rows = []
    for row, layer in enumerate(measured.selection.layers):
        cells = [f"{value:.1%}" for m in masses for value in (m[row].mean(), m[row].max())]
        rows.append((f"layer {layer}", *cells, ""))
    heads = [f"{kind}\nat {r.sequence_length}" for r in ends for kind in ("mean", "best head")]
    return table(("", *heads, ""), rows, style)


def _summary(measured: Degradation, style: Style) -> str:
    bullet = "• " if style.symbols else "- "
    lines = [paragraph(line, "  ", first=bullet) for line in summarise(measured)]
    return "\n".join([style.title("What it means"), *lines])
