"""rattention visualize of a transformer of histories, and what it refuses."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.studies.dark_room import HistoryTransformer

from tests.visualized import figure_names, files_in, visualized


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = HistoryTransformer(states=81, actions=5, context=30, dim=16, heads=2, depth=2)
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def act(checkpoint, tmp_path, *more):
    sizes = ["--samples", "3", "--dpi", "40", "--layer", "1", "--out", tmp_path / "out", "--json"]
    return ["visualize", "--checkpoint", checkpoint, *sizes, *more]


def test_a_transformer_of_histories(checkpoint, capsys, tmp_path):
    code, out, _ = visualized(act(checkpoint, tmp_path), capsys)
    assert code == 0
    data = json.loads(out)
    assert [row["sequence_length"] for row in data["samples"]] == [31, 31, 31]
    assert len(set(data["model"]["goals"])) == 3
    assert figure_names(1, 2, "png", [1]) <= files_in(tmp_path / "out")
    _, again, _ = visualized(act(checkpoint, tmp_path, "--no-report"), capsys)
    _, other, _ = visualized(act(checkpoint, tmp_path, "--no-report", "--seed", "1"), capsys)
    assert json.loads(again)["heads"] == data["heads"] != json.loads(other)["heads"]


BAD_CHECKPOINTS = {
    "more samples than goals": (
        ["--samples", "82"],
        r"1 and \d+ \(goals that it was not trained on\), got 82",
    ),
    "no samples": (["--samples", "0"], r"--samples must be between 1 and \d+ .* got 0"),
    "more than the context": (["--length", "31"], r"--length must be between 1 and 30 .*got 31"),
    "a text": (["--text", "a.txt"], "--text is for --model"),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_input_for_histories(checkpoint, capsys, tmp_path, case):
    options, message = BAD_CHECKPOINTS[case]
    code, out, err = visualized(act(checkpoint, tmp_path, *options), capsys)
    assert (code, out) == (2, "")
    assert re.search(message, err)


def test_no_checkpoint(checkpoint, capsys, tmp_path):
    missing = tmp_path / "missing.safetensors"
    code, _, err = visualized(act(missing, tmp_path), capsys)
    assert code == 2
    assert f"there is no checkpoint {missing}: make one with: rattention ad train" in err


def test_a_damaged_checkpoint(checkpoint, capsys, tmp_path):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    code, _, err = visualized(act(checkpoint, tmp_path), capsys)
    assert code == 2
    assert "cannot be read" in err
    assert "Traceback" not in err
    assert sys.exception() is None
