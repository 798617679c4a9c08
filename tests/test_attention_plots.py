"""Figures of attention: they show the numbers they were given, hide what is hidden, and can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.extras import needs

needs("plots")

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from rattention import plots
from rattention._files import save_figure
from rattention.inspect import Rules, examine
from rattention.inspect.statistics import MapOptions, examine_sample
from rattention.inspect.visualize import overview_figures, sample_figures

from tests.bert_folder import write_folder
from tests.test_examine import samples


def weights(heads=3, length=20):
    values = np.tril(np.random.default_rng(0).random((heads, length, length), np.float32))
    return values / values.sum(axis=-1, keepdims=True)


PANELS = {
    "map": lambda ax: plots.plot_attention_map(weights()[0], ax=ax),
    "query": lambda ax: plots.plot_query_attention(weights()[:, -1], ax=ax),
    "received": lambda ax: plots.plot_received(weights().mean(axis=1), ax=ax),
    "distribution": lambda ax: plots.plot_distribution(np.ones((2, 3, 4)), (0, 1, 2), label="x", ax=ax),
    "layers": lambda ax: plots.plot_layers(np.full((2, 3, 4), 0.5), (0, 1, 2), ax=ax),
    "heads": lambda ax: plots.plot_heads(np.full((3, 4), 0.5), np.ones((3, 4)), (0, 1, 2), ax=ax),
}


@pytest.mark.parametrize("panel", PANELS)
def test_draws_into_the_axes_given(panel):
    ax = Figure().add_subplot()
    assert PANELS[panel](ax) is ax


@pytest.mark.parametrize("panel", PANELS)
def test_makes_a_figure_where_none_is_given(panel):
    ax = PANELS[panel](None)
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_the_hidden_triangle_is_blank():
    (image,) = plots.plot_attention_map(weights()[0]).get_images()
    np.testing.assert_array_equal(image.get_array().mask, ~np.tri(20, dtype=bool))
    np.testing.assert_array_equal(image.get_array().filled(0), weights()[0].astype(np.float64))
    assert tuple(image.cmap.get_bad()) == (1, 1, 1, 1)


def test_cells_that_show_something_and_weigh_nothing_are_drawn():
    values = np.zeros((4, 4))
    shown = np.tri(4, dtype=bool)
    for scale in ("linear", "log"):
        (image,) = plots.plot_attention_map(values, shown=shown, scale=scale).get_images()
        np.testing.assert_array_equal(image.get_array().mask, ~shown)
        image.figure.draw_without_rendering()


def test_ticks_are_positions_of_the_sequence():
    ax = plots.plot_attention_map(weights()[0], rows=(100, 120), keys=(40, 60))
    assert ax.get_xlim() == (39.5, 59.5)
    assert ax.get_ylim() == (119.5, 99.5)


@pytest.mark.parametrize(("count", "labelled"), [(12, True), (200, False)])
def test_labels_where_there_is_room(count, labelled):
    labels = [f"token{i}$" for i in range(400)]
    ax = plots.plot_attention_map(np.eye(count), rows=(50, 50 + count), keys=(0, count), labels=labels)
    ax.figure.draw_without_rendering()
    assert ("token50" in ax.get_yticklabels()[0].get_text()) == labelled


def test_scales():
    linear, log = (plots.plot_attention_map(weights()[0], scale=s).images[0] for s in ("linear", "log"))
    assert linear.norm.vmin == 0
    assert isinstance(log.norm, LogNorm)
    assert log.norm.vmax == weights()[0].max()
    with pytest.raises(ValueError, match="scale must be one of linear, log, got 'sqrt'"):
        plots.plot_attention_map(weights()[0], scale="sqrt")


def test_a_map_must_be_a_map():
    with pytest.raises(ValueError, match=r"weights must be \[rows, keys\], got shape \(3, 20, 20\)"):
        plots.plot_attention_map(weights())


@pytest.mark.parametrize("heads", [1, 3, 12, 20])
def test_grid_of_heads(heads):
    figure = plots.attention_figure(weights(heads), heads=range(5, 5 + heads), title="A title")
    figure.draw_without_rendering()
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in maps] == [f"head {n}" for n in range(5, 5 + heads)]
    assert len({id(ax.images[0].norm) for ax in maps}) == 1
    for ax, values in zip(maps, weights(heads), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array().filled(0), values.astype(np.float64))


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_lines_show_each_head_and_the_mean(scale):
    row = weights()[:, -1]
    mean, *heads = plots.plot_query_attention(row, scale=scale, start=7).get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in heads], row)
    np.testing.assert_allclose(mean.get_ydata(), row.mean(axis=0))
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(7, 27))


def test_long_lines_are_means_over_stretches():
    row = np.random.default_rng(0).random((2, 1600))
    line = plots.plot_received(row).get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), row[0].reshape(400, 4).mean(axis=1))


def test_distribution_shows_each_sample_and_head():
    values = np.random.default_rng(0).random((2, 3, 4))
    values[0, 1, 0], values[1, 1, 1] = np.nan, np.inf
    ax = plots.plot_distribution(values, (0, 2, 5), threshold=0.5)
    points = [collection.get_offsets()[:, 1] for collection in ax.collections]
    for layer in range(3):
        drawn = values[:, layer].ravel()
        np.testing.assert_array_equal(points[layer], drawn[np.isfinite(drawn)])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "2", "5"]
    assert [0.5, 0.5] in [list(line.get_ydata()) for line in ax.get_lines()]


@pytest.mark.parametrize("log", [True, False])
def test_distribution_of_nothing(log):
    ax = plots.plot_distribution(np.full((2, 3, 4), np.nan), (0, 1, 2), log=log)
    ax.figure.draw_without_rendering()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2"]
    assert not any(np.isfinite(points.get_offsets()[:, 1]).any() for points in ax.collections)


def test_layers_show_their_medians_and_which_is_least():
    needed = np.array([[[0.5, 0.7], [0.1, 0.3], [0.8, 0.9]]])
    ax = plots.plot_layers(needed, (0, 4, 6))
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.6, 0.2, 0.85])
    assert ax.get_title(loc="right") == "compression pays most in layer 4"


def test_ratios_without_end_are_arrow_heads():
    """At the end of the axis; the others are points."""
    values = np.array([[[1e9, np.inf, 2.0, 1e-7]]])
    ax = plots.plot_distribution(values, (0,), log=True, most=1000.0)
    points = [collection.get_offsets()[:, 1].tolist() for collection in ax.collections[:3]]
    assert points == [[2.0], [1000.0, 1000.0], [0.001]]
    paths = [len(collection.get_paths()[0].vertices) for collection in ax.collections[:3]]
    assert paths[1] == paths[2] == 4 < paths[0]


@pytest.mark.parametrize("values", [(0.0085, 0.0102), (0.3, 0.9), (2e-5, 0.4), (1e-9, 1.0)])
def test_axes_of_statistics_have_ticks(values):
    ax = plots.plot_distribution(np.array([[values]]), (0,), log=True)
    low, high = ax.get_ylim()
    assert 3 <= sum(low <= tick <= high for tick in ax.get_yticks()) <= 20


def test_rules_stand_beside_the_boxes():
    ax = plots.plot_distribution(np.random.default_rng(0).random((2, 3, 4)), (0, 1, 2), threshold=0.5)
    ax.figure.draw_without_rendering()
    (text,) = ax.texts
    assert text.get_text() == "rule above\n0.5"
    assert text.get_window_extent().x0 >= ax.bbox.x1


def test_heads_names_the_ends():
    entropy, ratio = np.array([[0.2, 0.9], [0.5, np.nan]]), np.array([[0.0, 1e7], [2.0, 1.0]])
    ax = plots.plot_heads(entropy, ratio, (3, 4), heads=(6, 8))
    assert [t.get_text() for t in ax.texts] == ["layer 3 head 6", "layer 3 head 8"]
    points = [c.get_offsets().tolist() for c in ax.collections]
    assert points == [[[0.9, 1000]], [[0.2, 0.001]], [[0.5, 2.0]]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["layer 3", "layer 4"]


@pytest.mark.parametrize("seed", range(5))
def test_names_of_heads_cover_no_head(seed):
    """Though the ends stand among others, or at the edges of the axes."""
    drawn = np.random.default_rng(seed)
    entropy = np.clip(0.8 + 0.15 * drawn.standard_normal((4, 4)), 0.01, 1)
    ratio = 10 ** drawn.uniform(-1, 4, (4, 4))
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    ax = plots.plot_heads(entropy, ratio, range(4), ax=figure.add_subplot())
    figure.draw_without_rendering()
    heads = np.column_stack([entropy.ravel(), np.clip(ratio.ravel(), 1e-3, 1e3)])
    pixels = ax.transData.transform(heads)
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    for box, text in zip(boxes, ax.texts, strict=True):
        assert not any(box.contains(x, y) for x, y in pixels), text.get_text()
        assert ax.bbox.x0 <= box.x0 < box.x1 <= ax.bbox.x1
        assert ax.bbox.y0 <= box.y0 < box.y1 <= ax.bbox.y1
    assert {tuple(text.xy) for text in ax.texts} == {
        tuple(heads[i]) for i in (entropy.argmin(), entropy.argmax())
    }


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    needs("models")
    from rattention.models import Bert

    return Bert.from_pretrained(write_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def figures(bert):
    seen = examine_sample(bert, samples()[1], maps=MapOptions(keys=(3, 28)))
    drawn = dict(sample_figures(seen, scale="log"))
    return drawn | dict(overview_figures(examine(bert, samples()), Rules(), model="a model"))


NAMES = [f"layer{i}_{kind}" for i in (0, 1) for kind in ("maps", "lines")]
NAMES += ["distributions", "layers", "heads"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_and_labels_do_not_overlap(figures, name):
    figure = figures[name]
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for ax in figure.axes:
        box = ax.get_tightbbox()
        assert min(box.x0, box.y0) >= -1
        assert (box.x1, box.y1) <= (width + 1, height + 1)
        for axis in (ax.xaxis, ax.yaxis):
            texts = [t for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            boxes = [t.get_window_extent() for t in texts]
            inside = [b for b in boxes if ax.bbox.expanded(1.6, 1.6).containsx((b.x0 + b.x1) / 2)]
            assert not any(a.overlaps(b) for a, b in combinations(inside, 2)), name


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_saved(figures, tmp_path, kind):
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF-"}[kind]
    path, again = tmp_path / f"figure.{kind}", tmp_path / f"again.{kind}"
    save_figure(path, figures["layers"], dpi=60)
    assert path.read_bytes().startswith(magic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "86400")  # another day
        save_figure(again, figures["layers"], dpi=60)
    assert again.read_bytes() == path.read_bytes()


def test_formats_and_resolution(figures, tmp_path):
    with pytest.raises(ValueError, match="must be one of png, svg, pdf, got 'gif'"):
        save_figure(tmp_path / "figure.gif", figures["layers"])
    assert not list(tmp_path.iterdir())
    sizes = []
    for dpi in (50, 200):
        save_figure(tmp_path / "figure.png", figures["layers"], dpi=dpi)
        sizes.append(int.from_bytes((tmp_path / "figure.png").read_bytes()[16:20], "big"))
    assert sizes[1] == pytest.approx(4 * sizes[0], abs=4)


def marked(**part):
    """A map with marks: coordinates of its episodes' lines, and the labels of the legend."""
    rows, keys = part.get("rows", (0, 20)), part.get("keys", (0, 20))
    ax = plots.plot_attention_map(
        weights()[0][slice(*rows), slice(*keys)], marks=plots.Marks((0, 5, 12), 19, 4), **part
    )
    down, across = (np.array(lines.get_segments()) for lines in ax.collections)
    return ax, sorted({*down[..., 0].ravel()}), sorted({*across[..., 1].ravel()})


