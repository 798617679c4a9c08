"""``rattention explore``: a page that is written, a server that ends with Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from tests.cli.test_processes import heed_interrupts
from tests.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Run

needs("models")


def test_page_in_a_file(run: Run, model: str, text: str, tmp_path: Path) -> None:
    code, out, err = run("explore", text, "--model", model, "--html", "page.html", "--json")
    assert code == 0
    data = json.loads(out)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert data["bytes"] == (tmp_path / "page.html").stat().st_size
    assert data["tokens"] == 64
    assert 'data-ask="document"' in page
    assert "the model has 64 positions" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("a.txt", "b.txt"), "one text is read at a time, got 2"),
        (("--port", "70000"), "--port must be from 0 to 65535, got 70000"),
        (("none.txt",), "none.txt: No such file"),
        (("--model", "nowhere", "--html", "x.html"), "nowhere"),
        (("--model", "nowhere", "--html", "none/x.html"), "none/x.html: cannot be written: No such file"),
        (("--model", "nowhere", "--html", "."), ".: cannot be written: Is a directory"),
    ],
)
def test_bad_usage(run: Run, argv: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, out, err = run("explore", *argv)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "x.html").exists()


def test_empty_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    code, _, err = run("explore", "empty.txt")
    assert code == 2
    assert "empty.txt is empty" in err


def test_server(tmp_path: Path, model: str) -> None:
    """Its first line says where it is; Ctrl-C ends it."""
    needs("explore")
    command = [sys.executable, "-m", "rattention", "explore", "--model", model, "--no-browser", "--json"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as running:
        try:
            address = json.loads(running.stdout.readline())["address"]
            with urlopen(address, timeout=30) as page:
                assert b"<title>Attention explorer</title>" in page.read()
            with urlopen(Request(f"{address}api/document", headers={"X-Explorer": "1"}), timeout=60) as got:
                assert b'"tokens": 64' in got.read()
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert err.strip() in ("", "rattention: interrupted")


def test_port_in_use(run: Run, model: str, text: str) -> None:
    needs("explore")
    from rattention.explorer.server import listening

    with listening(0) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("explore", text, "--model", model, "--port", str(port), "--no-browser")
    assert code == 1
    assert f"port {port} cannot be used" in err


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Folders of small Llamas that read bytes, 64 positions, of a given class."""
    needs("hf")
    import transformers

    from tests.hf_models import build, byte_tokenizer

    def folder(kind: str) -> str:
        place = tmp_path_factory.mktemp(kind)
        config = build("llama", vocab_size=257, max_position_embeddings=64).config
        getattr(transformers, kind)(config).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
        return str(place)

    return folder


def test_the_answer_in_a_file(run: Run, causal: Callable[..., str], tmp_path: Path) -> None:
    Path("short.txt").write_text("Row, row.", "utf-8")
    options = ("--generate", "20", "--temperature", "1.5", "--seed", "7", "--html", "page.html", "--json")
    code, out, _ = run("explore", "short.txt", "--model", causal("LlamaForCausalLM"), *options)
    data = json.loads(out)
    assert (code, data["tokens"], data["generated"]) == (0, 29, 20)
    assert data["how"] == "sampled at temperature 1.5, seed 7"


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("LlamaForCausalLM", ("--generate", "56"), "generate must be at most 55: the model has 64 positions"),
        ("LlamaForCausalLM", ("--generate", "-3"), "--generate must be >= 0, got -3"),
        ("LlamaForCausalLM", ("--generate", "3", "--temperature", "x"), "--temperature must be a number"),
        ("LlamaForSequenceClassification", ("--generate", "3"), "holds no causal model"),
        ("bert", ("--generate", "3"), "generate is for causal language models"),
    ],
)
def test_what_cannot_be_generated(
    run: Run, causal: Callable[..., str], model: str, kind: str, options: tuple[str, ...], said: str
) -> None:
    Path("short.txt").write_text("Row, row.", "utf-8")
    folder = model if kind == "bert" else causal(kind)
    code, out, err = run("explore", "short.txt", "--model", folder, *options, "--html", "page.html")
    assert (code != 0, out) == (True, "")
    assert said in err
    assert not Path("page.html").exists()
