"""From a model and samples to a folder of figures, numbers and advice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._config import show_config
from rattention._extras import require
from rattention._files import figure_format, save_figure, writable_folder, write_csv, write_text
from rattention.inspect.figures import caption, overview_figures, sample_figures
from rattention.inspect.findings import COLUMNS, Findings, without_maps
from rattention.inspect.insights import Advice, Rules, advise
from rattention.inspect.report import Embedded, report
from rattention.inspect.statistics import OVER_ROWS, MapOptions, examine_sample

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

    from rattention.inspect.statistics import Sample
    from rattention.plots.maps import Scale


@dataclass(frozen=True)
class Drawing:
    """How figures are drawn and saved."""

    maps: MapOptions = field(default_factory=MapOptions)
    scale: Scale = "log"
    """Of colours and lines: ``"log"`` or ``"linear"``."""
    format: str = "png"
    """``"png"``, ``"svg"`` or ``"pdf"``."""
    dpi: float = 150
    """Pixels per inch."""
    figsize: tuple[float, float] | None = None
    """Inches; by default what the panels need."""
    samples: int | None = 1
    """How many samples get maps and lines, the first ones; None is all. Statistics are of all."""

    def __post_init__(self) -> None:
        figure_format(self.format)
        sizes = (self.dpi, *(self.figsize or ()))
        if not all(0 < size < LARGEST for size in sizes):
            raise ValueError(f"dpi and figsize must be positive and below {LARGEST}, got {sizes}")


LARGEST = 10_000
"""More pixels per inch, or inches, are a typing error."""


@dataclass
class Visualization:
    """What `visualize` found and wrote."""

    findings: Findings
    advice: Advice
    saved: list[Path] = field(default_factory=list)


def visualize(
    model: Any,
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    *,
    name: str = "the model",
    description: str = "",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    rules: Rules | None = None,
    drawing: Drawing | None = None,
    with_report: bool = True,
    record: Mapping[str, Any] | None = None,
    progress: Callable[[Sequence[Sample], str], Iterable[Sample]] | None = None,
) -> Visualization:
    """Draw and measure the attention of `model` to `samples`; needs the extra ``plots``.

    Writes into the folder `out`, each file whole: maps and lines of every layer for the first sample, or as
    many as `drawing` says; over all samples the distributions and the comparisons of layers and heads;
    ``heads.csv``, a row for each sample, layer and head; and ``report.html`` with all of it.

    Parameters
    ----------
    model, samples, layers, heads, progress:
        As in `examine`.
    name, description:
        What titles and the report call the model.
    rules:
        Thresholds of the advice.
    drawing:
        How figures are drawn; the defaults of `Drawing`.
    with_report:
        Whether to write the report.
    record:
        What the report says of configuration and versions; by default what this machine is.

    Raises
    ------
    ValueError
        As in `examine`, or a part of the maps that a sample does not have.
    OSError
        `out` cannot be written to.

    Notes
    -----
    Maps are pooled while they are computed, and forgotten when they are drawn; nothing of size n x n is ever
    stored.
    """
    if not samples:
        raise ValueError("samples must hold at least one sample, got none")
    if with_report:
        require("jinja2")
    style, thresholds = drawing or Drawing(), rules or Rules()
    saver = _Saver(writable_folder(out), style, with_report)
    numbers = None if heads is None else tuple(sorted(set(heads)))
    measured, figures = [], {}
    for i, sample in enumerate(samples if progress is None else progress(samples, "samples")):
        drawn = style.samples is None or i < style.samples
        maps = style.maps if drawn else None
        seen = examine_sample(model, sample, layers=layers, heads=heads, maps=maps)
        if drawn:
            pictures = sample_figures(seen, heads=numbers, scale=style.scale, figsize=style.figsize)
            figures[sample.name] = saver.save(pictures, f"sample{i}_")
        measured.append(without_maps(seen))
    findings = Findings(tuple(measured), numbers)
    advice = advise(findings, thresholds)
    overview = saver.save(overview_figures(findings, thresholds, model=name, figsize=style.figsize))
    saver.table(findings)
    if with_report:
        origin = {"hardware": show_config()} if record is None else record
        page = report(f"Attention of {name}", description, findings, advice, overview, figures, origin)
        saver.text("report.html", page)
    return Visualization(findings, advice, saver.saved)


class _Saver:
    """Writes files into a folder, and keeps figures for the report."""

    def __init__(self, folder: Path, style: Drawing, embeds: bool) -> None:
        self.folder, self.style, self.embeds = folder, style, embeds
        self.saved: list[Path] = []

    def save(self, figures: Iterator[tuple[str, Figure]], prefix: str = "") -> list[Embedded]:
        """Save each figure, and give those for the report."""
        kept = []
        for name, figure in figures:
            path = self.folder / f"{prefix}{name}.{self.style.format}"
            save_figure(path, figure, dpi=self.style.dpi)
            self.saved.append(path)
            if self.embeds:
                what = re.sub(r"(sample|layer)(\d+)_?", r"\1 \2, ", path.stem)
                kept.append(Embedded(f"{what}: {caption(name)}", figure, path))
        return kept

    def table(self, findings: Findings) -> None:
        """All numbers of all heads."""
        header = (*COLUMNS, *(f"rows_{name}" for name in OVER_ROWS))
        path = self.folder / "heads.csv"
        write_csv(path, header, ([row[name] for name in header] for row in findings.table()))
        self.saved.append(path)

    def text(self, name: str, text: str) -> None:
        """A file of text."""
        write_text(self.folder / name, text)
        self.saved.append(self.folder / name)
