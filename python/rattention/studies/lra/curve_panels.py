"""Learning curves of `rattention.studies.lra`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require
from rattention.plots.style import axes_of, figure_of, percent_axis
from rattention.studies.lra.panels import legend_below, look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rattention.studies.lra.results import RunRecord

NUMBERS = {
    "validation_accuracy": "Validation accuracy",
    "train_accuracy": "Training accuracy",
    "validation_loss": "Validation loss",
    "train_loss": "Training loss",
}
"""What `plot_curves` can show, and what its axis calls it."""


def plot_curves(
    runs: Mapping[str, Sequence[RunRecord]], number: str, *, labels: Mapping[str, str], ax: Axes | None = None
) -> Axes:
    """A line per mechanism over the epochs: the mean over seeds, and a band from the least to the greatest.

    Mean and band end where the first finished run ends, so that no jump comes from a seed that stops. Runs
    that are not finished are thin dotted lines of their own and in no mean.

    Parameters
    ----------
    runs:
        All seeds of each mechanism.
    number:
        A name in `NUMBERS`.
    labels:
        What mechanisms are called.
    """
    ax = axes_of(ax)
    for mechanism, some in runs.items():
        style = look(mechanism)
        finished = [run for run in some if run.result is not None and run.metrics]
        lines = [_line(run, number) for run in finished]
        length = min((len(line) for line in lines), default=0)
        if length:
            together = np.array([line[:length] for line in lines])
            epochs = np.arange(1, length + 1)
            every = max(1, length // 6)
            ax.fill_between(
                epochs,
                together.min(axis=0),
                together.max(axis=0),
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
            ax.plot(
                epochs,
                together.mean(axis=0),
                label=labels[mechanism],
                linewidth=1.5,
                markersize=4.5,
                markevery=every,
                **style,
            )
        for run in some:
            if run.result is None and run.metrics:
                at = [line["epoch"] for line in run.metrics]
                name = f"{labels[mechanism]}, not finished"
                dots: dict[str, Any] = {"linestyle": ":", "linewidth": 1, "markersize": 3}
                ax.plot(at, _line(run, number), label=name, **dots, **style)
    ax.set_xlabel("Epoch")
    ax.set_ylabel(NUMBERS[number])
    ax.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))
    if number.endswith("accuracy"):
        percent_axis(ax, None)
    return ax


def curves_figure(
    tasks: Mapping[str, Mapping[str, Sequence[RunRecord]]], labels: Mapping[str, str], *, title: str = ""
) -> Figure:
    """Accuracy in validation and training, and the loss in validation; a row per task, by its heading."""
    shown = ("validation_accuracy", "train_accuracy", "validation_loss")
    figure, panels = figure_of(title, len(tasks), len(shown), (11.4, 3.1 * len(tasks) + 0.4))
    for row, (name, runs) in enumerate(tasks.items()):
        some = panels[len(shown) * row : len(shown) * (row + 1)]
        for ax, number in zip(some, shown, strict=True):
            plot_curves(runs, number, labels=labels, ax=ax)
            ax.set_title(name, fontsize=10)
        some[0].sharey(some[1])  # training and validation can be compared
        some[0].autoscale()
    legend_below(figure, panels)
    return figure


def _line(run: RunRecord, number: str) -> NDArray[np.float64]:
    """Over the epochs; NaN where a line does not have it."""
    return np.array([line.get(number, np.nan) for line in run.metrics], np.float64)
