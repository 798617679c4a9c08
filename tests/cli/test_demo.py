"""rattention demo: JSON alone on stdout, the files, and the interactive form."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from typing import TYPE_CHECKING

import pytest
from rattention import __version__

from tests.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


class TestDemo:
    def test_measures_the_model_given(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        argv = ("demo", "--model", model, "--text", text, "--lengths", "30,45,64", "--out", "figs", "--json")
        code, out, err = run(*argv)
        assert code == 0, err
        data = json.loads(out)
        assert [c["context_length"] for c in data["contexts"]] == [30, 45, 64]
        assert [c["sequence_length"] for c in data["contexts"]] == [30, 45, 64]
        for name in ("entropy", "local_concentration", "long_range", "retention"):
            assert all(isinstance(c[name], float) for c in data["contexts"])
        first, second, _ = data["contexts"]
        assert first["retention_change"] is None
        assert second["retention_change"] == pytest.approx(second["retention"] - first["retention"])
        assert data["model"]["layers"] == 2
        assert data["thresholds"]["entropy"] == 2.0
        assert data["hardware"]["threads"] >= 1
        assert data["versions"]["rattention"] == __version__
        assert data["configuration"]["lengths"] == [30, 45, 64]
        assert data["seed"] == 0
        assert json.loads((tmp_path / "figs" / "degradation.json").read_text("utf-8")) == data

    def test_files(self, run: Run, drawn: None, model: str, text: str, tmp_path: Path) -> None:
        needs("plots")
        code, out, _ = run("demo", "--model", model, "--text", text, "--lengths", "30,60", "--out", "figs")
        assert code == 0
        names = {p.name for p in (tmp_path / "figs").iterdir()}
        figures = {
            f"{name}{suffix}"
            for name in ("metrics", "heads", "reach", "recall")
            for suffix in (".png", ".svg")
        }
        assert names == {"contexts.csv", "heads.csv", "degradation.json", *figures}
        assert all((tmp_path / "figs" / name).stat().st_size > 5000 for name in figures)
        assert "Saved in figs: contexts.csv, heads.csv, degradation.json, metrics.png" in out
        with (tmp_path / "figs" / "contexts.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["context_length"] for row in rows] == ["30", "60"]
        assert rows[0]["retention_change"] == ""
        with (tmp_path / "figs" / "heads.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == 2 * 2 * 3

    def test_usual_lengths_stop_at_the_positions(self, run: Run, model: str, text: str) -> None:
        code, out, err = run("demo", "--model", model, "--text", text, "--json")
        assert code == 0
        assert [c["context_length"] for c in json.loads(out)["contexts"]] == [50, 64]
        assert "note: the model has 64 positions" in err

    def test_short_text_is_used_and_said_to_be_short(self, run: Run, model: str, tmp_path: Path) -> None:
        (tmp_path / "short.txt").write_text("the cat sat on the mat.", "utf-8")
        code, out, err = run(
            "demo", "--model", model, "--text", "short.txt", "--lengths", "5,20,30", "--json"
        )
        assert code == 0
        assert [c["sequence_length"] for c in json.loads(out)["contexts"]] == [5, 9, 9]
        assert "note: the text has only 9 tokens; asked for 20, 30" in err

    def test_layer_and_head_narrow_the_averages(self, run: Run, model: str, text: str) -> None:
        argv = ("demo", "--model", model, "--text", text, "--lengths", "40", "--json")
        everything = json.loads(run(*argv)[1])
        one = json.loads(run(*argv, "--layer", "1", "--head", "0,2")[1])
        heads = everything["heads"]["entropy"][1]
        assert one["contexts"][0]["entropy"] == pytest.approx((heads[0] + heads[2]) / 2)

    def test_thresholds_move_the_marks(self, run: Run) -> None:
        argv = ("demo", "--simple", "--lengths", "60,120", "--json")
        usual = json.loads(run(*argv)[1])["contexts"]
        strict = json.loads(run(*argv, "--thresholds.entropy", "99")[1])["contexts"]
        assert all("good_spread" in c["marks"] for c in usual)
        assert not any("good_spread" in c["marks"] for c in strict)

    def test_threads_do_not_change_the_numbers(self, run: Run, use_threads: Callable[[int], None]) -> None:
        argv = ("demo", "--simple", "--lengths", "60,120", "--json", "--threads")
        one, two = (json.loads(run(*argv, n)[1]) for n in ("1", "2"))
        assert one["contexts"] == two["contexts"]
        assert (one["hardware"]["threads"], two["hardware"]["threads"]) == (1, 2)

    def test_simple_says_that_it_is_synthetic(self, run: Run) -> None:
        code, out, _ = run("demo", "--simple", "--lengths", "60,120", "--seed", "4")
        assert code == 0
        assert "synthetic queries and keys" in out.splitlines()[0]
        assert "seed 4: no model, no text" in out

    def test_tells_the_whole_story(self, run: Run) -> None:
        _, out, _ = run("demo", "--simple", "--lengths", "60,120")
        for section in (
            "Dilution",
            "sliding window would cut off at 120",
            "Information loss",
            "What it means",
            "Saved",
        ):
            assert section in out


class TestInteractive:
    def turns(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, *argv: str
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return run("demo", "--interactive", *argv)

    def test_measures_after_every_turn(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        typed = "the cat sat\nhelp\n\non a mat.\nquit\nnot read\n"
        code, out, err = self.turns(run, monkeypatch, typed, "--model", model, "--json")
        assert code == 0, err
        data = json.loads(out)
        assert [c["sequence_length"] for c in data["contexts"]] == [5, 9]
        assert data["contexts"][1]["retention_change"] is not None
        assert "an empty line is no turn" in err
        assert err.count("Begin with a fact") == 2  # at the start and for "help"

    def test_a_question_finds_its_fact_or_not(
        self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        typed = "the cat sat on a mat.\na dog runs\nthe cat sat?\n"
        code, out, err = self.turns(run, monkeypatch, typed, "--model", model)
        assert code == 0, err
        words = " ".join(out.split())
        assert re.search(r"The question (finds|does not find) the first turn: it gives it [\d.]+% of", words)
        assert words.count("The question") == 1
        code, out, _ = self.turns(run, monkeypatch, typed, "--model", model, "--json")
        first, second, third = (c["recall"] for c in json.loads(out)["contexts"])
        assert (first, second) == (None, None)
        assert 0 < third["mean_mass"] < 1

    def test_full_positions(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        long, short = "the cat " * 28, "a dog"
        code, out, err = self.turns(
            run, monkeypatch, f"{long}\n{long}\n{short}\n", "--model", model, "--json"
        )
        assert code == 0
        assert [c["sequence_length"] for c in json.loads(out)["contexts"]] == [58, 64]
        assert "64 positions: only the first 6 words fit" in err
        assert "64 positions are full: this turn is left out" in err

    def test_marks_for_people(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        code, out, _ = self.turns(run, monkeypatch, "the cat sat\n", "--model", model)
        assert code == 0
        assert "asked" in out
        assert "poor long-range" not in out  # nothing is that far away

    def test_end_of_input_at_once(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        code, out, _ = self.turns(run, monkeypatch, "", "--model", model, "--json")
        assert code == 0
        assert json.loads(out)["contexts"] == []
