"""Analysis of comparisons: reading of folders, numbers, findings, files, figures and the command."""

# ruff: noqa: E402
from __future__ import annotations

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest

for module in ("matplotlib", "scipy", "yaml", "safetensors", "tyro"):
    pytest.importorskip(module, reason="needs the extra 'lra'")

import tyro
from rattention.cli import lra_analyze
from rattention.lra import findings, published
from rattention.lra.analysis import analyze
from rattention.lra.results import RunRecord, StudyResults
from rattention.lra.summary import Cell, apart, learned, rows_of, summarize
from rattention.plots import lra as figures
from rattention.plots import lra_attention, lra_curves

from tests.lra_results import ACCURACY, MECHANISMS, write_run, write_study

T3 = 4.302652729911275
"""Student's t for 95 % and 2 degrees of freedom, from tables."""


def result(accuracy, **numbers):
    return {
        "test_accuracy": accuracy,
        "best_epoch": 4,
        "epochs": 10,
        "epochs_to_90_percent": 2,
        "seconds_per_epoch": 10.0,
        "tokens_per_second": 1000.0,
        "peak_memory_bytes": 2**30,
        "majority_accuracy": 0.2,
        "parameters": {"total": 1000},
        "samples": {"test": 10_000},
    } | numbers


def cell(mechanism, accuracies, baseline=None, seeds=None, **numbers):
    """A cell with given accuracies, by hand."""
    runs = tuple(
        RunRecord("listops", mechanism, seed, None, result=result(accuracy, **numbers))
        for seed, accuracy in zip(seeds or range(len(accuracies)), accuracies, strict=True)
    )
    return Cell("listops", mechanism, runs, baseline)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("lra") / "study", unfinished=("text-combined-2",))


@pytest.fixture
def small(tmp_path):
    return write_study(tmp_path / "small", ("listops",), ("conventional", "combined"), (0, 1))


