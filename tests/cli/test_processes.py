"""The command line as processes of their own: streams, signals, full disks, and what is not installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rattention import __version__
from rattention.cli.parser import COMMANDS

from tests.bert_folder import write_folder
from tests.extras import needs


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    settings: dict[str, Any] = {
        "capture_output": True,
        "text": True,
        "timeout": 120,
        "check": False,
    } | options
    return subprocess.run([sys.executable, "-m", "rattention", *argv], **settings)


# What stays importable when nothing but NumPy is installed.
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
    "rich",
    "jinja2",
    "pandas",
    "scipy",
    "sklearn",
    "tqdm",
    "tyro",
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
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class TestLean:
    def test_check_and_simple_need_numpy_alone(self, tmp_path: Path) -> None:
        done = without(EXTRAS, "check", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "agrees with the reference" in done.stdout
        done = without(EXTRAS, "demo", "--simple", "--lengths", "20,60", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "note: no figures: matplotlib is needed here" in done.stderr
        assert (tmp_path / "figs" / "degradation" / "contexts.csv").is_file()
        assert max(map(len, done.stdout.splitlines())) <= 80

    def test_nothing_else_is_imported(self, tmp_path: Path) -> None:
        """Also where it is installed: what a command does not need costs it no time."""
        code = (
            "import sys; from rattention.cli import main; main(['demo', '--help']); "
            "print(*({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not {"rich", "torch", "transformers", "matplotlib", "pandas"} & {*done.stdout.split()[-40:]}

    def test_help_needs_no_extra(self, tmp_path: Path) -> None:
        for name in COMMANDS:
            assert without(EXTRAS, name, "--help", cwd=tmp_path).returncode == 0

    @pytest.mark.parametrize("missing", ["tokenizers", "safetensors"])
    def test_missing_extra_is_named(self, tmp_path: Path, missing: str) -> None:
        needs("models")
        model = str(write_folder(tmp_path / "bert"))
        done = without({missing}, "demo", "--model", model, cwd=tmp_path)
        assert done.returncode == 1
        assert missing in done.stderr
        assert "pip install 'rattention[models]'" in done.stderr
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

    def test_progress_is_on_stderr_of_a_terminal(self, tmp_path: Path) -> None:
        needs("cli")
        pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
        ours, theirs = pty.openpty()
        done = process(
            *("demo", "--simple", "--lengths", "60,120", "--json"),
            cwd=tmp_path,
            capture_output=False,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"},
        )
        os.close(theirs)
        assert json.loads(done.stdout)["contexts"]
        assert b"contexts" in os.read(ours, 65536)
        os.close(ours)
