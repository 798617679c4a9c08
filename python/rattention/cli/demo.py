"""``rattention demo``: how attention changes as its context grows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._files import save_figure, writable_folder, write_csv, write_json
from rattention.cli import demo_text, inputs
from rattention.cli.options import ChoosesHeads, Folder, Numbers, ReadsText, option, whole_numbers
from rattention.cli.text import note, progress
from rattention.studies.degradation import (
    Conversation,
    SyntheticConversation,
    SyntheticSource,
    TextSource,
    Thresholds,
    measure,
    summarise,
)
from rattention.studies.degradation.contexts import AVERAGED
from rattention.studies.degradation.sources import check_length

if TYPE_CHECKING:
    from rattention.studies.degradation import Degradation

LENGTHS = whole_numbers("50,100,...,500")
"""The usual contexts; a model with fewer positions gets those that fit."""
COLUMNS = ("context_length", "sequence_length", *AVERAGED, "retention_change", "first_tokens_share")
FORMATS = (".png", ".svg")


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
        notes = demo_text.remarks(measured, data["shortest_with_fact"])
        everything = {
            "model": data,
            **measured.as_data(),
            "summary": summarise(measured),
            "notes": notes,
            **self.circumstances(),
            "seconds": round(seconds, 3),
        }
        saved, unsaved = _save(self.out, measured, data["name"], everything)
        self.show(everything, lambda style: demo_text.text(measured, data, saved, style))
        for remark in (*notes, *unsaved):
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
            source, conversation, longest = (
                TextSource(model, words),
                Conversation(model),
                model.config.max_positions,
            )
            data = {"name": model.name, "synthetic": False, "max_positions": longest, "text": origin}
            about = f"{longest} positions; text: {origin}"
        lengths = _lengths(self.lengths, longest)
        writable_folder(self.out)
        began = time.perf_counter()
        measured = measure(
            source,
            conversation,
            lengths,
            layers=self.layer,
            heads=self.head,
            thresholds=self.thresholds,
            progress=progress,
        )
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


def _save(
    folder: Path, measured: Degradation, name: str, data: dict[str, Any]
) -> tuple[list[Path], list[str]]:
    """Write everything into `folder`; return what was written, and remarks on what was not."""
    rows = [[getattr(c, column) for column in COLUMNS] for c in measured.contexts]
    write_csv(folder / "contexts.csv", COLUMNS, rows)
    write_csv(folder / "heads.csv", ("context_length", "layer", "head", *AVERAGED), _head_rows(measured))
    write_json(folder / "degradation.json", data)
    written = [folder / file for file in ("contexts.csv", "heads.csv", "degradation.json")]
    try:
        return written + _save_figures(folder, measured, name), []
    except ImportError as error:
        return written, [f"no figures: {error}"]


def _head_rows(measured: Degradation) -> list[list[float]]:
    return [
        [context.context_length, layer, head, *(float(context.per_head[n][layer, head]) for n in AVERAGED)]
        for context in measured.contexts
        for layer, heads in enumerate(context.per_head[AVERAGED[0]])
        for head in range(len(heads))
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
    for file, figure in figures.items():
        for suffix in FORMATS:
            save_figure(folder / f"{file}{suffix}", figure)
    return [folder / f"{file}{FORMATS[0]}" for file in figures]
