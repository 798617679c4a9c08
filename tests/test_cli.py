"""The command line: exit codes, one line for a mistake, JSON alone on stdout, plain text where it must be."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("tyro", reason="needs the extra 'cli'")

from rattention import __version__
from rattention.cli import main
from rattention.cli.commands import COMMANDS
from rattention.cli.installed import OPTIONAL
from rattention.cli.numbers import whole_numbers
from rattention.cli.terminal import Style, table

from tests.bert_folder import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).resolve().parents[1]
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


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    settings: dict[str, Any] = {
        "capture_output": True,
        "text": True,
        "timeout": 120,
        "check": False,
    } | options
    return subprocess.run([sys.executable, "-m", "rattention", *argv], **settings)


class TestHelp:
    def test_lists_every_subcommand(self, run: Run) -> None:
        code, out, err = run("--help")
        assert code == 0
        assert err == ""
        assert all(name in out for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_teaches(self, run: Run, name: str) -> None:
        code, out, _ = run(name, "--help")
        assert code == 0
        for needed in (f"rattention {name}", "Examples:", "Exit codes: 0 done, 1 failed", "2 wrong usage"):
            assert needed in out

    @pytest.mark.parametrize("name", COMMANDS)
    def test_examples_name_options_that_exist(self, run: Run, name: str) -> None:
        _, out, _ = run(name, "--help")
        shown = out.partition("options ")[2]
        for example in COMMANDS[name].examples:
            for word in example.partition("#")[0].split():
                assert not word.startswith("--") or word in shown

    def test_version(self, run: Run) -> None:
        assert run("--version") == (0, f"rattention {__version__}\n", "")


class TestUsage:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            ((), "Expected one of"),
            (("degrade",), "degrade"),
            (("demo", "--lenghts", "50"), "perhaps you meant --lengths"),
            (("demo", "--seed", "1.5"), "--seed"),
            (("demo", "--thresholds.entropy", "high"), "--thresholds.entropy"),
            (("demo", "--thresholds.entropy", "nan"), "finite"),
            (("demo", "--simple", "--lengths", "50,,100"), "--lengths must be whole numbers"),
            (("demo", "--simple", "--lengths", "many"), "--lengths must be whole numbers"),
            (("demo", "--simple", "--lengths", ""), "--lengths must be whole numbers"),
            (("demo", "--simple", "--lengths", "2,50"), "at least 3 tokens, got 2"),
            (("demo", "--simple", "--lengths", "-7"), "at least 3 tokens, got -7"),
            (("demo", "--simple", "--layer", "4"), "layer 4 does not exist: there are 4"),
            (("demo", "--simple", "--head", "0,8"), "head 8 does not exist: there are 8"),
            (("demo", "--simple", "--head", "all"), "--head must be whole numbers"),
            (("demo", "--simple", "--seed", "-1"), "--seed must be >= 0"),
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
            (None, "No such file"),
        ],
    )
    def test_no_text(self, run: Run, tmp_path: Path, model: str, content: bytes | None, said: str) -> None:
        path = tmp_path / "odd.txt"
        if content is not None:
            path.write_bytes(content)
        self.refused(run("demo", "--model", model, "--text", str(path)), said, "odd.txt")

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
        assert data["configuration"]["lengths"] == "30,45,64"
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
        typed = "the cat sat\non a mat.\n\nnot read\n"
        code, out, err = self.turns(run, monkeypatch, typed, "--model", model, "--json")
        assert code == 0, err
        data = json.loads(out)
        assert [c["sequence_length"] for c in data["contexts"]] == [5, 9]
        assert data["contexts"][1]["retention_change"] is not None

    def test_full_positions(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        long, short = "the cat " * 28, "a dog"
        code, out, err = self.turns(
            run, monkeypatch, f"{long}\n{long}\n{short}\n", "--model", model, "--json"
        )
        assert code == 0
        assert [c["sequence_length"] for c in json.loads(out)["contexts"]] == [58, 60]
        assert "64 positions are full: this turn is left out" in err

    def test_marks_for_people(self, run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        code, out, _ = self.turns(run, monkeypatch, "the cat sat\n", "--model", model)
        assert code == 0
        assert "poor long-range" in out

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
        assert {entry["package"] for entry in found["packages"]} == set(OPTIONAL)
        assert next(e for e in found["packages"] if e["package"] == "tyro")["version"]

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

    def test_extras_are_those_of_the_project(self) -> None:
        with (ROOT / "pyproject.toml").open("rb") as file:
            extras = tomllib.load(file)["project"]["optional-dependencies"]
        for package, (extra, _) in OPTIONAL.items():
            assert any(requirement.startswith(f"{package}>=") for requirement in extras[extra]), package
        offered = ("models", "torch", "hf", "plots", "cli", "pdf")
        listed = {r.partition(">=")[0] for extra in offered for r in extras[extra]}
        assert listed - {"rattention[torch]"} == set(OPTIONAL)


class TestAll:
    def test_collects_every_part(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        code, out, err = run(
            "all", "--model", model, "--text", text, "--lengths", "30,60", "--json", "--out", "o"
        )
        assert code == 0, err
        data = json.loads(out)
        assert list(data) == ["check", "demo", "simple", "paper"]
        assert data["demo"]["model"]["layers"] == 2
        assert data["simple"]["model"]["synthetic"]
        assert (tmp_path / "o" / "degradation.json").is_file()
        assert (tmp_path / "o" / "simple" / "degradation.json").is_file()

    def test_goes_on_after_a_part_that_failed(self, run: Run) -> None:
        code, out, err = run("all", "--model", "./no/such", "--lengths", "60", "--json")
        assert code == 2
        data = json.loads(out)
        assert data["demo"] is None
        assert data["simple"]["contexts"]
        assert data["paper"]
        assert "demo did not finish" in err


# What stays importable when nothing but NumPy and tyro is installed.
LEAN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from rattention.cli import main
sys.exit(main(sys.argv[1:]))
"""
EXTRAS = {
    "tqdm",
    "matplotlib",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "pypdf",
    "torch",
    "transformers",
}


