"""``rattention lra``: mechanisms compared on tasks with long sequences."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from rattention.cli import lra_report
from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, note
from rattention.cli.threads import use_threads

if TYPE_CHECKING:
    from rattention.studies.lra import Study

RUN_EXAMPLES = (
    "# the smoke preset, about 2 minutes on 2 cores",
    "--preset small --out runs/small    # about an hour; the same again goes on where it stopped",
    "--preset small --tasks listops --mechanisms softmax,rattention --seeds 0,1",
    "--config study.yaml --epochs 40 --out runs/mine    # study.yaml as in any results folder",
    "--preset paper --imdb ~/aclImdb --threads 32",
)
DATA_EXAMPLES = (
    "# lengths and labels of the smoke preset's tasks",
    "--preset paper --tasks listops --json",
    "--tasks text --imdb ~/aclImdb --length 512 --level words",
)


@dataclass(frozen=True)
class Lra:
    """Attention mechanisms compared on tasks with long sequences.

    The tasks are those of the Long Range Arena: nested list operations (listops), whether a film review is
    positive, read byte by byte (text), and images read pixel by pixel (images). The same encoder is trained
    with softmax attention, with gravitational and multi-timescale attention and both together, and with
    RAttention (run); tables and figures of finished studies are made again at any time (analyze).
    """


@dataclass(frozen=True)
class _Chosen:
    """Which study."""

    preset: Literal["smoke", "small", "paper"] | None = None
    """smoke: 2 minutes on 2 cores; small: about an hour; paper: the sizes of the benchmark, for a large
    machine. Without it the study in --out goes on or, where there is none, smoke is run."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A study in YAML instead of a preset; what it does not say has its default."""
    tasks: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Some of listops, text, images; by default listops and text."""
    length: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Tokens of the longest sequences: text is cut there, lengths in ListOps are scaled to it, images have at
    most as many pixels."""
    samples: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Training samples of each task."""
    imdb: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Reviews: a folder aclImdb, one with train.parquet and test.parquet, or one to which the dataset was
    downloaded from the Hugging Face Hub. By default they are fetched from there."""
    images: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Images: a folder with train/CLASS/*.png and test/CLASS/*.png. By default shapes are generated."""
    level: Literal["bytes", "words"] | None = None
    """What a token of a review is; words are the most frequent ones of the training reviews."""


@dataclass(frozen=True)
class Run(_Chosen):
    """Train every mechanism on every task with every seed, and write what comes of it.

    Into --out go the configuration, and for each run the trained model, its accuracy, and its numbers per
    epoch: losses, accuracies, time, memory, and what every head attends to; then tables, figures, findings.
    Nothing is lost when it is stopped, with Ctrl-C or otherwise: the same command with the same --out goes on
    after the last finished epoch, with the same numbers as without a break. More tasks, mechanisms and seeds
    may be added later. Under torchrun the processes share every batch.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where results go; results_<date>_<time> by default."""
    mechanisms: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Some of softmax, gravitational, multi_timescale, gravitational_multi_timescale, rattention."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="N,...")] = None
    """Of first weights, dropout and batches; each is a run of its own."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """At most."""
    patience: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Epochs without a better validation accuracy after which a run stops."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Sequences in a step."""
    learning_rate: Annotated[float | None, tyro.conf.arg(metavar="RATE")] = None
    """Of AdamW."""
    match_parameters: bool = False
    """Give every mechanism as many parameters as softmax attention has, within 10 %."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads to compute with; 0 = one per processor, or OMP_NUM_THREADS."""
    json: bool = False
    """Print JSON on stdout instead of text."""


@dataclass(frozen=True)
class Data(_Chosen):
    """Show what the tasks consist of: samples, lengths, vocabulary, and how often each label occurs.

    The most frequent label is what a model has to beat. Data are made or read now and kept in the cache
    (RATTENTION_CACHE, by default ~/.cache/rattention), so that a later run finds them.
    """

    json: bool = False
    """Print JSON on stdout instead of text."""


def run(options: Run) -> int:
    """Run what is missing, print the outcome; ValueError and OSError say what is wrong with the options."""
    from rattention.studies.kit import distributed
    from rattention.studies.lra import new_name, run_study

    use_threads(options.threads)
    distributed.init()
    folder = options.out or Path(new_name())
    study = _overridden(_chosen(options, folder), options)
    folder, study = distributed.broadcast((folder, study))  # names of new folders tell the time
    try:
        results = run_study(study, folder, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        note(f"stopped; to go on: rattention lra run --out {folder}")
        raise
    if distributed.rank() != 0:
        return 0
    if options.json:
        print(json.dumps({"folder": str(folder), "results": results}, allow_nan=False))
    else:
        print(lra_report.of_results(results, folder, Style.of()))
    return 0


def data(options: Data) -> int:
    """Load and describe; ValueError and OSError say what is wrong with the options."""
    study = _chosen(options, None)
    described = [lra_report.describe(study.data[task].load()) for task in study.tasks]
    if options.json:
        print(json.dumps(described, allow_nan=False))
    else:
        print("\n\n".join(lra_report.of_data(each, Style.of()) for each in described))
    return 0


def _chosen(options: _Chosen, folder: Path | None) -> Study:
    """The study that is named, with the tasks and data asked for."""
    from rattention.studies.lra import PRESETS, Study
    from rattention.studies.lra.folder import STUDY

    if options.preset is not None and options.config is not None:
        raise ValueError("--preset and --config both name a study: leave one out")
    if options.config is not None:
        study = Study.load(options.config)
    elif options.preset is None and folder is not None and (folder / STUDY).exists():
        study = Study.load(folder / STUDY)
    else:
        study = PRESETS[options.preset or "smoke"]
    if options.tasks is not None:
        study = replace(study, tasks=_names(options.tasks))
    scaled = {name: own.scaled(options.length, options.samples) for name, own in study.data.items()}
    text = {"source": options.imdb, "level": options.level}
    images = {"source": options.images}
    for task, asked in (("text", text), ("images", images)):
        given = {name: value for name, value in asked.items() if value is not None}
        scaled[task] = replace(scaled[task], **given)
    return study.with_data(**scaled)


def _overridden(study: Study, options: Run) -> Study:
    """With the runs and the training asked for."""
    given = asdict(options)
    names = ("epochs", "patience", "batch", "learning_rate")
    changes = {name: given[name] for name in names if given[name] is not None}
    if options.mechanisms is not None:
        study = replace(study, mechanisms=_names(options.mechanisms))
    if options.seeds is not None:
        study = replace(study, seeds=whole_numbers("seeds", options.seeds))
    if options.match_parameters:
        study = replace(study, model=replace(study.model, match_parameters=True))
    return study.with_training(**changes)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))
