"""What ``rattention ad`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rattention.cli.text import Style, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rattention.studies.dark_room import Comparison, HistoryTransformer, LearningHistories

SHOWN_EPISODES = 10
"""As many points of a curve are printed at most."""
LEARNED = 0.1
"""A model has learned where it gets this share of what the oracle gets more than chance."""


def histories(found: LearningHistories, path: Path, seconds: float, style: Style) -> str:
    """How the returns of the source agents rise."""
    from rattention.studies.dark_room import oracle_returns

    collection = found.collection
    train, held_out = collection.split()
    oracle = oracle_returns(found.goals, collection.room).mean()
    return style.section(
        "Histories of agents that learn",
        paragraph(
            f"{len(found.goals):,} histories of {collection.agent.episodes} episodes in "
            f"{seconds:.1f} s: {len(train)} goals to train on and {len(held_out)} held out, "
            f"{collection.per_goal} agents each, in a room of side {collection.room.size}."
        ),
        _curve(found.returns().mean(axis=0), float(oracle), style),
        paragraph(f"Knowing the goal gives {oracle:.2f}."),
        f"Saved in {path}",
    )


def training(
    model: HistoryTransformer, folder: Path, curve: Sequence[Mapping[str, float]], style: Style
) -> str:
    """How the losses fell, and where the model is."""
    from rattention.nn import count_parameters

    rows = [
        (
            f"{point['step']:.0f}",
            f"{point['query_loss']:.3f}",
            f"{point['held_out_query_loss']:.3f}",
            f"{point['held_out_query_accuracy']:.0%}",
        )
        for point in (curve[i] for i in _some(len(curve)))
    ]
    return style.section(
        "Training",
        paragraph(
            f"{count_parameters(model)['total']:,} parameters, {model.record['steps_done']:,} steps in "
            f"{model.record['seconds'] / 60:.1f} minutes; losses in nats."
        ),
        table(("steps", "loss", "loss\nheld out", "accuracy\nheld out"), rows, style),
        paragraph(f"Saved in {folder}; see what it learned with: rattention ad evaluate --out {folder}"),
    )


def comparison(result: Comparison, name: str, folder: Path, style: Style) -> str:
    """The curve of returns, every goal, and whether the model has learned."""
    data = result.as_data()
    mean = data["mean"]
    rows = [
        (
            f"({goal // result.room.size}, {goal % result.room.size})",
            *(f"{value:.1f}" for value in values),
            _bar(values, style),
        )
        for goal, *values in _nearest_first(result)
    ]
    rows.append(("all", *(f"{mean[key]:.2f}" for key in mean), _bar([*mean.values()], style)))
    header = (
        "goal\nrow, column",
        "random",
        "model\nfirst",
        f"model\nlast {data['last']}",
        f"teacher\nlast {data['last']}",
        "oracle",
        "model / oracle",
    )
    return style.section(
        f"Returns of {name} without any change of weights",
        _curve(result.returns.mean(axis=0), float(result.oracle.mean()), style) + "\n",
        table(header, rows, style),
        paragraph(_verdict(mean)),
        paragraph(f"Saved in {folder}: evaluation.json, returns.png, returns.svg"),
    )


def _verdict(mean: Mapping[str, float]) -> str:
    """Nothing for a model that has learned."""
    gain, possible = mean["last_episodes"] - mean["random"], mean["oracle"] - mean["random"]
    if possible <= 0 or gain >= LEARNED * possible:
        return ""
    return (
        f"The model has not learned to find goals: {mean['last_episodes']:.2f} at the end, "
        f"{mean['random']:.2f} by random actions. Train longer: rattention ad train --steps N."
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
        (str(i + 1), f"{returns[i]:.2f}", style.bar(returns[i] / oracle if oracle else 0.0, 30))
        for i in _some(len(returns))
    ]
    return table(("episode", "mean return", "share of the oracle's"), rows, style)


def _some(count: int) -> list[int]:
    """Indices from the first to the last, at even distances."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, SHOWN_EPISODES))})
