"""From a model and samples to a folder of figures, numbers and advice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention import plots
from rattention._config import show_config
from rattention._extras import require
from rattention._files import figure_format, save_figure, writable_folder, write_csv, write_text
from rattention.inspect.findings import Findings
from rattention.inspect.insights import Advice, Rules, advise
from rattention.inspect.report import linked, report
from rattention.inspect.statistics import SINKS, MapOptions, examine_sample

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from matplotlib.figure import Figure

    from rattention.inspect.statistics import LayerMeasure, Sample, SampleMeasure
    from rattention.plots.maps import Scale


CAPTIONS = {
    "maps": "A picture per head: query rows go down, key positions across, the colour is the weight. Lines "
    "along the diagonal look a fixed distance back, vertical lines are positions that everyone looks at, a "
    "flat triangle averages. What no row may see is blank. Marked, where they are there: the query row, the "
    "sink, and grey lines where episodes begin.",
    "lines": "Left: what the query row gives to each position, per head and on average. Right: the mean "
    "attention that each position receives from the rows that may see it; few rows see the last positions.",
    "distributions": "A point for every sample and head, layer by layer; the box goes from quartile to "
    "quartile, the red line is the median, and the dotted lines are where the rules begin.",
    "layers": "Left: how many positions hold 90 % of the attention; compression pays most where the bar is "
    "lowest. Right: how even the attention is.",
    "heads": "Left: entropy / ln n of each head; dark heads look at few positions. Right: the same against "
    "the ratio of attention to the recent and to the distant quarter.",
}
"""How to read each kind of figure, by the last part of its name."""


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
    walk: Callable[[Sample], str] | None = None,
) -> Visualization:
    """Draw and measure the attention of `model` to `samples`; needs the extra ``plots``.

    Writes into the folder `out`, each file whole: maps and lines of every layer for the first sample, or as
    many as `drawing` says; over all samples the distributions and the comparisons of layers and heads;
    ``heads.csv``, a row for each sample, layer and head; and ``report.html``: advice, tables, and the figures
    by links.

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
    walk:
        Makes a page of the first sample, which the report shows within itself.

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
    saver = _Saver(writable_folder(out), style)
    numbers = None if heads is None else tuple(sorted(set(heads)))
    measured, figures = [], {}
    for i, sample in enumerate(samples if progress is None else progress(samples, "samples")):
        drawn = style.samples is None or i < style.samples
        maps = style.maps if drawn else None
        seen = examine_sample(model, sample, layers=layers, heads=heads, maps=maps)
        if drawn:
            looks: dict[str, Any] = {"scale": style.scale, "figsize": style.figsize}
            pictures = sample_figures(seen, heads=numbers, rules=thresholds, **looks)
            figures[sample.name] = saver.save(pictures, f"sample{i}_")
        # Pictures are most of the memory.
        measured.append(replace(seen, layers=tuple(replace(layer, map=None) for layer in seen.layers)))
    findings = Findings(tuple(measured), numbers)
    advice = advise(findings, thresholds)
    overview = saver.save(overview_figures(findings, thresholds, model=name, figsize=style.figsize))
    rows = findings.table()
    write_csv(saver.path("heads.csv"), [*rows[0]], ([*row.values()] for row in rows))
    if with_report:
        origin = {"hardware": show_config()} if record is None else record
        inner = walk(samples[0]) if walk else ""
        page = report(f"Attention of {name}", description, findings, advice, overview, figures, origin, inner)
        write_text(saver.path("report.html"), page)
    return Visualization(findings, advice, saver.saved)


class _Saver:
    """Names files in a folder, and saves figures there."""

    def __init__(self, folder: Path, style: Drawing) -> None:
        self.folder, self.style = folder, style
        self.saved: list[Path] = []

    def path(self, name: str) -> Path:
        self.saved.append(self.folder / name)
        return self.saved[-1]

    def save(self, figures: Iterator[tuple[str, Figure]], prefix: str = "") -> list[dict[str, Any]]:
        """Save each figure, and give what the report says of it."""
        kept = []
        for name, figure in figures:
            path = self.path(f"{prefix}{name}.{self.style.format}")
            save_figure(path, figure, dpi=self.style.dpi)
            what = re.sub(r"(sample|layer)(\d+)_?", r"\1 \2, ", path.stem)
            kept.append(linked(f"{what}: {CAPTIONS[name.rpartition('_')[2]]}", path))
        return kept


def sample_figures(
    sample: SampleMeasure,
    *,
    heads: tuple[int, ...] | None = None,
    rules: Rules | None = None,
    **style: Any,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the maps, where they were kept, and of the lines of every layer.

    `heads` are the numbers of those measured, as in `Findings`; `rules` say from which mass on the first
    positions are marked as a sink; `style` is ``scale`` and ``figsize`` of
    `rattention.plots.attention_figure`.
    """
    for layer in sample.layers:
        numbers = heads or tuple(range(len(layer.weights)))
        shared: dict[str, Any] = {"labels": sample.labels, "heads": numbers, **style}
        where = f"layer {layer.layer} of {sample.name}"
        start, stop = 0, layer.weights.shape[1]
        if (picture := layer.map) is not None:
            start, stop = picture.keys
            parts: dict[str, Any] = {"shown": picture.shown, "rows": picture.rows, "keys": picture.keys}
            parts["marks"] = _marks(sample, layer, rules or Rules())
            figure = plots.attention_figure(picture.weights, title=f"Attention in {where}", **parts, **shared)
            yield f"layer{layer.layer}_maps", figure
        title = f"What the query row gives, and what positions receive, in {where}"
        lines = (layer.weights[:, start:stop], layer.received[:, start:stop])
        yield f"layer{layer.layer}_lines", plots.lines_figure(*lines, start=start, title=title, **shared)


def _marks(sample: SampleMeasure, layer: LayerMeasure, rules: Rules) -> list[plots.Marks]:
    """What is marked on the map of each head."""
    return [
        plots.Marks(sample.episodes, layer.row, SINKS if mass > rules.sink_mass else 0)
        for mass in layer.query.sink_mass
    ]


def overview_figures(
    findings: Findings, rules: Rules, *, model: str = "", **style: Any
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the distributions over samples, and of the comparisons of layers and heads.

    `style` is ``figsize``.
    """
    of = f" of {model}" if model else ""
    count = len(findings.samples)
    samples = f"{count} sample{'s' if count > 1 else ''}"
    title = f"The query row{of} in {samples}"
    yield "distributions", plots.distributions_figure(findings, rules, title=title, **style)
    yield "layers", plots.layers_figure(findings, title=f"Layers{of} compared", **style)
    yield "heads", plots.heads_comparison_figure(findings, title=f"Heads{of} compared", **style)
