"""The command line: exit codes, one line for a mistake, JSON alone on stdout, plain text where it must be."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rattention import __version__
from rattention._files import MOST_TEXT
from rattention._installed import for_users
from rattention.cli import main
from rattention.cli.options import Command, Group
from rattention.cli.parser import COMMANDS

from tests.bert_folder import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

TEXT = "the cat sat on a mat and the dogs sleep. running, the cafe sat? a dog runs, sleeping. " * 6


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random BERT: 2 layers of 3 heads, 64 positions."""
    pytest.importorskip("safetensors", reason="needs the extra 'models'")
    pytest.importorskip("tokenizers", reason="needs the extra 'models'")
    return str(write_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return str(path)


def leaves() -> list[type[Command]]:
    """Every command with options."""
    groups = [part for part in COMMANDS.values() if isinstance(part, Group)]
    parts = [*COMMANDS.values(), *(part for group in groups for part in group.parts.values())]
    return [part for part in parts if not isinstance(part, Group)]


class TestHelp:
    def test_lists_every_subcommand(self, run: Run) -> None:
        code, out, err = run("--help")
        assert code == 0
        assert err == ""
        assert all(f"  {name} " in out for name in COMMANDS)
        assert run() == (0, out, "")

    @pytest.mark.parametrize("name", COMMANDS)
    def test_teaches(self, run: Run, name: str) -> None:
        code, out, _ = run(name, "--help")
        assert code == 0
        for needed in (f"rattention {name}", "examples:", "Exit codes: 0 done, 1 failed", "2 wrong usage"):
            assert needed in out

    @pytest.mark.parametrize("name", COMMANDS)
    def test_examples_name_options_that_exist(self, run: Run, name: str) -> None:
        _, out, _ = run(name, "--help")
        shown = out.partition("options:")[2]
        command = COMMANDS[name]
        for example in command.examples if isinstance(command, Group) else command.EXAMPLES:
            for word in example.partition("#")[0].split():
                assert not word.startswith("--") or word in shown

    @pytest.mark.parametrize("command", leaves(), ids=lambda command: command.__name__)
    def test_every_option_is_a_sentence(self, command: type[Command]) -> None:
        for option in fields(command):
            about = option.metadata["help"]
            assert about[0].isupper(), about
            assert about.endswith("."), about
            assert about.count(" ") >= 2, about

    def test_version(self, run: Run) -> None:
        assert run("--version") == (0, f"rattention {__version__}\n", "")


class TestUsage:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (("degrade",), "unknown command 'degrade': there are check, demo, visualize"),
            (("dmeo",), "unknown command 'dmeo' (perhaps you meant demo)"),
            (("lra", "ran"), "(perhaps you meant run)"),
            (("demo", "--lenghts", "50"), "perhaps you meant --lengths"),
            (("demo", "--seed", "1.5"), "--seed must be a whole number, got '1.5'"),
            (("demo", "--seed"), "--seed expected one argument"),
            (("demo", "essay.txt"), "unknown option essay.txt"),
            (
                ("visualize", "--samples", "9" * 30),
                "--samples must be a whole number of at most",
            ),
            (("visualize", "--scale", "linaer"), "--scale must be one of log, linear, got 'linaer'"),
            (("demo", "--thresholds.entropy", "high"), "--thresholds.entropy must be a number, got 'high'"),
            (("demo", "--thresholds.entropy", "nan"), "finite"),
            (("demo", "--simple", "--lengths", "50,,100"), "--lengths must be whole numbers"),
            (("demo", "--simple", "--lengths", "many"), "--lengths must be whole numbers"),
            (("demo", "--simple", "--lengths", ""), "--lengths must not be empty"),
            (("demo", "--simple", "--out", ""), "--out must not be empty"),
            (("visualize", "--out="), "--out must not be empty"),
            (("demo", "--simple", "--lengths", "2,50"), "at least 3 tokens, got 2"),
            (("demo", "--simple", "--lengths", "-7"), "at least 3 tokens, got -7"),
            (("demo", "--simple", "--layer", "4"), "layers must be numbers from 0 to 3, got [4]"),
            (("demo", "--simple", "--head", "0,8"), "heads must be numbers from 0 to 7, got [0, 8]"),
            (("demo", "--simple", "--head", "all"), "--head must be whole numbers"),
            (("demo", "--simple", "--seed", "-1"), "--seed must be between 0 and 4294967295, got -1"),
            (("all", "--seed", "-1"), "--seed must be between 0 and 4294967295, got -1"),
            (("visualize", "--seed", "-1"), "--seed must be between 0 and 4294967295, got -1"),
            (("compress", "--seed", str(2**32)), "--seed must be between 0 and 4294967295, got 4294967296"),
            (("compress", "--validate", "--seed", str(2**32 - 2), "--seeds", "3"), "the last seed, must be"),
            (("ad", "collect", "--seed", str(2**64)), "--seed must be between 0 and 4294967295"),
            (("ad", "train", "--seed", "-1"), "--seed must be between 0 and 4294967295, got -1"),
            (("ad", "evaluate", "--seed", str(2**32)), "--seed must be between 0 and 4294967295"),
            (("demo", "--simple", "--threads", "-1"), "--threads must be >= 0"),
            (("demo", "--simple", "--text", "any.txt"), "reads no --model and no --text"),
            (("demo", "--simple", "--interactive"), "leave out --simple"),
        ],
    )
    def test_mistakes_give_one_line_and_code_2(self, run: Run, argv: tuple[str, ...], said: str) -> None:
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert said in err
        assert err.startswith("rattention: ")
        assert err.count("\n") == 1

    def test_nothing_is_left_behind(self, run: Run, tmp_path: Path) -> None:
        run("demo", "--simple", "--lengths", "2")
        assert list(tmp_path.iterdir()) == []


