"""What the tests of the command line share: a way to run it, a small model, a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rattention import _files
from rattention.cli import main

from tests.bert_folder import write_folder
from tests.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@pytest.fixture
def drawn() -> None:
    """Asked for by tests that look at figures."""


@pytest.fixture(autouse=True)
def sketched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others get empty files: to draw those of one command takes ten seconds."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(_files, "save_figure", lambda path, figure, dpi=200: path.touch())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random BERT: 2 layers of 3 heads, 64 positions."""
    needs("models")
    return str(write_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return str(path)