@pytest.fixture(scope="module")
def analysed(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return analyze([study], out), out


class TestReading:
    def test_all_runs_in_the_order_of_tables(self, study):
        results = StudyResults.read([study])
        assert results.tasks() == ["listops", "text"]
        assert results.mechanisms("text") == list(MECHANISMS)
        assert [run.seed for run in results.of("text", "rattention")] == [0, 1, 2]
        assert results.warnings == ()
        run = results.runs[0]
        assert len(run.metrics) == 12
        assert list(run.maps) == ["layer0", "layer1"]
        assert run.maps["layer0"].shape == (4, 64, 64)

    def test_unfinished_runs_are_named_and_in_no_number(self, study):
        results = StudyResults.read([study])
        assert [run.name for run in results.unfinished()] == ["text-combined-2"]
        assert {c.mechanism: c.seeds for c in summarize(results) if c.task == "text"}["combined"] == (0, 1)

    def test_folders_together(self, tmp_path):
        one = write_study(tmp_path / "one", seeds=(0, 1))
        other = write_study(tmp_path / "two", tasks=("text",), seeds=(2,))
        results = StudyResults.read([one, other])
        assert [run.seed for run in results.of("text", "combined")] == [0, 1, 2]
        assert results.warnings == ()

    def test_a_folder_twice_is_once(self, small):
        assert StudyResults.read([small, small]).warnings == ()

    @pytest.mark.parametrize("finished_first", [True, False])
    def test_a_run_in_two_folders_counts_once(self, tmp_path, small, finished_first):
        other = write_study(
            tmp_path / "again", ("listops",), ("combined",), (1,), unfinished=("listops-combined-1",)
        )
        both = [small, other] if finished_first else [other, small]
        results = StudyResults.read(both)
        runs = results.of("listops", "combined")
        assert [(run.seed, run.result is None) for run in runs] == [(0, False), (1, False)]
        assert [text for text in results.warnings if "listops-combined-1 is in several folders" in text]
        assert runs[1].folder.is_relative_to(small)

    def test_different_settings_are_refused_and_named(self, tmp_path, small):
        other = write_study(tmp_path / "o", ("listops",), ("rattention",), settings={"model": {"dim": 64}})
        with pytest.raises(ValueError, match=r"model\.dim is 128 and 64.*one by one"):
            StudyResults.read([small, other])

    def test_settings_may_differ_between_tasks(self, tmp_path, small):
        other = write_study(tmp_path / "o", ("text",), settings={"training": {"epochs": 3}})
        assert StudyResults.read([small, other]).tasks() == ["listops", "text"]

    def test_other_hardware_is_a_warning(self, tmp_path, small):
        other = write_study(tmp_path / "o", ("text",), threads=64)
        (warning,) = StudyResults.read([small, other]).warnings
        assert "times and memory of their runs cannot be compared" in warning


class TestBadFolders:
    def test_none(self):
        with pytest.raises(ValueError, match="at least one"):
            StudyResults.read([])

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match="nowhere is no folder"):
            StudyResults.read([tmp_path / "nowhere"])

    def test_no_result(self, tmp_path):
        with pytest.raises(ValueError, match="holds no results"):
            StudyResults.read([tmp_path])

    def test_no_runs(self, small):
        shutil.rmtree(small / "runs")
        (small / "runs").mkdir()
        with pytest.raises(ValueError, match="no runs yet"):
            StudyResults.read([small])

    def test_strange_name_is_left_out(self, small):
        (small / "runs" / "notes").mkdir()
        assert "notes was left out" in StudyResults.read([small]).warnings[0]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "Expecting value"),
            ("[1]", "no numbers by name"),
            ('{"task": "listops"}', "no number for test_accuracy"),
            (json.dumps(result(math.nan)), "no number for test_accuracy"),
            (json.dumps(result(0.4, parameters=7)), r"no number for parameters\.total"),
            (json.dumps(result(0.4, task="text", mechanism="combined", seed=0)), "that of text-combined-0"),
        ],
    )
    def test_a_damaged_result_makes_its_run_unfinished(self, small, text, said):
        (small / "runs" / "listops-combined-0" / "result.json").write_text(text)
        results = StudyResults.read([small])
        assert [run.name for run in results.unfinished()] == ["listops-combined-0"]
        (warning,) = results.warnings
        assert "listops-combined-0/result.json cannot be used" in warning
        assert re.search(said, warning)

    def test_damaged_lines_are_named_and_left_out(self, small):
        path = small / "runs" / "listops-combined-0" / "metrics.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], '{"epoch": 2}', *lines[2:-1], lines[-1][:20]]))
        results = StudyResults.read([small])
        (warning,) = results.warnings
        assert "metrics.jsonl: line 2, 12 is damaged" in warning
        assert len(results.of("listops", "combined")[0].metrics) == 10

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("run.yaml", "settings"),
            ("attention_maps.safetensors", "figure is missing"),
            ("metrics.jsonl", "cannot be read"),
        ],
    )
    def test_damaged_files_are_named(self, small, name, said):
        (small / "runs" / "listops-combined-0" / name).write_bytes(b"\xff\xfe{:")
        results = StudyResults.read([small])
        (warning,) = results.warnings
        assert name in warning
        assert said in warning
        assert len(results.finished()) == 4

    def test_damaged_environment_is_named(self, small):
        (small / "environment.json").write_text("{")
        assert "environment.json cannot be read" in StudyResults.read([small]).warnings[0]

    def test_everything_damaged_is_still_analysed(self, small, tmp_path):
        for path in small.glob("runs/*/*"):
            path.write_bytes(b"\xff{")
        analysis = analyze([small], tmp_path / "out")
        assert analysis.cells == ()
        assert analysis.findings["Runs"][0].startswith("No run is finished")
        assert "No run is finished yet." in (tmp_path / "out" / "summary.md").read_text()