class TestModelAndText:
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({}, "holds no config.json"),
            ({"config.json": "{"}, "cannot be read as JSON"),
            ({"config.json": '{"model_type": "gpt2"}'}, "gpt2"),
        ],
    )
    def test_folder_without_a_model(self, run: Run, tmp_path: Path, files: dict[str, str], said: str) -> None:
        pytest.importorskip("tokenizers", reason="needs the extra 'models'")
        folder = tmp_path / "folder"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content, "utf-8")
        self.refused(run("demo", "--model", str(folder)), said)

    def test_folder_without_weights(self, run: Run, tmp_path: Path, model: str) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "config.json").write_bytes((Path(model) / "config.json").read_bytes())
        self.refused(run("demo", "--model", str(folder)), "holds no weights")

    def test_no_such_model(self, run: Run) -> None:
        self.refused(run("demo", "--model", "./no/such/folder"), "neither a folder nor the id")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b" \n\t ", "is empty"),
            (b"\xff\xfe\x80", "is not UTF-8"),
            (b"a" * (MOST_TEXT + 1), "is too long: at most 16777216 bytes are read"),
            (None, "No such file"),
        ],
    )
    def test_no_text(self, run: Run, tmp_path: Path, model: str, content: bytes | None, said: str) -> None:
        path = tmp_path / "odd.txt"
        if content is not None:
            path.write_bytes(content)
        self.refused(run("demo", "--model", model, "--text", str(path)), said, "odd.txt")

    @pytest.mark.parametrize(("path", "said"), [("/dev/zero", "is too long"), (".", "Is a directory")])
    def test_texts_without_end(self, run: Run, model: str, path: str, said: str) -> None:
        self.refused(run("demo", "--model", model, "--text", path), said)

    def test_text_from_a_pipe(self, run: Run, model: str, tmp_path: Path) -> None:
        """As a shell gives it for <(...) and for /dev/stdin."""
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(TEXT, "utf-8"))
        writer.start()
        code, out, err = run("demo", "--model", model, "--text", "pipe", "--lengths", "20", "--json")
        writer.join()
        assert code == 0, err
        assert json.loads(out)["contexts"][0]["sequence_length"] == 20

    @pytest.mark.parametrize("lengths", ["65", "10,20,...,500", "64,65"])
    def test_beyond_the_positions(self, run: Run, model: str, text: str, lengths: str) -> None:
        self.refused(run("demo", "--model", model, "--text", text, "--lengths", lengths), "at most 64 tokens")

    @pytest.mark.parametrize("out", ["taken", "taken/below"])
    def test_unwritable_folder(self, run: Run, tmp_path: Path, out: str) -> None:
        (tmp_path / "taken").write_text("", "utf-8")
        self.refused(run("demo", "--simple", "--lengths", "10", "--out", out), "cannot write there", out)

    @staticmethod
    def refused(result: tuple[int, str, str], *said: str) -> None:
        code, out, err = result
        assert (code, out) == (2, "")
        assert all(part in err for part in said), err
        assert err.count("\n") == 1


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

    def test_files(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
        code, out, _ = run("demo", "--model", model, "--text", text, "--lengths", "30,60", "--out", "figs")
        assert code == 0
        names = {p.name for p in (tmp_path / "figs").iterdir()}
        figures = {
            f"{name}{suffix}"
            for name in ("metrics", "heads", "reach", "recall")
            for suffix in (".png", ".svg")
        }
        assert names == {"contexts.csv", "heads.csv", "degradation.json", *figures}
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


class TestCheck:
    def test_json(self, run: Run) -> None:
        code, out, err = run("check", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["kernel"]["ok"]
        assert found["hardware"]["instruction_set"]
        assert {entry["package"] for entry in found["packages"]} == {each.package for each in for_users()}
        assert next(e for e in found["packages"] if e["package"] == "rich")["version"]

    def test_text(self, run: Run) -> None:
        code, out, _ = run("check")
        assert code == 0
        for needed in ("agrees with the reference", "instruction set", "threads", "onednn", "Models"):
            assert needed in out

    def test_models_in_the_hub_cache(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, kind in (("models--org--mine", "bert"), ("models--org--other", "gpt2")):
            folder = tmp_path / "hub" / name / "snapshots" / "0"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        names = [m["name"] for m in json.loads(run("check", "--json")[1])["models"]]
        assert "org/mine" in names
        assert "org/other" not in names


class TestAll:
    def test_collects_every_part(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        code, out, err = run(
            "all", "--model", model, "--text", text, "--lengths", "30,60", "--json", "--out", "o"
        )
        assert code == 0, err
        data = json.loads(out)
        assert list(data) == ["check", "demo", "paper"]
        assert data["demo"]["model"]["layers"] == 2
        assert (tmp_path / "o" / "degradation.json").is_file()
        assert "not run, because they take minutes: rattention visualize, compress, ad, lra" in err

    def test_simple_takes_the_place_of_a_demo_that_failed(self, run: Run, tmp_path: Path) -> None:
        code, out, err = run("all", "--model", "./no/such", "--lengths", "60", "--json")
        assert code == 2
        data = json.loads(out)
        assert data["demo"] is None
        assert data["simple"]["model"]["synthetic"]
        assert (tmp_path / "figs" / "degradation" / "simple" / "degradation.json").is_file()
        assert data["paper"]
        assert "demo did not finish" in err


class TestWidth:
    """Nothing but paths and examples is wider than the terminal."""

    @pytest.mark.parametrize("columns", [80, 60])
    @pytest.mark.parametrize(
        "argv",
        [
            ("check",),
            ("demo", "--lengths", "30,60"),
            ("demo", "--simple", "--lengths", "60,120,...,480"),
            ("paper",),
            ("visualize", "--samples", "2", "--length", "20", "--dpi", "30", "--no-report"),
            ("compress", "--model", "bert", "--prefix", "30"),
            *(((*name.split(), "--help")) for name in ("demo", "visualize", "ad train", "lra run", "lra")),
        ],
        ids=" ".join,
    )
    def test_lines_fit(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, model: str, argv: tuple[str, ...], columns: int
    ) -> None:
        for module in ("rich", "matplotlib", "torch", "transformers", "sklearn"):
            pytest.importorskip(module, reason=f"needs {module}")
        monkeypatch.setenv("COLUMNS", str(columns))
        if argv[0] in ("demo", "visualize", "compress") and not {"--simple", "--help"} & {*argv}:
            argv = (*(word for word in argv if word not in ("--model", "bert")), "--model", model)
        code, out, err = run(*argv)
        assert code == 0, err
        wide = [line for line in out.splitlines() if len(line) > columns]
        assert not [line for line in wide if "/" not in line and not line.startswith("  rattention ")]
