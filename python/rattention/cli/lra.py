"""``rattention lra``: mechanisms compared on tasks with long sequences."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rattention._extras import require
from rattention.cli.options import Computed, Folder, Group, Names, Numbers, Printed, option
from rattention.cli.studies import chosen_study
from rattention.cli.text import Style, note, number, paragraph, table_of

if TYPE_CHECKING:
    from rattention.studies.kit.intervals import Interval
    from rattention.studies.lra import Study
    from rattention.studies.lra.analysis import Analysis
    from rattention.studies.lra.data import TaskData
    from rattention.studies.lra.summary import Cell


SEVERAL = Path("lra_analysis")
"""Where the analysis of several folders goes."""


@dataclass(frozen=True)
class Chosen(Computed):
    """Which study."""

    preset: Literal["smoke", "small", "paper"] | None = option(
        None,
        "Run this study: smoke takes a few minutes on 2 cores, small up to two hours, paper needs a large "
        "machine. By default the study in --out goes on or, where there is none, smoke is run.",
    )
    config: Path | None = option(None, "Read the study from this YAML file; what is missing has its default.")
    tasks: Names = option(None, "Run these tasks: listops, text, images. Default: listops,text.")
    length: int | None = option(None, "Limit sequences to N tokens: cut text, scale ListOps and images.")
    samples: int | None = option(None, "Train on N samples of each task.")
    imdb: str | None = option(
        None,
        "Read reviews from this folder (aclImdb, or with train.parquet and test.parquet) instead of fetching "
        "them from the Hugging Face Hub.",
    )
    images: str | None = option(
        None,
        "Read images from train/CLASS/*.png and test/CLASS/*.png in this folder; by default, shapes.",
    )
    level: Literal["bytes", "words"] | None = option(None, "Read reviews byte by byte, or by frequent words.")

    def study(self, folder: Path | None) -> Study:
        """The study that is named, with the tasks and data asked for."""
        from rattention.studies.lra import PRESETS, Study

        study: Study = chosen_study(Study, PRESETS, self.preset, self.config, folder)
        study = replace(study, **self.given("tasks"))
        data = {name: own.scaled(self.length, self.samples) for name, own in study.data.items()}
        own = {"text": {"source": self.imdb, "level": self.level}, "images": {"source": self.images}}
        for task, asked in own.items():
            data[task] = replace(data[task], **{name: v for name, v in asked.items() if v is not None})
        return study.with_data(**data)


@dataclass(frozen=True)
class Run(Chosen):
    """Train every mechanism on every task with every seed, and compare them.

    Into --out go the configuration, and for each run the trained model, its accuracy, and its numbers per
    epoch: losses, accuracies, time, memory, and what every head attends to; then tables, figures, findings.
    Nothing is lost when it is stopped, with Ctrl-C or otherwise: the same command with the same --out goes on
    after the last finished epoch, with the same numbers as without a break. More tasks, mechanisms and seeds
    may be added later. Under torchrun the processes share every batch.
    """

    EXAMPLES = (
        "# the smoke preset, a few minutes on 2 cores",
        "--preset small --out runs/small    # up to two hours; the same again goes on where it stopped",
        "--preset small --tasks listops --mechanisms softmax,rattention --seeds 0,1",
        "--config study.yaml --epochs 40 --out runs/mine    # study.yaml as in any results folder",
        "--preset paper --imdb ~/aclImdb --threads 32",
    )

    out: Folder | None = option(None, "Write results into this folder; by default results_<date>_<time>.")
    mechanisms: Names = option(None, "Compare these mechanisms, such as softmax,rattention.")
    seeds: Numbers = option(None, "Repeat every run with these seeds of weights, dropout and batches.")
    epochs: int | None = option(None, "Train for at most N epochs.")
    patience: int | None = option(None, "Stop a run after N epochs without a better validation accuracy.")
    batch: int | None = option(None, "Use N sequences in a step.")
    learning_rate: float | None = option(None, "Train with this learning rate of AdamW.")
    match_parameters: bool = option(False, "Match the number of parameters of softmax, within 10 %.")

    def run(self) -> int:
        """Run what is missing, and print the outcome."""
        from rattention.studies.kit import distributed
        from rattention.studies.lra import new_name, run_study

        self.use_threads()
        distributed.init()
        folder = self.out or Path(new_name())
        study = self._overridden(self.study(folder))
        folder, study = distributed.broadcast((folder, study))  # names of new folders contain the time
        try:
            results = run_study(study, folder, lambda line: print(line, file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            note(f"stopped; to go on: rattention lra run --out {folder}")
            raise
        if distributed.rank() == 0:
            self.show({"folder": str(folder), "results": results}, lambda style: _outcome(folder, style))
        return 0

    def _overridden(self, study: Study) -> Study:
        """With the runs and the training asked for."""
        study = replace(study, **self.given("mechanisms", "seeds"))
        if self.match_parameters:
            study = replace(study, model=replace(study.model, match_parameters=True))
        return study.with_training(**self.given("epochs", "patience", "batch", "learning_rate"))


@dataclass(frozen=True)
class Data(Chosen):
    """Show what the tasks consist of: samples, lengths, vocabulary, and how often each label occurs.

    The most frequent label is what a model has to beat. Data are made or read now and kept in the cache
    (RATTENTION_CACHE, by default ~/.cache/rattention), so that a later run finds them.
    """

    EXAMPLES = (
        "# lengths and labels of the smoke preset's tasks",
        "--preset paper --tasks listops --json",
        "--tasks text --imdb ~/aclImdb --length 512 --level words",
    )

    def run(self) -> int:
        """Load and describe."""
        study = self.study(None)
        described = [_describe(study.data[task].load()) for task in study.tasks]
        self.show(described, lambda style: "\n\n".join(_data_of_task(each, style) for each in described))
        return 0


@dataclass(frozen=True)
class Analyze(Printed):
    """Compare the runs in folders of results: a table, figures and findings.

    Accuracy with confidence intervals over seeds, convergence, time, memory and what each model attends to.
    Runs that are not finished are named and left out. Writes summary.md, summary.csv, summary.tex,
    findings.md, report.html and figures/ into --out.
    """

    EXAMPLES = (
        "results_20261127_203000        # table and findings; files into that folder",
        "runs/a runs/b --out together   # several folders as one study",
        "runs/a --format pdf --json",
    )

    folders: tuple[Path, ...] = option(
        (), "Analyse these folders of rattention lra run, several together.", positional="FOLDER"
    )
    out: Folder | None = option(None, "Write files into this folder; by default the only one.")
    format: Literal["png", "svg", "pdf"] = option("png", "Write figures in this format.")

    def run(self) -> int:
        """Analyse, print and save."""
        require("matplotlib")
        from rattention.studies.lra import analysis

        out = self.out or (self.folders[0] if len(self.folders) == 1 else SEVERAL)
        result = analysis.analyze(self.folders, out, formats=(self.format,))
        if not self.json:
            for warning in result.results.warnings:
                note(warning)
        self.show(result.as_data(), lambda style: _analysis_text(result, out, style))
        return 0


def _outcome(folder: Path, style: Any) -> str:
    """The analysis that a run has just written."""
    try:
        from rattention.studies.lra import analysis
    except ImportError as error:
        return f"Results in {folder}; not compared: {error}"
    return _analysis_text(analysis.analyze([folder]), folder, style)


SPLITS = ("train", "validation", "test")
FEW = 32
"""The most names of tokens that are listed."""


def _analysis_text(result: Analysis, folder: Path, style: Style) -> str:
    """A table for each task, the findings, and where everything is."""
    from rattention.studies.lra.findings import CAVEAT
    from rattention.studies.lra.summary import by_task, heading

    parts = [
        style.section(heading(task, cells), table_of(COLUMNS, cells, style))
        for task, cells in by_task(result.cells).items()
    ]
    if parts:
        parts.append(paragraph(NOTE))
    parts += [style.section(head, style.bullets(said)) for head, said in result.findings.items()]
    files = [str(path.relative_to(folder)) for path in result.files if path.parent == folder]
    figures = len(result.files) - len(files)
    saved = f": {', '.join(files)}, {figures} figures in figures" if files else ""
    where = f"Saved in {folder}{saved}. Open {folder / 'report.html'} in a browser."
    return "\n\n".join([*parts, paragraph(CAVEAT), paragraph(where)])


NOTE = (
    "Means over seeds; after ± half of the 95 % interval over them, where there are several. Against "
    "softmax: points of accuracy. Epochs to 90 % of the best validation accuracy; *: it did not learn. Time "
    "and memory vary with what else the machine does."
)


def _points(share: Interval, form: str) -> str:
    half = "" if math.isnan(share.low) else f" ±{50 * (share.high - share.low):.1f}"
    return f"{100 * share.mean:{form}}{half}"


def _mean(name: str, form: str) -> Callable[[Cell], str]:
    return lambda cell: number(cell.number(name).mean, form)


COLUMNS: dict[str, Callable[[Cell], str]] = {
    "mechanism": lambda cell: cell.label,
    "seeds": lambda cell: str(len(cell.seeds)),
    "accuracy\n%": lambda cell: _points(cell.accuracy, ".1f"),
    "against\nsoftmax": lambda cell: (
        "-" if cell.improvement is None else _points(cell.improvement.points, "+.1f")
    ),
    "epochs\nto 90 %": lambda cell: _mean("epochs_to_90_percent", ".1f")(cell) + "*" * cell.failed,
    "s /\nepoch": _mean("seconds_per_epoch", ",.1f"),
    "memory\nMiB": lambda cell: f"{cell.number('peak_memory_bytes').mean / 2**20:,.0f}",
    "para-\nmeters": _mean("parameters", ",.0f"),
}


def _describe(data: TaskData) -> dict[str, Any]:
    """What a task consists of, as plain values."""
    lengths = {name: getattr(data, name).lengths for name in SPLITS}
    return {
        "task": data.name,
        "vocabulary": data.vocabulary,
        "classes": data.classes,
        "token_names": None if data.token_names is None else list(data.token_names),
        "samples": {name: len(values) for name, values in lengths.items()},
        "lengths": {
            name: {"min": int(values.min()), "mean": float(values.mean()), "max": int(values.max())}
            for name, values in lengths.items()
        },
        "label_shares": data.label_shares(),
        "majority_accuracy": data.majority_accuracy(),
    }


def _data_of_task(described: dict[str, Any], style: Style) -> str:
    """Samples, lengths and labels of each split."""
    names = described["token_names"]
    listed = "" if names is None or len(names) > FEW else f"Tokens: {' '.join(names[1:])}"
    samples, lengths, shares = (described[name] for name in ("samples", "lengths", "label_shares"))
    columns: dict[str, Callable[[str], str]] = {
        "split": str,
        "samples": lambda split: f"{samples[split]:,}",
        "shortest": lambda split: f"{lengths[split]['min']:,}",
        "mean\nlength": lambda split: f"{lengths[split]['mean']:,.0f}",
        "longest": lambda split: f"{lengths[split]['max']:,}",
        "% of each label\n0, 1, ...": lambda split: " ".join(f"{100 * s:.0f}" for s in shares[split]),
    }
    return style.section(
        "{task}: {vocabulary} tokens (0 is padding), {classes} labels".format(**described),
        table_of(columns, SPLITS, style),
        paragraph(listed),
        paragraph(
            "Majority-class baseline: the most frequent label of the training samples gives an accuracy of "
            f"{described['majority_accuracy']:.1%}."
        ),
    )


LRA = Group(
    """Compare attention mechanisms on tasks with long sequences.

    The tasks are those of the Long Range Arena, such as nested list operations (listops) and whether a film
    review is positive, read byte by byte (text). The same encoder is trained with each mechanism (run);
    tables and figures of finished studies are made again at any time (analyze).
    """,
    ("data    # what the tasks consist of", "run     # a few minutes on 2 cores"),
    {"data": Data, "run": Run, "analyze": Analyze},
)