class TestNumbers:
    def test_students_interval(self):
        number = cell("combined", [0.3, 0.4, 0.5]).accuracy
        assert number.mean == pytest.approx(0.4)
        assert number.high - number.mean == pytest.approx(T3 * 0.1 / math.sqrt(3))

    def test_one_seed_has_no_interval(self):
        number = cell("combined", [0.3]).accuracy
        assert np.isnan([number.low, number.high]).all()
        (row,) = rows_of([cell("combined", [0.3], cell("conventional", [0.2]))])
        assert {row[name] for name in row if name.endswith(("_low", "_high"))} == {None}

    def test_shares_stay_shares(self):
        number = cell("combined", [0.9, 1.0]).accuracy
        assert (number.low, number.high) == (pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3), 1.0)
        assert cell("combined", [0.0, 0.1]).accuracy.low == 0.0

    def test_improvement_is_paired_by_seed(self):
        base = cell("conventional", [0.2, 0.4, 0.9], seeds=(0, 1, 5))
        ours = cell("combined", [0.44, 0.22, 0.1], base, seeds=(1, 0, 7))
        assert ours.paired_seeds == 2
        assert ours.improvement.mean == pytest.approx(0.1)
        assert ours.improvement.high == pytest.approx(0.1)

    def test_improvement_without_common_seeds_is_that_of_means(self):
        base = cell("conventional", [0.2, 0.4], seeds=(0, 1))
        ours = cell("combined", [0.36], base, seeds=(2,))
        assert ours.improvement.mean == pytest.approx(0.2)
        assert math.isnan(ours.improvement.low)

    def test_no_improvement_without_baseline_or_over_nothing(self):
        assert cell("combined", [0.3]).improvement is None
        assert cell("combined", [0.3], cell("conventional", [0.0])).improvement is None

    def test_apart_needs_seeds_and_gaps(self):
        low, high = cell("a", [0.30, 0.31, 0.32]), cell("b", [0.40, 0.41, 0.42])
        assert apart(low, high)
        assert apart(high, low)
        assert not apart(low, cell("b", [0.9]))
        assert not apart(low, cell("b", [0.32, 0.325, 0.33]))
        assert not apart(low, cell("b", [0.33, 0.40, 0.50]))  # seeds are apart, intervals are not
        wide = [0.5] * 60 + [0.3]
        assert not apart(low, cell("b", wide))  # intervals are apart, seeds are not

    @pytest.mark.parametrize(
        ("accuracies", "verdict"),
        [
            ([0.2, 0.2], False),
            ([0.1, 0.25], False),
            ([0.19, 0.3, 0.25], None),  # the interval over seeds holds the majority
            ([0.203, 0.203], None),  # less above it than the choice of test samples can do
            ([0.205], None),
            ([0.3, 0.31, 0.32], True),
            ([0.25], True),
        ],
    )
    def test_learned(self, accuracies, verdict):
        assert learned(cell("combined", accuracies)) is verdict


