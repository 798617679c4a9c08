"""rattention compress: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json

import pytest

from tests.extras import needs

needs("studies")

import rattention as ra
from rattention.cli import main
from rattention.cli.compress import ranges
from rattention.compression import STRATEGIES

from tests.bert_folder import write_folder
from tests.compressed_models import WORDS, native

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ranges():
    assert ranges([0, 1, 2, 5, 9, 10]) == "0-2, 5, 9-10"
    assert ranges(range(0, 30, 2)) == "0, 2, ..., 26, 28"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.safetensors"
    native().save(path)
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(WORDS)
    return path


def command(capsys, *words):
    code = main(["compress", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_command_shows_what_is_kept(capsys, model_file, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--model", model_file, "--text", text, "--prefix", 40, "--budget", "0.5,8")
    code, out, err = command(capsys, *words)
    assert (code, err) == (0, "")
    for name in STRATEGIES:
        assert f" {name} " in out
    assert "20-39" in out
    code, out, _ = command(capsys, *words, "--json")
    data = json.loads(out)
    assert len(data["kept"]) == 2 * len(STRATEGIES)
    first = data["kept"][0]
    assert (first["strategy"], first["budget"], first["tokens"]) == ("recency", 0.5, 40)
    assert first["positions"]["encoder.layers.3.attention head 1"] == list(range(20, 40))
    assert data["versions"]["rattention"] == ra.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_command_validates(capsys, model_file, text, tmp_path):
    out = tmp_path / "figs"
    words = ("--model", model_file, "--text", text, "--prefix", 30, "--continuation", 4, "--batch", 1)
    words += (
        "--validate",
        "--seeds",
        2,
        "--budget",
        "0.25,0.5",
        "--strategy",
        "recency,clusters",
        "--out",
        out,
    )
    code, shown, _ = command(capsys, *words)
    assert code == 0
    assert "mean of 2 seeds" in shown
    assert "t budget 0.5" in shown
    data = json.loads((out / "compression.json").read_text())
    assert data["seeds"] == [0, 1]
    assert len(data["trials"]) == 8
    assert data["configuration"]["continuation"] == 4
    with (out / "compression.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["budget"]) for row in rows][:2] == [("recency", "0.25"), ("recency", "0.5")]
    for row, cell in zip(rows, data["cells"], strict=True):
        assert float(row["share"]) == pytest.approx(cell["share"]["mean"])
        assert float(row["kl_low"]) == pytest.approx(cell["kl"]["low"])
    names = {path.name for path in out.iterdir()}
    assert {"compression.json", "compression.csv", "compression.png", "compression.svg"} == names


def test_command_on_a_bert(capsys, tmp_path, text):
    folder = write_folder(tmp_path / "bert")
    code, out, _ = command(capsys, "--model", folder, "--text", text, "--prefix", 30, "--budget", "0.5")
    assert code == 0
    assert "recent+clusters" not in out  # tokens have no means
    assert "representatives" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy", "best"), "strategy must be one of recency"),
        (("--budget", "0"), "at least 1 token"),
        (("--budget", "1.5"), "share in (0, 1]"),
        (("--budget", "nan"), "--budget must be counts"),
        (("--budget", "500"), "at most the 40 tokens"),
        (("--validate", "--seeds", "0"), "--seeds must be >= 1"),
        (("--seed", "-1"), "--seed must be between 0 and 4294967295, got -1"),
        (("--prefix", "100000"), "fewer than prefix and continuation"),
        (("--checkpoint", "x.safetensors"), "exclude each other"),
    ],
)
def test_command_mistakes(capsys, model_file, text, words, message):
    code, _, err = command(
        capsys,
        "--model",
        model_file,
        "--text",
        text,
        *(() if "--prefix" in words else ("--prefix", "40")),
        *words,
    )
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_command_needs_a_model(capsys, tmp_path, text, model_file):
    code, _, err = command(capsys, "--model", tmp_path / "none.safetensors")
    assert code == 2
    assert "none.safetensors" in err
    code, _, err = command(capsys, "--text", text)
    assert code == 2
    assert "--text is for --model" in err
    odd = tmp_path / "odd.txt"
    odd.write_text("über alles " * 40)
    code, _, err = command(capsys, "--model", model_file, "--text", odd)
    assert code == 2
    assert "texts are read as bytes" in err
