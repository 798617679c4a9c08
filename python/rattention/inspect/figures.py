"""Every figure of an examination by name, and how to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rattention import plots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from rattention.inspect.findings import Findings
    from rattention.inspect.insights import Rules
    from rattention.inspect.statistics import SampleMeasure


CAPTIONS = {
    "maps": "A picture per head: query rows go down, key positions across, the colour is the weight. Lines "
    "along the diagonal look a fixed distance back, vertical lines are positions that everyone looks at, a "
    "flat triangle averages. What no row may see is blank.",
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


def caption(name: str) -> str:
    """How to read the figure of that name."""
    return CAPTIONS[name.rpartition("_")[2]]


def sample_figures(
    sample: SampleMeasure, *, heads: tuple[int, ...] | None = None, **style: Any
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the maps, where they were kept, and of the lines of every layer.

    `heads` are the numbers of those measured, as in `Findings`; `style` is ``scale`` and ``figsize`` of
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
            figure = plots.attention_figure(picture.weights, title=f"Attention in {where}", **parts, **shared)
            yield f"layer{layer.layer}_maps", figure
        title = f"What the query row gives, and what positions receive, in {where}"
        lines = (layer.weights[:, start:stop], layer.received[:, start:stop])
        yield f"layer{layer.layer}_lines", plots.lines_figure(*lines, start=start, title=title, **shared)


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