def test_episodes_query_row_and_sink_are_marked():
    """Lines before the first position of an episode, but the very first, within what is seen."""
    ax, columns, lines = marked()
    assert (columns, lines) == ([4.5, 11.5], [4.5, 11.5])
    for segment in ax.collections[0].get_segments():
        assert segment[:, 1].tolist() == [segment[0, 0], 19.5]
    _, labels = ax.get_legend_handles_labels()
    assert labels == ["an episode begins", "query row", "attention sink: the first 4 positions"]
    (query,) = (line for line in ax.lines if line.get_label() == "query row")
    assert query.get_ydata() == [19]
    assert ax.get_xlim() == (-0.5, 19.5)


def test_marks_outside_a_part_are_left_out():
    ax, columns, lines = marked(rows=(6, 15), keys=(7, 20))
    assert (columns, lines) == ([11.5], [11.5])
    assert ax.get_legend_handles_labels()[1] == ["an episode begins"]


def test_a_sink_is_marked_where_the_rule_says(bert):
    """And the legend is that of all heads."""
    seen = examine_sample(bert, samples()[1], maps=MapOptions())
    mass = [layer.query.sink_mass for layer in seen.layers]
    threshold = float(np.median(mass))
    drawn = dict(sample_figures(seen, rules=Rules(sink_mass=threshold)))
    for layer, own in enumerate(mass):
        axes = drawn[f"layer{layer}_maps"].axes[: len(own)]
        labels = [ax.get_legend_handles_labels()[1] for ax in axes]
        assert [any("sink" in label for label in some) for some in labels] == [m > threshold for m in own]
        (legend,) = drawn[f"layer{layer}_maps"].legends
        assert "query row" in [text.get_text() for text in legend.get_texts()]