def without(missing: set[str], *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = LEAN.format(missing=missing)
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


class TestLean:
    def test_check_and_simple_need_numpy_and_tyro_alone(self, tmp_path: Path) -> None:
        assert without(EXTRAS, "check", cwd=tmp_path).returncode == 0
        done = without(EXTRAS, "demo", "--simple", "--lengths", "20,60", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "note: no figures: matplotlib is needed here" in done.stderr
        assert (tmp_path / "figs" / "degradation" / "contexts.csv").is_file()

    def test_help_needs_no_extra(self, tmp_path: Path) -> None:
        for name in COMMANDS:
            assert without(EXTRAS, name, "--help", cwd=tmp_path).returncode == 0

    @pytest.mark.parametrize("missing", ["tokenizers", "safetensors"])
    def test_missing_extra_is_named(self, tmp_path: Path, model: str, missing: str) -> None:
        done = without({missing}, "demo", "--model", model, cwd=tmp_path)
        assert done.returncode == 1
        assert missing in done.stderr
        assert "pip install 'rattention[models]'" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_without_tyro(self, tmp_path: Path) -> None:
        done = without({"tyro"}, "check", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.strip().endswith("install it with: pip install 'rattention[demo]'")
        assert done.stderr.count("\n") == 1


def heed_interrupts() -> None:
    """Shells start what runs in the background with interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestProcess:
    """What only a process of its own shows."""

    def test_module_and_exit_codes(self, tmp_path: Path) -> None:
        assert process("--version").stdout == f"rattention {__version__}\n"
        assert process("demo", "--lengths", "x", "--simple", cwd=tmp_path).returncode == 2

    def test_json_is_alone_on_stdout(self, tmp_path: Path) -> None:
        done = process("demo", "--simple", "--lengths", "20,60", "--json", cwd=tmp_path)
        assert done.returncode == 0
        assert json.loads(done.stdout)["contexts"]
        assert "note:" in done.stderr

    @pytest.mark.parametrize(
        "environment", [{"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
    )
    @pytest.mark.parametrize(
        "argv", [("demo", "--simple", "--lengths", "20,60"), ("check",), ("demo", "--help")]
    )
    def test_plain_text(self, tmp_path: Path, environment: dict[str, str], argv: tuple[str, ...]) -> None:
        done = process(*argv, cwd=tmp_path, env=os.environ | environment, text=False)
        assert done.returncode == 0, done.stderr
        if argv[-1] == "--help" and "NO_COLOR" in environment:
            return  # tyro draws boxes in UTF-8 without colours
        assert done.stdout.isascii()

    def test_a_name_that_cannot_be_shown(self, tmp_path: Path) -> None:
        done = process(
            "demo",
            "--simple",
            "--lengths",
            "60",
            "--out",
            "Größe",
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
        assert done.returncode == 0, done.stderr
        assert "Gr\\xf6\\xdfe: contexts.csv" in done.stdout

    def test_symbols_where_they_can_be_shown(self, tmp_path: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"PYTHONIOENCODING": "utf-8"}
        done = process("demo", "--simple", "--lengths", "60", cwd=tmp_path, env=environment, encoding="utf-8")
        assert "✓ good spread" in done.stdout
        assert "\x1b" not in done.stdout

    def test_interrupt(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "rattention", "demo", "--simple", "--lengths", "100,200,...,20000"]
        with subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
        ) as running:
            while not (tmp_path / "figs").exists():  # made just before the work begins
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            try:
                _, err = running.communicate(timeout=60)
            finally:
                running.kill()
        assert running.returncode == 130
        assert err == "rattention: interrupted\n"

    def test_reader_that_leaves(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "rattention", "check", "--json"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            running.stdout.close()
            err = running.stderr.read()
        assert running.returncode == 1
        assert err == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_disk(self, tmp_path: Path) -> None:
        with open("/dev/full", "w") as full:
            done = process("check", cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        assert done.returncode == 1
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("50", (50,)),
            (" 50, 100 ", (50, 100)),
            ("50,100,...,300", (50, 100, 150, 200, 250, 300)),
            ("50,100,...,220", (50, 100, 150, 200, 220)),
            ("8,50,100,...,200", (8, 50, 100, 150, 200)),
            ("1,2,...,2", (1, 2)),
        ],
    )
    def test_lists(self, text: str, numbers: tuple[int, ...]) -> None:
        assert whole_numbers("lengths", text) == numbers

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "1.5",
            "1,",
            "...",
            "5,...,9",
            "5,4,...,1",
            "5,5,...,9",
            "1,2,...",
            "1,2,...,5,6",
            "1,2,...,99999999",
        ],
    )
    def test_no_lists(self, text: str) -> None:
        with pytest.raises(ValueError, match="--lengths must be whole numbers"):
            whole_numbers("lengths", text)


class TestTerminal:
    def test_bars(self) -> None:
        fine, plain = Style(True, False), Style(False, False)
        assert [fine.bar(s, 4) for s in (0, 0.5, 1, 2, -1)] == ["    ", "██  ", "████", "████", "    "]
        assert fine.bar(0.53125, 4) == "██▏ "
        assert [plain.bar(s, 4) for s in (0, 0.5, 1)] == ["....", "##..", "####"]

    def test_table_aligns(self) -> None:
        shown = table(("a\nunit", "b", ""), [("1", "22", "x"), ("333", "4", "y")], Style(False, False))
        assert shown == "     a   b\n  unit\n     1  22  x\n   333   4  y"
