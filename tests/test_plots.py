"""Every figure: it shows the numbers it was given, its labels can be read, and it needs no global state."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.extras import needs

needs("plots")

from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from rattention import plots
from rattention._files import save_figure
from rattention.studies.degradation import (
    WINDOWS,
    Degradation,
    Selection,
    SyntheticConversation,
    SyntheticSource,
    WindowCutoff,
    figures,
    measure,
)
from rattention.studies.degradation.contexts import AVERAGED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

FIGURES = ("metrics_figure", "heads_figure", "reach_figure", "recall_figure")


@pytest.fixture(scope="module")
def measured() -> Degradation:
    return measure(SyntheticSource(), SyntheticConversation(), (50, 100, 150, 200))


PANELS: dict[str, Callable[[Degradation, Axes | None], Axes]] = {
    **{
        name: lambda m, ax, name=name: figures.plot_metric(
            m.contexts, name, threshold=0.5 if "l" in name else None, ax=ax
        )
        for name in ("entropy", "local_concentration", "long_range")
    },
    "retention": lambda m, ax: figures.plot_metric(m.contexts, "retention", ax=ax),
    "head_map": lambda m, ax: plots.plot_head_map(m.contexts[-1].per_head["entropy"], label="Entropy", ax=ax),
    "dilution": lambda m, ax: figures.plot_dilution(m.contexts, ax=ax),
    "window_cutoff": lambda m, ax: figures.plot_window_cutoff(m.cutoff, ax=ax),
    "recall": lambda m, ax: figures.plot_recall(m.recall, ax=ax),
    "recall_layers": lambda m, ax: figures.plot_recall_layers(m.recall, ax=ax),
}


@pytest.mark.parametrize("panel", PANELS)
def test_draws_into_the_axes_given(measured: Degradation, panel: str) -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert PANELS[panel](measured, ax) is ax
    assert ax.figure is figure


@pytest.mark.parametrize("panel", PANELS)
def test_makes_a_figure_where_none_is_given(measured: Degradation, panel: str) -> None:
    ax = PANELS[panel](measured, None)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def lines(ax: Axes) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), float).tolist() for line in ax.get_lines()]


@pytest.mark.parametrize("name", AVERAGED)
def test_metric_shows_its_averages(measured: Degradation, name: str) -> None:
    ax = figures.plot_metric(measured.contexts, name)
    assert lines(ax) == [[getattr(c, name) for c in measured.contexts]]
    assert np.asarray(ax.get_lines()[0].get_xdata()).tolist() == [50, 100, 150, 200]


def test_threshold_is_drawn_where_it_is(measured: Degradation) -> None:
    assert lines(figures.plot_metric(measured.contexts, "entropy", threshold=2.5))[-1] == [2.5, 2.5]


def test_head_map_shows_every_head() -> None:
    values = np.arange(12.0).reshape(3, 4)
    (image,) = plots.plot_head_map(values).get_images()
    np.testing.assert_array_equal(np.asarray(image.get_array()), values)


def test_window_cutoff_shows_layers_and_their_mean(measured: Degradation) -> None:
    *layers, mean = lines(figures.plot_window_cutoff(measured.cutoff))
    np.testing.assert_allclose(layers, measured.cutoff.mass.mean(axis=1))
    np.testing.assert_allclose(mean, measured.cutoff.mass.mean(axis=(0, 1)))


def test_selection_narrows_what_is_shown(measured: Degradation) -> None:
    chosen = Selection((1, 3), (0, 5))
    *layers, _ = lines(figures.plot_window_cutoff(measured.cutoff, selection=chosen))
    np.testing.assert_allclose(layers, measured.cutoff.mass[[1, 3]][:, [0, 5]].mean(axis=1))
    (image,) = figures.plot_recall_layers(measured.recall, selection=chosen).get_images()
    best = [r.mass[[1, 3]][:, [0, 5]].max(axis=1) for r in measured.recall]
    np.testing.assert_allclose(np.asarray(image.get_array()), np.transpose(best))


def test_recall_shows_best_mean_and_even(measured: Degradation) -> None:
    best, mean, even = lines(figures.plot_recall(measured.recall))
    assert best == [r.mass.max() for r in measured.recall]
    assert mean == [r.mean_mass for r in measured.recall]
    assert even == [r.even_mass for r in measured.recall]


@pytest.mark.parametrize("panel", ["dilution", "recall"])
def test_labels_of_lines_do_not_overlap(measured: Degradation, panel: str) -> None:
    ax = PANELS[panel](measured, None)
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_labels_that_give_way_are_joined_to_their_lines() -> None:
    """Of lines that begin close together; those that have room stand at the height of theirs."""
    mass = np.array([0.8, 0.81, 0.82, 0.2])[:, None, None] * np.ones((4, 2, 6))
    ax = figures.plot_window_cutoff(WindowCutoff(500, WINDOWS, mass))
    ax.figure.draw_without_rendering()
    for text in ax.texts:
        if "layer" in text.get_text():
            assert isinstance(text, Annotation)
            box = Text.get_window_extent(text)
            away = abs((box.y0 + box.y1) / 2 - ax.transData.transform(text.xy)[1]) / ax.bbox.height
            assert (text.arrow_patch is not None) == (away > 0.015), text.get_text()
    assert sum(text.arrow_patch is not None for text in ax.texts if isinstance(text, Annotation)) >= 2


@pytest.mark.parametrize("layers", [6, 12, 48])
def test_labels_of_layers_do_not_overlap(layers: int) -> None:
    mass = np.random.default_rng(0).uniform(0.5, 0.6, (layers, 2, 6))
    ax = figures.plot_window_cutoff(WindowCutoff(500, WINDOWS, mass))
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts if "layer" in text.get_text()]
    assert len(boxes) >= 6
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF-")])
def test_figures_are_saved_by_extension(
    measured: Degradation, tmp_path: Path, figure: str, suffix: str, magic: bytes
) -> None:
    path = tmp_path / f"figure{suffix}"
    save_figure(path, getattr(figures, figure)(measured, title="A title"))
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("figure", FIGURES)
def test_nothing_is_cut_off(measured: Degradation, figure: str) -> None:
    drawn = getattr(figures, figure)(measured, title="A title")
    drawn.draw_without_rendering()
    width, height = drawn.get_size_inches() * drawn.dpi
    for ax in drawn.axes:
        box = ax.get_tightbbox()
        assert box is not None
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


@pytest.mark.parametrize("lengths", [(50,), (30, 40)])
def test_few_contexts(lengths: tuple[int, ...]) -> None:
    measured = measure(SyntheticSource(), SyntheticConversation(), lengths)
    for figure in FIGURES:
        drawn = getattr(figures, figure)(measured)
        drawn.draw_without_rendering()
        assert any(ax.has_data() for ax in drawn.axes)


def test_recall_needs_a_context_that_holds_both() -> None:
    measured = measure(SyntheticSource(), SyntheticConversation(), (10,))
    with pytest.raises(ValueError, match="long enough for the fact and the question"):
        figures.recall_figure(measured)


def test_pyplot_is_left_alone() -> None:
    code = (
        "import sys; from rattention.studies.degradation import *;"
        "from rattention.studies.degradation import figures;"
        "contexts = measure_contexts(SyntheticSource(), (20, 30));"
        "figures.plot_metric(contexts, 'entropy').figure.draw_without_rendering();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