class TestFindings:
    def test_overlap_is_no_difference(self):
        text = " ".join(findings.best([cell("conventional", [0.30, 0.34]), cell("combined", [0.33, 0.36])]))
        assert "Combined with 34.5%" in text
        assert "no difference between them is shown" in text
        assert "more accurate" not in text

    def test_apart_is_a_difference(self):
        cells = [cell("conventional", [0.30, 0.31, 0.32]), cell("combined", [0.40, 0.41, 0.42])]
        text = " ".join(findings.best(cells))
        assert "Combined is more accurate than Conventional beyond the seeds" in text
        assert "no difference" not in text

    def test_one_seed_shows_nothing(self):
        text = " ".join(findings.best([cell("conventional", [0.3]), cell("combined", [0.9])]))
        assert "Conventional and Combined: one seed" in text or "Combined and Conventional: one seed" in text
        assert "more accurate" not in text

    def test_alone(self):
        assert "no other mechanism" in findings.best([cell("combined", [0.3])])[1]

    def test_the_same_mean_is_said(self):
        text = findings.best([cell("conventional", [0.3, 0.3]), cell("combined", [0.3, 0.3])])[0]
        assert "the same mean: Combined" in text

    def test_majority(self):
        cells = [cell("conventional", [0.19, 0.2]), cell("combined", [0.203]), cell("rattention", [0.4])]
        no, unsure = findings.against_majority(cells)
        assert no.startswith("Conventional did not learn: its mean accuracy of 19.5%")
        assert unsure.startswith("Combined is not shown to have learned: 20.3%")
        assert "0.8 points" in unsure
        (every,) = findings.against_majority(cells[2:])
        assert every == "Every mechanism is above the majority class (20.0%)."

    def test_baseline(self):
        base = cell("conventional", [0.2, 0.21, 0.22])
        better, equal = cell("combined", [0.4, 0.42, 0.44], base), cell("rattention", [0.2, 0.22, 0.23], base)
        texts = findings.against_baseline([base, better, equal, cell("gravitational", [0.5], base)])
        assert "Combined: accuracy +100.0%" in texts[0]
        assert "a difference beyond the seeds" in texts[0]
        assert "no difference is shown" in texts[1]
        assert "one seed" in texts[2]
        assert "paired over 1 seed;" in texts[2]
        assert "no finished run" in findings.against_baseline([cell("combined", [0.4])])[0]

    def test_speed(self):
        base = cell("conventional", [0.3])
        slow = cell("combined", [0.3], base, seconds_per_epoch=25.0, peak_memory_bytes=3 * 2**30)
        time, memory, ratios = findings.speed([base, slow])
        assert time == "Fastest per epoch: Conventional with 10 s; Combined takes 2.50 times as long."
        assert memory == "Least peak memory: Conventional with 1,024 MiB; Combined takes 3.00 times as much."
        assert "Combined 2.50 and 3.00" in ratios
        assert findings.speed([base]) == []

    def test_convergence(self):
        late = cell("combined", [0.3, 0.3], epochs_to_90_percent=6, best_epoch=10)
        flat = cell("rattention", [0.1], epochs_to_90_percent=1)
        first, ends = findings.convergence([cell("conventional", [0.3]), late, flat])
        assert first.endswith("2.0 for Conventional, 6.0 for Combined.")
        assert ends.endswith("Combined 2 of 2.")
        same = findings.convergence([cell("conventional", [0.3]), cell("combined", [0.3])])
        assert same[0].endswith("all the same.")

    def test_sizes(self):
        base = cell("conventional", [0.3])
        larger = cell("combined", [0.3], base, parameters={"total": 1101})
        assert "Combined has 1.10 times the parameters" in findings.sizes([base, larger])[0]
        assert findings.sizes([base, cell("combined", [0.3], base, parameters={"total": 1100})]) == []


