"""Figures of the comparison: what they show, and that it fits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lra import panels as figures
from rattention.studies.lra import settings
from rattention.studies.lra.figures import (
    by_layer_and_head,
    drawn_figures,
    head_maps_figure,
    mean_maps_figure,
    metrics_by_mechanism_figure,
)
from rattention.studies.lra.results import RunRecord, StudyResults
from rattention.studies.lra.summary import summarize

from tests.lra_results import MECHANISMS, cell, write_study


class TestFigures:
    @pytest.mark.parametrize(
        "plot",
        [
            figures.plot_accuracy,
            figures.plot_convergence,
            figures.plot_improvement,
            figures.plot_accuracy_against_time,
            figures.plot_radar,
        ],
    )
    @pytest.mark.parametrize("seeds", [1, 2])
    def test_give_their_axes_back(self, plot, seeds):
        base = cell("softmax", [0.3, 0.4][:seeds])
        first = plot(
            [
                base,
                cell("gravitational_multi_timescale", [0.1, 0.2][:seeds], base),
                cell("other", [0.5], base),
            ]
        )
        first.figure.canvas.draw()
        assert plot([base], ax=first) is first

    @pytest.mark.parametrize("tasks", [1, 2])
    def test_legends_fit(self, tmp_path, tasks):
        results = StudyResults.read([write_study(tmp_path / "s", ("listops", "text")[:tasks], seeds=(0,))])
        legends = 0
        for drawn in drawn_figures(results, summarize(results)):
            drawn.figure.canvas.draw()
            for legend in drawn.figure.legends:
                legends += 1
                box, whole = legend.get_window_extent(), drawn.figure.bbox
                assert whole.x0 <= box.x0 < box.x1 <= whole.x1, drawn.name
                assert whole.y0 <= box.y0 < box.y1 <= whole.y1, drawn.name
        assert legends == 3

    def test_bars_are_the_means(self):
        ax = figures.plot_accuracy(
            [cell("softmax", [0.3, 0.5]), cell("gravitational_multi_timescale", [0.6])]
        )
        assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.4, 0.6])
        ax = figures.plot_cost([cell("softmax", [0.3])], "peak_memory_bytes")
        assert ax.patches[0].get_height() == 1024

    def test_means_are_written_above_seeds_and_whiskers(self):
        seeds = ([0.3, 0.31, 0.4], [0.616, 0.615, 0.617], [0.25])
        ax = figures.plot_accuracy([cell(n, a) for n, a in zip(MECHANISMS, seeds, strict=False)])
        ax.figure.draw_without_rendering()
        points = ax.transData.transform(
            np.vstack([c.get_offsets() for c in ax.collections if len(c.get_offsets())])
        )
        for text in ax.texts:
            box = text.get_window_extent()
            assert not any(box.padded(2).contains(x, y) for x, y in points), text.get_text()

    def test_no_marker_stands_at_an_edge(self):
        """Of the times and accuracies: a marker is 8 points wide."""
        cells = [
            cell("softmax", [0.9, 0.9]),
            cell("gravitational_multi_timescale", [0.3, 0.5], seconds_per_epoch=90.0),
        ]
        ax = figures.plot_accuracy_against_time(cells)
        ax.figure.draw_without_rendering()
        x, y = ax.transData.transform([(90.0, 0.9)])[0]
        room = 4 / 72 * ax.figure.dpi
        assert x + room <= ax.bbox.x1
        assert y + room <= ax.bbox.y1

    def test_maps_have_a_colour_bar(self):
        maps = {"gravitational_multi_timescale": {"layer0": np.full((2, 3, 3), 0.5, np.float32)}}
        for figure in (
            mean_maps_figure(maps),
            head_maps_figure(maps["gravitational_multi_timescale"]),
        ):
            bar = figure.axes[-1]
            assert bar.get_ylabel() == "Weight, on each map's own scale"
            assert [text.get_text() for text in bar.get_yticklabels()] == ["0", "most"]

    def test_room_for_the_legend_is_no_accuracy(self):
        assert max(figures.plot_accuracy([cell("softmax", [0.97, 1.0])]).get_yticks()) == 1
        one = figures.plot_accuracy([cell("softmax", [0.1])])
        assert one.get_ylim()[1] < 0.3

    def test_one_epoch_is_a_whole_one(self):
        run = RunRecord(
            "text",
            "gravitational_multi_timescale",
            0,
            None,
            metrics=[{"epoch": 1, "validation_loss": 2.0}],
            result={},
        )
        ax = figures.plot_curves(
            {"gravitational_multi_timescale": [run]},
            "validation_loss",
        )
        assert all(tick == round(tick) for tick in ax.get_xticks())

    def test_every_mechanism_looks_different(self):
        names = [*settings.MECHANISMS, "unknown"]
        assert len({tuple(figures.look(name).values()) for name in names}) == len(names)

    def test_radar_shares(self):
        cells = [
            cell("softmax", [0.4], tokens_per_second=500.0, epochs_to_90_percent=4),
            cell("gravitational_multi_timescale", [0.8], peak_memory_bytes=2**31),
            cell("rattention", [0.1], epochs_to_90_percent=1),
        ]
        one, other, failed = figures.radar_shares(cells)
        assert [*one.values()] == pytest.approx([0.5, 0.5, 1.0, 0.5])
        assert [*other.values()] == pytest.approx([1.0, 1.0, 0.5, 1.0])
        assert failed["epochs_to_90_percent"] == 0

    def test_curves_end_with_the_first_seed_and_unfinished_runs_stand_alone(self):
        def run(seed, lengths, finished):
            lines = [{"epoch": i + 1, "validation_accuracy": 0.1 * seed} for i in range(lengths)]
            return RunRecord(
                "text",
                "gravitational_multi_timescale",
                seed,
                None,
                metrics=lines,
                result={} if finished else None,
            )

        runs = {"gravitational_multi_timescale": [run(1, 5, True), run(3, 3, True), run(9, 2, False)]}
        ax = figures.plot_curves(
            runs,
            "validation_accuracy",
        )
        mean, alone = (line.get_ydata() for line in ax.lines)
        assert list(mean) == pytest.approx([0.2] * 3)
        assert list(alone) == pytest.approx([0.9] * 2)

    def test_metrics_by_layer_and_head(self):
        lines = [{"layer": 0, "head": 1, "entropy": 2.0}, {"layer": 1, "head": 0, "entropy": None}]
        more = [{"layer": 0, "head": 1, "entropy": 4.0}]
        values = by_layer_and_head([*lines, *more], "entropy")
        assert values[0, 1] == 3.0
        assert np.isnan(values).sum() == 3

    def test_maps_with_other_layers_and_heads(self):
        maps = {"softmax": {"layer0": np.full((4, 2, 2), 0.5, np.float32)}}
        maps["gravitational_multi_timescale"] = {
            f"layer{i}": np.full((7, 2, 2), 0.5, np.float32) for i in range(2)
        }
        means = mean_maps_figure(maps)
        heads = head_maps_figure(maps["gravitational_multi_timescale"])
        for figure, pictures in ((means, 1 + 2), (heads, 2 * 7)):
            figure.canvas.draw()
            assert sum(len(ax.images) for ax in figure.axes) == pictures

    def test_metrics_that_are_nowhere_defined(self):
        values = {"entropy": {"gravitational_multi_timescale": np.full((2, 2), np.nan)}}
        figure = metrics_by_mechanism_figure(values)
        figure.canvas.draw()
        (image,) = figure.axes[0].images
        assert np.ma.getmaskarray(np.ma.masked_invalid(image.get_array())).all()

    def test_metrics_that_no_head_has_are_left_out(self, tmp_path):
        folder = write_study(
            tmp_path / "s", ("text",), ("softmax", "gravitational_multi_timescale"), seeds=(7,)
        )
        for path in folder.glob("runs/*/attention.jsonl"):
            lines = [json.loads(line) | {"long_range": None} for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        results = StudyResults.read([folder])
        drawn = {d.name: d for d in drawn_figures(results, summarize(results))}["attention_metrics_text"]
        assert "seed 7" in drawn.caption
        assert drawn.caption.endswith("Left out, as no head sees keys so far away: Long-range attention.")
        assert len([ax for ax in drawn.figure.axes if ax.images]) == 3 * 2
