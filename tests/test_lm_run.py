"""Studies of ``rattention lm``: settings, folders, ``run``, ``data`` and ``analyze`` on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.cli import main
from rattention.studies.kit.folder import locked
from rattention.studies.lm import NAMES, PRESETS, Study, run_study
from rattention.studies.lm.experiments import EXPERIMENTS
from rattention.studies.lm.study import runs_of
from rattention.studies.lm.training import load
from rattention.studies.lm.variants import AS_WINDOW

from tests.lm_studies import results, tiny_study, without_times, write_texts
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts") / "texts")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path_factory.getbasetemp() / "lm_cache"))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """The command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        code = main(["lm", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory, texts):
    """A folder with all experiments, made once."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    before = os.environ.get("RATTENTION_CACHE")
    os.environ["RATTENTION_CACHE"] = str(tmp_path_factory.getbasetemp() / "lm_cache")
    try:
        run_study(tiny_study(texts, seeds=(0,)), folder)
    finally:
        os.environ.pop("RATTENTION_CACHE")
        if before is not None:
            os.environ["RATTENTION_CACHE"] = before
    return folder


class TestStudy:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_yaml(self, preset, tmp_path):
        PRESETS[preset].save(tmp_path / "study.yaml")
        assert Study.load(tmp_path / "study.yaml") == PRESETS[preset]

    def test_every_experiment_is_in_the_table(self):
        assert (*EXPERIMENTS,) == NAMES

    @pytest.mark.parametrize("preset", PRESETS)
    def test_names_of_runs_are_different(self, preset):
        names = [run.name for run in runs_of(PRESETS[preset])]
        assert len(names) == len({*names})

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"experiments": ("other",)}, "unknown experiment 'other'"),
            ({"layouts": ("2:1",)}, "unknown layout"),
            ({"seeds": ()}, "seeds must have at least one"),
            ({"windows": (0,)}, "windows"),
        ],
    )
    def test_faults(self, changes, says):
        with pytest.raises(ValueError, match=says):
            Study(**changes)

    def test_a_fault_of_a_file_names_it(self, tmp_path):
        (tmp_path / "s.yaml").write_text("model: {depth: deep}")
        with pytest.raises(ValueError, match=r"s\.yaml: model: depth must be a whole number"):
            Study.load(tmp_path / "s.yaml")


class TestFolder:
    def test_every_run_has_a_result(self, whole, texts):
        runs = runs_of(tiny_study(texts, seeds=(0,)))
        assert {*results(whole)} == {f"{run.name}.json" for run in runs}
        for name in ("study.yaml", "environment.json", "corpus.json", "summary.csv", "findings.md"):
            assert (whole / name).is_file()
        figures = {path.stem for path in (whole / "figures").glob("*.png")}
        assert figures == {*NAMES} - {"ngram"}

    def test_results_say_how_they_came_about(self, whole):
        result = results(whole)["pareto-rattention-w4-0.json"]
        assert result["seed"] == 0
        assert result["settings"]["training"]["steps"] == 6
        assert result["environment"]["versions"]
        assert result["training"]["tokens"] == 6 * 2 * 128
        assert result["text"]["context"] == 128
        assert len(result["corpus_sha256"]) == 64

    def test_models_are_shared_between_experiments(self, whole):
        made = results(whole)
        pareto, ablations = (made[f"{name}-full-0.json"]["training"] for name in ("pareto", "ablations"))
        assert pareto == ablations  # times included
        assert not (whole / "models" / "text-full-0" / "checkpoints").exists()

    def test_a_converted_model_begins_as_the_one_it_comes_from(self, whole):
        made = results(whole)
        before, after = (made[f"conversion-s{steps}-full-0.json"] for steps in (0, 2))
        source = made["pareto-full-0.json"]
        assert before["text"] == source["text"]
        assert before["training"]["before"] == source["training"]
        assert [run["training"]["tokens"] for run in (before, after)] == [0, 2 * 2 * 128]
        assert after["text"] != source["text"]
        first, second = (
            load(whole / "models" / f"{name}-full-0").state_dict() for name in ("text", "converted-2")
        )
        for name, weights in first.items():
            assert not torch.equal(weights, second[name])
            assert (weights - second[name]).abs().max() < 2.1 * 1e-3  # two steps of AdamW at the rate

    def test_a_converted_model_has_the_layers_asked_for(self, whole):
        """A window changes what the model says; the projections stay those of full attention."""
        made = results(whole)
        texts = [
            made[f"conversion-s0-{name}-0.json"]["text"] for name in ("full", "window-w4", "rattention-w4")
        ]
        assert len({text["bits_per_byte"] for text in texts}) == 3
        for name, norm in (("rattention", 1), (AS_WINDOW, 0)):
            trained = load(whole / "models" / f"converted-2-{name}-w4-0").encoder.attention_layers()
            assert [layer.mechanism.window for layer in trained] == [4, 4]
            for layer in trained:  # two steps of AdamW after they began
                assert 0 < (layer.norms.linear_norm_weight - norm).abs().max() < 2.1 * 1e-3

    def test_lengths_are_multiples(self, whole):
        result = results(whole)["length-full-0.json"]
        assert [text["context"] for text in result["lengths"]] == [256, 512]
        assert len(result["tasks"]) == 8

    def test_again_it_does_nothing_and_other_folders_give_the_same(self, whole, texts, tmp_path):
        times = {p: p.stat().st_mtime_ns for p in whole.rglob("*.json*") if p.parent.name == "results"}
        run_study(tiny_study(texts, seeds=(0,)), whole)
        assert times == {p: p.stat().st_mtime_ns for p in times}
        some = tiny_study(texts, experiments=("pareto", "recall"), seeds=(0,))
        run_study(some, tmp_path / "other")
        known = results(whole)
        for name, result in results(tmp_path / "other").items():
            assert _measured(result) == _measured(known[name])

    def test_more_seeds_may_come_later_but_nothing_else(self, texts, tmp_path):
        study = tiny_study(texts, experiments=("ngram",), seeds=(0,))
        run_study(study, tmp_path / "out")
        run_study(replace(study, experiments=("recall",), seeds=(1,)), tmp_path / "out")
        assert Study.load(tmp_path / "out" / "study.yaml").experiments == ("ngram", "recall")
        with pytest.raises(ValueError, match=r"training\.steps 6 instead of 7"):
            run_study(study.with_training(steps=7), tmp_path / "out")

    def test_changed_texts_are_refused(self, tmp_path):
        source = write_texts(tmp_path / "texts")
        study = tiny_study(source, experiments=("ngram",))
        run_study(study, tmp_path / "out")
        (tmp_path / "texts" / "1.txt").write_text("changed " * 40)
        with pytest.raises(ValueError, match="the texts have changed"):
            run_study(study, tmp_path / "out")

    def test_one_process_at_a_time(self, texts, tmp_path):
        (tmp_path / "out").mkdir()
        tiny_study(texts).save(tmp_path / "out" / "study.yaml")
        with locked(tmp_path / "out"), pytest.raises(ValueError, match="in use by another run"):
            run_study(tiny_study(texts), tmp_path / "out")


def _measured(result):
    kept = {name: value for name, value in result.items() if name not in ("settings", "environment")}
    return without_times(kept)


class TestTuning:
    def test_the_grid_is_recorded_and_the_best_is_taken(self, texts, tmp_path):
        study = tiny_study(texts, experiments=("pareto",), seeds=(0,), windows=(4, 8, 16))
        study = study.with_training(rates=(1e-6, 1e-2), tuning_steps=12)
        run_study(study, tmp_path / "out")
        for name, result in results(tmp_path / "out").items():
            trials = result["training"]["trials"]
            assert [trial["learning_rate"] for trial in trials] == [1e-6, 1e-2]
            assert result["training"]["learning_rate"] == 1e-2, name
            assert trials[1]["validation_loss"] < trials[0]["validation_loss"]
        rates = {p.parent.name: json.loads(p.read_text()) for p in tmp_path.rglob("rates.json")}
        assert {*rates} == {
            f"text-{n}" for n in ("full", "window-w0", "rattention-w0", "rattention_as_window-w0")
        }
        assert rates["text-window-w0"]["window"] == 8

    def test_a_trial_that_diverges_is_not_taken(self, texts, tmp_path):
        study = tiny_study(texts, experiments=("pareto",), seeds=(0,), windows=(4,))
        run_study(study.with_training(rates=(1e-3, 1e18)), tmp_path / "out")
        trials = results(tmp_path / "out")["pareto-full-0.json"]["training"]["trials"]
        assert trials[0]["validation_loss"] < (trials[1]["validation_loss"] or 1e9)


class TestCommand:
    def test_help(self, run):
        code, out, _ = run("--help")
        assert code == 0
        assert all(part in out for part in ("data", "run", "analyze"))
        assert "--experiments" in run("run", "--help")[1]

    def test_data(self, run, texts):
        code, out, _ = run("data", "--source", texts, "--json")
        described = json.loads(out)
        assert code == 0
        assert described["vocabulary"] == 256
        assert "validation" in run("data", "--source", texts)[1]

    def test_run_and_go_on(self, run, texts, tmp_path):
        tiny_study(texts, experiments=("ngram", "cost")).save(tmp_path / "study.yaml")
        code, out, err = run("run", "--config", "study.yaml", "--out", "made")
        assert code == 0, err
        assert "ngram-full-0" in err
        assert "Files are in made" in out
        assert "finished before" in run("run", "--out", "made")[2]

    def test_analyze(self, run, whole):
        code, out, err = run("analyze", whole, "--out", "here", "--format", "svg")
        assert code == 0, err
        assert "95 %" in out
        data = json.loads(run("analyze", whole, "--out", "here", "--json")[1])
        assert {row["experiment"] for row in data["summary"]} == {*NAMES}

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (("run", "--experiments", "other"), "unknown experiment 'other'"),
            (("run", "--preset", "smoke", "--config", "x.yaml"), "leave one out"),
            (("run", "--config", "missing.yaml"), "missing.yaml"),
            (("run", "--layouts", "2:1"), "unknown layout"),
            (("run", "--steps", "0"), "steps"),
            (("run", "--pairs", "0"), "pairs must be from 1"),
            (("data", "--source", "nothing"), "must be stdlib, a folder or a Parquet file"),
            (("data", "--bytes", "0"), "most_bytes"),
            (("data", "--level", "words"), "one of bytes, bpe"),
            (("analyze",), "give one or more folders"),
            (("analyze", "."), "holds no results"),
        ],
    )
    def test_mistakes_are_one_line(self, run, argv, says):
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_two_processes_train_as_one(texts, tmp_path):
    study = tiny_study(texts, experiments=("pareto",), seeds=(0,), windows=(4,))
    study.save(tmp_path / "study.yaml")
    run_study(study, tmp_path / "one")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rattention"]
    argv = ["lm", "run", "--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "two")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, *argv],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = (results(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        first, second = (made[name]["text"]["bits_per_byte"] for made in (one, two))
        assert first == pytest.approx(second, rel=1e-4)
