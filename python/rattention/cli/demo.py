"""``rattention demo``: how attention changes as its context grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._files import save_figures, writable_folder, write_csv, write_json
from rattention.cli import inputs
from rattention.cli.options import ChoosesHeads, Folder, Numbers, ReadsText, option, whole_numbers
from rattention.cli.text import GREEN, RED, YELLOW, Style, columns, note, paragraph, progress, table, table_of
from rattention.studies.degradation import (
    Conversation,
    SyntheticConversation,
    SyntheticSource,
    TextSource,
    Thresholds,
    measure,
    read_turns,
    summarise,
)
from rattention.studies.degradation.contexts import AVERAGED, FIRST_TOKENS
from rattention.studies.degradation.sources import check_length

if TYPE_CHECKING:
    from rattention.studies.degradation import ContextMetrics, Degradation, Recall

LENGTHS = whole_numbers("50,100,...,500")
"""The usual contexts; a model with fewer positions gets those that fit."""
COLUMNS = ("context_length", "sequence_length", *AVERAGED, "retention_change", "first_tokens_share")


@dataclass(frozen=True)
class Demo(ReadsText, ChoosesHeads):
    """Show how a pretrained model's attention changes as its context grows.

    Measures contexts of growing length from one text and prints, for each, averages over layers, heads and
    query rows: entropy (nats), the share of attention within 5 tokens and beyond 50 tokens, and the retention
    score in [0, 1]. Then: what a sliding window would cut off, how the first 50 tokens are diluted, whether a
    question still finds the fact it asks for, and a summary. Lengths are in tokens, special tokens included.
    Writes figures (PNG, SVG), CSV and JSON into --out.
    """

    EXAMPLES = (
        "# the pretrained model, 50 to 500 tokens",
        "--text essay.txt --lengths 64,128,256,512",
        "--model ./my-bert --layer 0,1 --out figs/mine",
        "--simple                  # NumPy alone, synthetic numbers",
        "--interactive             # type turn after turn",
        "--json > demo.json        # numbers for a program",
    )

    lengths: Numbers = option(
        None, "Measure contexts of these lengths, of 3 tokens or more. Default: 50,100,...,500."
    )
    out: Folder = option(Path("figs/degradation"), "Write figures, CSV and JSON into this folder.")
    thresholds: Thresholds = option(Thresholds(), "Where the marks begin.")
    simple: bool = option(False, "Measure synthetic queries and keys instead of a model; needs NumPy alone.")
    interactive: bool = option(False, "Type a conversation and see the metrics after each turn.")

    def run(self) -> int:
        """Measure, print and save."""
        self.use_threads(pytorch=False)
        if self.simple and (self.model or self.text):
            raise ValueError("--simple measures synthetic numbers and reads no --model and no --text")
        if self.interactive:
            from rattention.cli.interactive import converse

            if self.simple:
                raise ValueError("--interactive needs a model to read what is typed; leave out --simple")
            return converse(self, inputs.bert(self.model))
        measured, data, seconds = self._measured()
        notes = _remarks(measured, data["shortest_with_fact"])
        everything = {
            "model": data,
            **measured.as_data(),
            "summary": summarise(measured),
            "notes": notes,
            **self.circumstances(),
            "seconds": round(seconds, 3),
        }
        saved = _save(self.out, measured, data["name"], everything)
        self.show(everything, lambda style: _text(measured, data, saved, style))
        for remark in notes:
            note(remark)
        return 0

    def _measured(self) -> tuple[Degradation, dict[str, Any], float]:
        """What was measured, of which model, and in how many seconds."""
        source: Any
        conversation: Any
        if self.simple:
            source, conversation = SyntheticSource(self.seed), SyntheticConversation(self.seed)
            longest, data = None, {"name": "synthetic queries and keys", "synthetic": True}
            about = f"random numbers, seed {self.seed}: no model, no text"
        else:
            words, origin = inputs.text_and_origin(self.text)
            model = inputs.bert(self.model)
            source, conversation = TextSource(model, words), Conversation(model)
            longest = model.config.max_positions
            data = {"name": model.name, "synthetic": False, "max_positions": longest, "text": origin}
            about = f"{longest} positions; text: {origin}"
        lengths = _lengths(self.lengths, longest)
        writable_folder(self.out)
        began = time.perf_counter()
        chosen: dict[str, Any] = {"layers": self.layer, "heads": self.head, "thresholds": self.thresholds}
        measured = measure(source, conversation, lengths, **chosen, progress=progress)
        sizes = {"layers": source.layers, "heads": source.heads, "shortest_with_fact": conversation.shortest}
        description = f"{source.layers} layers of {source.heads} heads; {about}"
        return measured, {**data, **sizes, "description": description}, time.perf_counter() - began


def _lengths(asked: tuple[int, ...] | None, longest: int | None) -> tuple[int, ...]:
    """The lengths asked for; of the usual ones those that the model has positions for."""
    if asked is not None or longest is None or longest >= max(LENGTHS):
        for length in asked or LENGTHS:
            check_length(length, longest)
        return asked or LENGTHS
    note(f"the model has {longest} positions: longer contexts are left out")
    return (*(n for n in LENGTHS if n < longest), longest)


def _save(folder: Path, measured: Degradation, name: str, data: dict[str, Any]) -> list[Path]:
    """Write everything into `folder`, and return what was written."""
    written = [folder / file for file in ("contexts.csv", "heads.csv", "degradation.json")]
    write_csv(written[0], COLUMNS, map(attrgetter(*COLUMNS), measured.contexts))
    write_csv(written[1], ("context_length", "layer", "head", *AVERAGED), _head_rows(measured))
    write_json(written[2], data)
    try:
        return written + _save_figures(folder, measured, name)
    except ImportError as error:
        note(f"no figures: {error}")
        return written


def _head_rows(measured: Degradation) -> list[list[float]]:
    return [
        [context.context_length, layer, head, *(float(context.per_head[n][layer, head]) for n in AVERAGED)]
        for context in measured.contexts
        for layer, head in np.ndindex(context.per_head[AVERAGED[0]].shape)
    ]


def _save_figures(folder: Path, measured: Degradation, name: str) -> list[Path]:
    from rattention.studies.degradation import figures as draw

    longest = measured.contexts[-1].sequence_length
    figures = {
        "metrics": draw.metrics_figure(measured, title=f"Attention of {name} as its context grows"),
        "heads": draw.heads_figure(measured, title=f"Every head of {name} at {longest} tokens"),
        "reach": draw.reach_figure(measured, title=f"Dilution, and what a window would cut off: {name}"),
    }
    if measured.recall:
        figures["recall"] = draw.recall_figure(measured, title=f"Does the question find its fact? {name}")
    return save_figures(folder, figures)


MARKS = {
    "good_spread": ("✓", "[+]", "good spread", GREEN),
    "strong_local_bias": ("●", "[!]", "strong local bias", YELLOW),
    "poor_long_range": ("○", "[-]", "poor long-range", YELLOW),
    "degradation": ("▼", "[v]", "degradation", RED),
}
"""Per mark: symbol, plain fallback, words, colour."""
BARS = 80
"""Columns of a terminal that has room for bars."""


def _text(measured: Degradation, model: Mapping[str, Any], saved: Sequence[Path], style: Style) -> str:
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


def _remarks(measured: Degradation, shortest: int) -> list[str]:
    """What a reader must know to read the numbers right; fact and question alone take `shortest` tokens."""
    distance = measured.metrics.long_range_distance

    def lengths(there: Callable[[ContextMetrics], bool]) -> str:
        return ", ".join(str(c.context_length) for c in measured.contexts if there(c))

    short = lengths(lambda c: c.sequence_length < c.context_length)
    near = lengths(lambda c: c.sequence_length <= distance + 1)
    left_out = lengths(lambda c: c.context_length < shortest)
    there = max(c.sequence_length for c in measured.contexts)
    notes = {
        f"the text has only {there} tokens; asked for {short}, all of it was used": short,
        f"at {near} tokens none is more than {distance} away: long-range attention is 0 by definition": near,
        f"fact and question take {shortest} tokens: no information-loss case at {left_out}": left_out,
    }
    return [note for note, lengths_of_it in notes.items() if lengths_of_it]


def contexts_table(
    contexts: Sequence[ContextMetrics], thresholds: Thresholds, distance: int, style: Style
) -> str:
    """A row for each context, with marks, and what the marks mean. Contexts in which nothing is more than
    `distance` tokens away are not called poor at that."""

    def marks(c: ContextMetrics) -> list[str]:
        far = c.sequence_length > distance + 1
        return [name for name in thresholds.marks(c) if far or name != "poor_long_range"]

    shown = table_of(
        {
            "asked\ntokens": lambda c: str(c.context_length),
            "used\ntokens": lambda c: str(c.sequence_length),
            "entropy\nnats": lambda c: f"{c.entropy:.2f}",
            "local\nshare": lambda c: f"{c.local_concentration:.3f}",
            "long-\nrange": lambda c: f"{c.long_range:.3f}",
            "retention\n0 to 1": lambda c: f"{c.retention:.3f}",
            "change": lambda c: "" if c.retention_change is None else f"{c.retention_change:+.3f}",
            **_bars("", lambda c: style.bar(c.retention)),
            "marks": lambda c: " ".join(_mark(name, style) for name in marks(c)),
        },
        contexts,
        style,
    )
    there = {name for c in contexts for name in marks(c)}
    legend = "; ".join(f"{_mark(name, style)} {MARKS[name][2]}" for name in MARKS if name in there)
    return f"{shown}\n  {legend}" if legend else shown


def _mark(name: str, style: Style) -> str:
    symbol, plain, _, colour = MARKS[name]
    return style.paint(symbol if style.symbols else plain, colour)


def _bars(header: str, bar: Callable[[Any], str]) -> dict[str, Callable[[Any], str]]:
    """A column of bars, where there is room."""
    return {header: bar} if columns() >= BARS else {}


def _opening(measured: Degradation, model: Mapping[str, Any]) -> list[str]:
    chosen = measured.selection
    parts = [
        f"{kind}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for kind, numbers in {"layer": chosen.layers, "head": chosen.heads}.items()
        if len(numbers) < model[f"{kind}s"]
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


def _dilution(measured: Degradation, style: Style) -> str:
    return table_of(
        {
            "context\ntokens": lambda c: str(c.context_length),
            "share of\nattention": lambda c: f"{c.first_tokens_share:.1%}",
            "even\nshare": lambda c: f"{c.first_tokens_even_share:.1%}",
            "against\neven": lambda c: f"{c.first_tokens_share / c.first_tokens_even_share:.2f} x",
            **_bars("", lambda c: style.bar(c.first_tokens_share, 20)),
        },
        measured.contexts,
        style,
    )


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
        paragraph("Share of attention farther away than w tokens on either side:"),
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
    chosen = measured.selection

    def best(r: Recall) -> str:
        mass = chosen.of_array(r.mass)
        layer, head = divmod(int(mass.argmax()), mass.shape[1])
        return f"layer {chosen.layers[layer]} head {chosen.heads[head]}"

    return table_of(
        {
            "context\ntokens": lambda r: str(r.sequence_length),
            "attention\nto fact": lambda r: f"{r.mean_mass:.1%}",
            "even\nshare": lambda r: f"{r.even_mass:.1%}",
            "best\nhead": lambda r: f"{chosen.of_array(r.mass).max():.1%}",
            "which": best,
            "rank of\nthe fact": lambda r: f"{r.rank} of {r.candidates}",
            **_bars("against the\nshortest", lambda r: style.bar(r.mean_mass / measured.recall[0].mean_mass)),
        },
        measured.recall,
        style,
    )


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
