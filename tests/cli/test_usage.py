"""The command line: help, and one line and exit code 2 for a mistake."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rattention import __version__
from rattention._files import MOST_TEXT
from rattention.cli.options import Command, Group
from rattention.cli.parser import COMMANDS

from tests.extras import needs

if TYPE_CHECKING:
    from tests.cli.conftest import Run


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

    def test_a_traceback_where_it_is_asked_for(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RATTENTION_TRACEBACK", "1")
        code, out, err = run("demo", "--simple", "--lengths", "2")
        assert (code, out) == (2, "")
        assert err.startswith("Traceback (most recent call last)")
        assert "at least 3 tokens, got 2" in err.splitlines()[-1]

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
        needs("models")
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

    def test_text_from_a_pipe(self, run: Run, model: str, text: str, tmp_path: Path) -> None:
        """As a shell gives it for <(...) and for /dev/stdin."""
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(Path(text).read_bytes(),))
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
