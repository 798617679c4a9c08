"""``rattention lm``: small language models that differ in how they attend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rattention._extras import require
from rattention.cli.options import Computed, Folder, Group, Names, Numbers, Printed, option
from rattention.cli.studies import chosen_study
from rattention.cli.text import Style, note, paragraph, table_of

if TYPE_CHECKING:
    from rattention.studies.lm import Study
    from rattention.studies.lm.analysis import Analysis

SEVERAL = Path("lm_analysis")
"""Where the analysis of several folders goes."""


@dataclass(frozen=True)
class Chosen(Computed):
    """Which study."""

    preset: Literal["smoke", "small", "paper"] | None = option(
        None,
        "Run this study: smoke takes a few minutes on 2 cores, small hours, paper needs a large machine. By "
        "default the study in --out goes on or, where there is none, smoke is run.",
    )
    config: Path | None = option(None, "Read the study from this YAML file; what is missing has its default.")
    source: str | None = option(
        None,
        "Read texts from this folder (*.txt, *.py, *.md) or Parquet file with a column text; stdlib takes "
        "the Python sources of the standard library. Default: these and those of pure Python packages.",
    )
    level: Literal["bytes", "bpe"] | None = option(
        None, "Read texts byte by byte, or by a byte-pair encoding trained on them."
    )
    bytes: int | None = option(None, "Read at most N bytes of text.")

    def study(self, folder: Path | None) -> Study:
        """The study that is named, with the texts asked for."""
        from rattention.studies.kit.settings import with_given
        from rattention.studies.lm import PRESETS, Study

        study: Study = chosen_study(Study, PRESETS, self.preset, self.config, folder)
        asked = {"source": self.source, "level": self.level, "most_bytes": self.bytes}
        return replace(study, corpus=with_given(study.corpus, **asked))


@dataclass(frozen=True)
class Run(Chosen):
    """Train models, measure them, and compare them.

    Into --out go the configuration, every model with a line of numbers per step, a small JSON file for every
    finished run, tables, figures and findings. Nothing is lost when it is stopped, with Ctrl-C or otherwise:
    the same command with the same --out goes on after the last checkpoint, with the same numbers as without a
    break. More experiments, seeds and windows may be added later. Under torchrun the processes share every
    batch.
    """

    EXAMPLES = (
        "# the smoke preset, a few minutes on 2 cores",
        "--preset small --experiments pareto --out runs/small    # the same again goes on where it stopped",
        "--preset small --experiments recall --seeds 0,1,2,3,4 --threads 1",
        "--config study.yaml --out runs/mine    # study.yaml as in any results folder",
    )

    out: Folder | None = option(None, "Write results into this folder; by default results_<date>_<time>.")
    experiments: Names = option(
        None,
        "Do these: ngram, pareto, recall, length, ablations, conversion, cost. Default: those of the study.",
    )
    seeds: Numbers = option(None, "Repeat every run with these seeds of weights and batches.")
    windows: Numbers = option(None, "Compare these windows in the experiment pareto.")
    layouts: Names = option(None, "Compare these layouts in the experiment pareto: pure, 3:1.")
    pairs: Numbers = option(None, "Give so many pairs in the experiment recall.")
    steps: int | None = option(None, "Train models of text for N steps.")
    batch: int | None = option(None, "Use N sequences of text in a step.")
    context: int | None = option(None, "Use N tokens of text in a sequence.")
    bfloat16: bool = option(False, "Train and measure models of text in mixed bfloat16.")

    def run(self) -> int:
        """Run what is missing, and print the outcome."""
        from rattention.studies.kit import distributed
        from rattention.studies.lm import new_name, run_study

        self.use_threads()
        distributed.init()
        folder = self.out or Path(new_name())
        study = replace(self.study(folder), **self.given("experiments", "seeds", "windows", "layouts"))
        study = study.with_training(**self.given("steps", "batch", "context"))
        study = replace(study, recall=replace(study.recall, **self.given("pairs")))
        if self.bfloat16:
            study = study.with_training(bfloat16=True)
        folder, study = distributed.broadcast((folder, study))  # names of new folders contain the time
        try:
            run_study(study, folder, lambda line: print(line, file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            note(f"stopped; to go on: rattention lm run --out {folder}")
            raise
        if distributed.rank() == 0:
            from rattention.studies.lm.analysis import analyze

            made = analyze([folder])
            self.show(made.as_data(), lambda style: _analysis_text(made, folder, style))
        return 0


@dataclass(frozen=True)
class Data(Chosen):
    """Make the corpus and show what it consists of: texts, bytes and tokens of every split.

    Tokens are kept in the cache (RATTENTION_CACHE, by default ~/.cache/rattention) with the list of files and
    their hashes, so that a later run finds them.
    """

    EXAMPLES = (
        "# sources of Python on this machine, byte by byte",
        "--source ~/books --level bpe",
        "--preset small --json",
    )

    def run(self) -> int:
        """Load and describe."""
        data = self.study(None).corpus.load()
        described = {name: value for name, value in data.manifest.items() if name != "files"}
        described |= {"sha256": data.sha256, "folder": str(data.folder)}
        self.show(described, lambda style: _data_text(described, style))
        return 0


@dataclass(frozen=True)
class Analyze(Printed):
    """Compare the runs in folders of results: a table, figures and findings.

    Differences are paired by seed and have intervals; nothing is claimed where one holds zero. Writes
    summary.json, summary.csv, findings.md and figures/ into --out.
    """

    EXAMPLES = (
        "results_20261127_203000        # table and findings; files into that folder",
        "runs/a runs/b --out together   # several folders as one study",
    )

    folders: tuple[Path, ...] = option(
        (), "Analyse these folders of rattention lm run, several together.", positional="FOLDER"
    )
    out: Folder | None = option(None, "Write files into this folder; by default the only one.")
    format: Literal["png", "svg", "pdf"] = option("png", "Write figures in this format.")

    def run(self) -> int:
        """Analyse, print and save."""
        require("matplotlib")
        from rattention.studies.lm.analysis import analyze

        if not self.folders:
            raise ValueError("give one or more folders of rattention lm run")
        out = self.out or (self.folders[0] if len(self.folders) == 1 else SEVERAL)
        made = analyze(self.folders, out, formats=(self.format,))
        self.show(made.as_data(), lambda style: _analysis_text(made, out, style))
        return 0


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "experiment": lambda row: row["experiment"],
    "model": lambda row: row["label"],
    "measure": lambda row: row["measure"],
    "at": lambda row: f"{row['at']:,}",
    "seeds": lambda row: str(row["seeds"]),
    "mean": lambda row: f"{row['mean']:.4g}",
    "95 %": lambda row: "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}",
}
SHOWN = ("bits per byte, second half", "accuracy")
"""Measures of the printed table; all are in summary.json."""


def _analysis_text(made: Analysis, folder: Path, style: Style) -> str:
    from rattention.studies.lm.findings import CAVEAT

    rows = [row for row in made.rows() if row["measure"].endswith(SHOWN)]
    said = [c.sentence() for c in made.contrasts if c.measure.endswith(SHOWN)]
    parts = [style.section("Means over seeds", table_of(COLUMNS, rows, style))] if rows else []
    parts += [style.section("Differences", style.bullets(said))] if said else []
    parts += [style.section("Caches", style.bullets(made.costs))] if made.costs else []
    return "\n\n".join([*parts, paragraph(CAVEAT), f"Files are in {folder}."])


def _data_text(described: dict[str, Any], style: Style) -> str:
    splits = described["splits"]
    columns: dict[str, Callable[[str], str]] = {
        "split": str,
        "texts": lambda split: f"{splits[split]['texts']:,}",
        "bytes": lambda split: f"{splits[split]['bytes']:,}",
        "tokens": lambda split: f"{splits[split]['tokens']:,}",
    }
    source = described["source"] or "Python sources of this installation"
    return style.section(
        f"{source}: {described['vocabulary']:,} tokens",
        table_of(columns, splits, style),
        paragraph(f"SHA-256 of the tokens: {described['sha256']}. Saved in {described['folder']}."),
    )


LM = Group(
    """Compare attention mechanisms in small language models.

    Models that differ only in how they attend, with equal numbers of parameters, are trained on texts and on
    associative recall, and measured: loss against the window, longer contexts than in training, parts of
    RAttention changed, time and memory (run). Tables and figures are made again at any time (analyze).
    """,
    ("data    # the corpus", "run     # a few minutes on 2 cores"),
    {"data": Data, "run": Run, "analyze": Analyze},
)