class TestFiles:
    def test_all_are_written(self, analysed):
        analysis, out = analysed
        names = {str(path.relative_to(out)) for path in analysis.files}
        assert {"summary.md", "summary.csv", "summary.tex", "findings.md", "report.html"} < names
        wanted = ("accuracy", "improvement", "convergence", "cost", "accuracy_time", "radar", "curves")
        attention = ("attention_text", "attention_text_combined", "attention_metrics_listops")
        assert {f"figures/{name}.png" for name in (*wanted, *attention)} < names
        assert all(path.stat().st_size for path in analysis.files)
        assert not list(out.rglob(".*.tmp"))

    def test_csv_has_the_numbers(self, analysed, study):
        _, out = analysed
        with (out / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 10
        row = next(r for r in rows if (r["task"], r["mechanism"]) == ("text", "gravitational"))
        paths = study.glob("runs/text-gravitational-*/result.json")
        accuracies = [json.loads(path.read_text())["test_accuracy"] for path in paths]
        assert float(row["test_accuracy"]) == pytest.approx(np.mean(accuracies))
        assert row["seeds"] == "3"

    def test_markdown_names_what_is_missing_and_the_published_numbers(self, analysed):
        text = (analysed[1] / "summary.md").read_text()
        assert "text-combined-2: 12 epochs so far" in text
        assert "| Performer | 18.01 | 65.40 |" in text
        assert published.SOURCE in text
        assert "As context only" in text

    def test_latex_is_escaped_and_regular(self, analysed):
        text = (analysed[1] / "summary.tex").read_text()
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 12
        assert {row.count("&") for row in rows} == {8}
        assert text.isascii()
        assert not re.search(r"(?<!\\)[_%]", text.partition("\n")[2])

    def test_report_is_self_contained(self, analysed):
        analysis, out = analysed
        page = (out / "report.html").read_text()
        figures = [path for path in analysis.files if path.suffix == ".png"]
        assert page.count("data:image/png;base64,") == len(figures)
        assert "http://" not in page.replace("http://www.w3.org", "")
        assert 'src="figures' not in page

    def test_nothing_is_written_without_out(self, small):
        before = sorted(small.rglob("*"))
        assert analyze([small]).files == ()
        assert sorted(small.rglob("*")) == before

    def test_unknown_format(self, small, tmp_path):
        with pytest.raises(ValueError, match="png, svg, pdf"):
            analyze([small], tmp_path, formats=("gif",))

    def test_out_that_is_a_file(self, small, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write there"):
            analyze([small], tmp_path / "file")


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
        base = cell("conventional", [0.3, 0.4][:seeds])
        first = plot([base, cell("combined", [0.1, 0.2][:seeds], base), cell("other", [0.5], base)])
        first.figure.canvas.draw()
        assert plot([base], ax=first) is first

    def test_bars_are_the_means(self):
        ax = figures.plot_accuracy([cell("conventional", [0.3, 0.5]), cell("combined", [0.6])])
        assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.4, 0.6])
        ax = figures.plot_cost([cell("conventional", [0.3])], "peak_memory_bytes")
        assert ax.patches[0].get_height() == 1024

    def test_room_for_the_legend_is_no_accuracy(self):
        assert max(figures.plot_accuracy([cell("conventional", [0.97, 1.0])]).get_yticks()) == 1
        one = figures.plot_accuracy([cell("conventional", [0.1])])
        assert one.get_ylim()[1] < 0.3

    def test_one_epoch_is_a_whole_one(self):
        run = RunRecord("text", "combined", 0, None, metrics=[{"epoch": 1, "train_loss": 2.0}], result={})
        ax = lra_curves.plot_curves({"combined": [run]}, "train_loss", labels={"combined": "Combined"})
        assert all(tick == round(tick) for tick in ax.get_xticks())

    def test_every_mechanism_looks_different(self):
        assert len({tuple(figures.look(name).values()) for name in MECHANISMS}) == len(MECHANISMS)

    def test_radar_shares(self):
        cells = [
            cell("conventional", [0.4], tokens_per_second=500.0, epochs_to_90_percent=4),
            cell("combined", [0.8], peak_memory_bytes=2**31),
            cell("rattention", [0.1], epochs_to_90_percent=1),
        ]
        one, other, failed = figures.radar_shares(cells)
        assert [*one.values()] == pytest.approx([0.5, 0.5, 1.0, 0.5])
        assert [*other.values()] == pytest.approx([1.0, 1.0, 0.5, 1.0])
        assert failed["epochs_to_90_percent"] == 0

    def test_curves_end_with_the_first_seed_and_unfinished_runs_stand_alone(self):
        def run(seed, lengths, finished):
            lines = [{"epoch": i + 1, "validation_accuracy": 0.1 * seed} for i in range(lengths)]
            return RunRecord("text", "combined", seed, None, metrics=lines, result={} if finished else None)

        runs = {"combined": [run(1, 5, True), run(3, 3, True), run(9, 2, False)]}
        ax = lra_curves.plot_curves(runs, "validation_accuracy", labels={"combined": "Combined"})
        mean, alone = (line.get_ydata() for line in ax.lines)
        assert list(mean) == pytest.approx([0.2] * 3)
        assert list(alone) == pytest.approx([0.9] * 2)

    def test_metrics_by_layer_and_head(self):
        lines = [{"layer": 0, "head": 1, "entropy": 2.0}, {"layer": 1, "head": 0, "entropy": None}]
        more = [{"layer": 0, "head": 1, "entropy": 4.0}]
        values = lra_attention.by_layer_and_head([lines, more], "entropy")
        assert values[0, 1] == 3.0
        assert np.isnan(values).sum() == 3

    def test_maps_with_other_layers_and_heads(self):
        maps = {"conventional": {"layer0": np.full((4, 2, 2), 0.5, np.float32)}}
        maps["combined"] = {f"layer{i}": np.full((7, 2, 2), 0.5, np.float32) for i in range(2)}
        labels = {name: name for name in maps}
        lra_attention.mean_maps_figure(maps, labels).canvas.draw()
        lra_attention.head_maps_figure(maps["combined"]).canvas.draw()

    def test_metrics_that_are_nowhere_defined(self):
        values = {"entropy": {"combined": np.full((2, 2), np.nan)}}
        lra_attention.metrics_by_mechanism_figure(values, {"combined": "Combined"}).canvas.draw()


