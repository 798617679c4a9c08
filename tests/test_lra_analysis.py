"""Analysis of comparisons: reading of folders, numbers, findings, files, figures and the command."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.cli import main
from rattention.studies.lra import summary
from rattention.studies.lra.analysis import analyze
from rattention.studies.lra.figures import drawn_figures
from rattention.studies.lra.results import StudyResults
from rattention.studies.lra.summary import summarize

from tests.lra_results import ACCURACY, MECHANISMS, result, write_run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(
        tmp_path_factory.mktemp("lra") / "study", unfinished=("text-gravitational_multi_timescale-2",)
    )


@pytest.fixture
def small(tmp_path):
    return write_study(tmp_path / "small", ("listops",), ("softmax", "gravitational_multi_timescale"), (0, 1))


@pytest.fixture(scope="module")
def analysed(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return analyze([study], out), out


class TestReading:
    def test_all_runs_in_the_order_of_tables(self, study):
        results = StudyResults.read([study])
        assert results.tasks() == ["listops", "text"]
        assert list(results.by_mechanism("text")) == list(MECHANISMS)
        assert [run.seed for run in results.by_mechanism("text")["rattention"]] == [0, 1, 2]
        assert results.warnings == ()
        run = results.runs[0]
        assert len(run.metrics) == 12
        assert list(run.maps) == ["layer0", "layer1"]
        assert run.maps["layer0"].shape == (4, 64, 64)

    def test_unfinished_runs_are_named_and_in_no_number(self, study):
        results = StudyResults.read([study])
        assert [run.name for run in results.unfinished()] == ["text-gravitational_multi_timescale-2"]
        assert {c.mechanism: c.seeds for c in summarize(results) if c.task == "text"}[
            "gravitational_multi_timescale"
        ] == (0, 1)

    def test_folders_together(self, tmp_path):
        one = write_study(tmp_path / "one", seeds=(0, 1))
        other = write_study(tmp_path / "two", tasks=("text",), seeds=(2,))
        results = StudyResults.read([one, other])
        runs = results.by_mechanism("text")["gravitational_multi_timescale"]
        assert [run.seed for run in runs] == [0, 1, 2]
        assert results.warnings == ()

    def test_a_folder_twice_is_once(self, small):
        assert StudyResults.read([small, small]).warnings == ()

    @pytest.mark.parametrize("finished_first", [True, False])
    def test_a_run_in_two_folders_counts_once(self, tmp_path, small, finished_first):
        other = write_study(
            tmp_path / "again",
            ("listops",),
            ("gravitational_multi_timescale",),
            (1,),
            unfinished=("listops-gravitational_multi_timescale-1",),
        )
        both = [small, other] if finished_first else [other, small]
        results = StudyResults.read(both)
        runs = results.by_mechanism("listops")["gravitational_multi_timescale"]
        assert [(run.seed, run.result is None) for run in runs] == [(0, False), (1, False)]
        assert [
            text
            for text in results.warnings
            if "listops-gravitational_multi_timescale-1 is in several folders" in text
        ]
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
            (
                json.dumps(result(0.4, task="text", mechanism="gravitational_multi_timescale", seed=0)),
                "that of text-gravitational_multi_timescale-0",
            ),
        ],
    )
    def test_a_damaged_result_makes_its_run_unfinished(self, small, text, said):
        (small / "runs" / "listops-gravitational_multi_timescale-0" / "result.json").write_text(text)
        results = StudyResults.read([small])
        assert [run.name for run in results.unfinished()] == ["listops-gravitational_multi_timescale-0"]
        (warning,) = results.warnings
        assert "listops-gravitational_multi_timescale-0/result.json cannot be used" in warning
        assert re.search(said, warning)

    def test_damaged_lines_are_named_and_left_out(self, small):
        path = small / "runs" / "listops-gravitational_multi_timescale-0" / "metrics.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], '{"epoch": 2}', *lines[2:-1], lines[-1][:20]]))
        results = StudyResults.read([small])
        (warning,) = results.warnings
        assert "metrics.jsonl: line 2, 12 is damaged" in warning
        assert len(results.by_mechanism("listops")["gravitational_multi_timescale"][0].metrics) == 10

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("run.yaml", "settings"),
            ("attention_maps.safetensors", "figure is missing"),
            ("metrics.jsonl", "cannot be read"),
        ],
    )
    def test_damaged_files_are_named(self, small, name, said):
        (small / "runs" / "listops-gravitational_multi_timescale-0" / name).write_bytes(b"\xff\xfe{:")
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


class TestFiles:
    def test_all_are_written(self, analysed):
        analysis, out = analysed
        names = {str(path.relative_to(out)) for path in analysis.files}
        assert {"summary.md", "summary.csv", "summary.tex", "findings.md", "report.html"} < names
        wanted = ("accuracy", "improvement", "convergence", "cost", "accuracy_time", "radar", "curves")
        attention = (
            "attention_text",
            "attention_text_gravitational_multi_timescale",
            "attention_metrics_listops",
        )
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
        assert "text-gravitational_multi_timescale-2: 12 epochs so far" in text
        assert "| Performer | 18.01 | 65.40 |" in text
        assert summary.PUBLISHED_NOTE in text
        assert "As context only" in text

    def test_on_what_the_statistics_of_attention_rest(self, analysed):
        analysis, out = analysed
        said = "Attention was measured in the longest 32 validation samples, of 61 to 90 tokens."
        assert said in (out / "summary.md").read_text()
        assert said in analysis.findings["ListOps"]
        drawn = {d.name: d for d in drawn_figures(analysis.results, analysis.cells)}
        caption = drawn["attention_metrics_listops"].caption
        assert "mean over 3 seeds" in caption
        assert "in the longest 32 validation samples, of 61 to 90 tokens" in caption
        assert "Left out" not in caption

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


class TestCommand:
    def analyze(self, *words):
        return main(["lra", "analyze", *map(str, words)])

    def test_text(self, small, tmp_path, capsys):
        assert self.analyze(small, "--out", tmp_path / "out") == 0
        out, err = capsys.readouterr()
        assert "ListOps (majority class 17.0%)" in out
        assert "report.html in a browser" in out
        assert "Highest mean test accuracy" in " ".join(out.split())
        assert "summary.md" in out
        assert err == ""

    def test_json(self, small, tmp_path, capsys):
        self.analyze(small, "--out", tmp_path, "--format", "svg", "--json")
        data = json.loads(capsys.readouterr().out)
        assert [row["mechanism"] for row in data["summary"]] == ["softmax", "gravitational_multi_timescale"]
        assert data["finished"] == 4
        assert (tmp_path / "figures" / "accuracy.svg").is_file()

    def test_files_go_into_the_only_folder(self, small, capsys):
        self.analyze(small)
        assert (small / "findings.md").is_file()
        self.analyze(small)  # what the first wrote is no run
        assert StudyResults.read([small]).warnings == ()

    def test_several_folders_go_elsewhere(self, small, tmp_path, capsys, monkeypatch):
        other = write_study(tmp_path / "other", ("text",), ("gravitational_multi_timescale",), (0,))
        monkeypatch.chdir(tmp_path)
        self.analyze(small, other)
        assert (tmp_path / "lra_analysis" / "report.html").is_file()

    def test_warnings_are_said(self, small, tmp_path, capsys):
        (small / "runs" / "listops-gravitational_multi_timescale-0" / "result.json").write_text("{")
        self.analyze(small, "--out", tmp_path / "out")
        assert "note: " in capsys.readouterr().err

    def test_no_folder(self, capsys):
        assert self.analyze() == 2
        assert "at least one" in capsys.readouterr().err


def test_a_mechanism_that_is_new_comes_last(tmp_path, small):
    write_run(small, "listops", "afresh", 0)
    cells = analyze([small]).cells
    assert [c.mechanism for c in cells] == ["softmax", "gravitational_multi_timescale", "afresh"]


def test_published_table_has_both_tasks():
    assert len(summary.PUBLISHED) == 11
    assert all(set(numbers) == set(ACCURACY) for numbers in summary.PUBLISHED.values())
