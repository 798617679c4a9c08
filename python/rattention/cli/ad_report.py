"""What ``rattention ad`` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rattention.cli.terminal import Style, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rattention.studies.dark_room import Comparison, HistoryTransformer, LearningHistories

SHOWN_EPISODES = 10
"""As many points of a curve are printed at most."""


def of_histories(histories: LearningHistories, path: Path, seconds: float, style: Style) -> str:
    """How the returns of the source agents rise."""
    from rattention.studies.dark_room import oracle_returns

    collection = histories.collection
    train, held_out = collection.split()
    oracle = oracle_returns(histories.goals, collection.room).mean()
    parts = [
        style.title("Histories of agents that learn"),
        paragraph(
            f"{len(histories.goals):,} histories of {collection.agent.episodes} episodes in "
            f"{seconds:.1f} s: {len(train)} goals to train on and {len(held_out)} held out, "
            f"{collection.per_goal} agents each, in a room of side {collection.room.size}."
        ),
        _curve(histories.returns().mean(axis=0), float(oracle), style),
        paragraph(f"Knowing the goal gives {oracle:.2f}.") + f"\nSaved in {path}",
    ]
    return "\n".join(parts)


def of_training(
    model: HistoryTransformer, folder: Path, curve: Sequence[dict[str, float]], style: Style
) -> str:
    """How the losses fell, and where the model is."""
    from rattention.nn import count_parameters

    some = [curve[i] for i in _some(len(curve))]
    rows = [
        [
            f"{point['step']:.0f}",
            f"{point['query_loss']:.3f}",
            f"{point['held_out_query_loss']:.3f}",
            f"{point['held_out_query_accuracy']:.0%}",
            "",
        ]
        for point in some
    ]
    header = ("steps", "loss", "loss\nheld out", "accuracy\nheld out", "")
    return "\n".join(
        [
            style.title("Training"),
            paragraph(
                f"{count_parameters(model)['total']:,} parameters, {model.record['steps_done']:,} steps in "
                f"{model.record['seconds'] / 60:.1f} minutes; losses in nats."
            ),
            table(header, rows, style),
            f"Saved in {folder}; see what it learned with: rattention ad evaluate --out {folder}",
        ]
    )


def of_comparison(result: Comparison, name: str, style: Style) -> str:
    """The curve of returns, and every goal."""
    data = result.as_data()
    mean = data["mean"]
    rows = [
        [
            f"{goal // result.room.size}, {goal % result.room.size}",
            *(f"{v:.1f}" for v in values),
            _bar(values, style),
        ]
        for goal, *values in _nearest_first(result)
    ]
    rows.append(["all", *(f"{mean[key]:.2f}" for key in mean), _bar(list(mean.values()), style)])
    header = (
        "goal\nrow, column",
        "random",
        "model\nfirst",
        f"model\nlast {data['last']}",
        f"teacher\nlast {data['last']}",
        "oracle",
        "model / oracle",
    )
    return "\n".join(
        [
            style.title(f"Returns of {name} without any change of weights"),
            _curve(result.returns.mean(axis=0), float(result.oracle.mean()), style),
            "",
            table(header, rows, style),
        ]
    )


def _nearest_first(result: Comparison) -> list[list[float]]:
    """Goal, then random, first, last, source and oracle returns."""
    columns = (
        result.goals,
        result.random,
        result.first(),
        result.last(),
        result.source_last(),
        result.oracle,
    )
    order = np.argsort(-result.oracle, kind="stable")
    return [[column[i] for column in columns] for i in order]


def _bar(values: Sequence[float], style: Style) -> str:
    """The model's last return as a share of the oracle's."""
    _, _, last, _, oracle = values
    share = last / oracle if oracle else 0.0
    return f"{style.bar(share)} {share:.0%}"


def _curve(returns: NDArray[np.float64], oracle: float, style: Style) -> str:
    """Mean return of some episodes, with bars."""
    rows = [
        [str(i + 1), f"{returns[i]:.2f}", style.bar(returns[i] / oracle if oracle else 0.0, 30)]
        for i in _some(len(returns))
    ]
    return table(("episode", "mean return", "of the oracle's"), rows, style)


def _some(count: int) -> list[int]:
    """Indices from the first to the last, at even distances."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, SHOWN_EPISODES))})