class TestCommand:
    def options(self, *words):
        return tyro.cli(lra_analyze.Analyze, args=[str(word) for word in words])

    def test_text(self, small, tmp_path, capsys):
        assert lra_analyze.analyze(self.options(small, "--out", tmp_path / "out")) == 0
        out, err = capsys.readouterr()
        assert "ListOps (majority class 17.0%)" in out
        assert "- Highest mean test accuracy" in out
        assert "summary.md" in out
        assert err == ""

    def test_json(self, small, tmp_path, capsys):
        lra_analyze.analyze(self.options(small, "--out", tmp_path, "--format", "svg", "--json"))
        data = json.loads(capsys.readouterr().out)
        assert [row["mechanism"] for row in data["summary"]] == ["conventional", "combined"]
        assert data["finished"] == 4
        assert (tmp_path / "figures" / "accuracy.svg").is_file()

    def test_files_go_into_the_only_folder(self, small, capsys):
        lra_analyze.analyze(self.options(small))
        assert (small / "findings.md").is_file()
        lra_analyze.analyze(self.options(small))  # what the first wrote is no run
        assert StudyResults.read([small]).warnings == ()

    def test_several_folders_go_elsewhere(self, small, tmp_path, capsys, monkeypatch):
        other = write_study(tmp_path / "other", ("text",), ("combined",), (0,))
        monkeypatch.chdir(tmp_path)
        lra_analyze.analyze(self.options(small, other))
        assert (tmp_path / "lra_analysis" / "report.html").is_file()

    def test_warnings_are_said(self, small, tmp_path, capsys):
        (small / "runs" / "listops-combined-0" / "result.json").write_text("{")
        lra_analyze.analyze(self.options(small, "--out", tmp_path / "out"))
        assert "note: " in capsys.readouterr().err

    def test_no_folder(self):
        with pytest.raises(ValueError, match="at least one"):
            lra_analyze.analyze(self.options())


def test_a_mechanism_that_is_new_comes_last(tmp_path, small):
    write_run(small, "listops", "afresh", 0)
    cells = analyze([small]).cells
    assert [c.mechanism for c in cells] == ["conventional", "combined", "afresh"]


def test_published_table_has_both_tasks():
    assert len(published.ACCURACIES) == 11
    assert all(set(numbers) == set(ACCURACY) for numbers in published.ACCURACIES.values())
