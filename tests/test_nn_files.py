"""Models of rattention.nn in files: what is saved comes back, and damaged files are told apart."""

from __future__ import annotations

import json

import pytest

from tests.extras import needs

needs("torch")

import rattention.nn as rn
import safetensors.torch as safetensors_torch
import torch
from rattention.models.folder import WeightsError

from tests.nn_models import TEXT, by_pattern, language_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.row("W4")
@by_pattern
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load(pattern, dtype, tmp_path):
    """Bit for bit, in the dtype, trainable, and no temporary file stays."""
    model = language_model(pattern).to(dtype).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = rn.LanguageModel.load(tmp_path / "model.safetensors").eval()
    assert torch.equal(loaded(TEXT), model(TEXT))
    assert [(n, p.dtype, p.requires_grad) for n, p in loaded.named_parameters()] == [
        (n, p.dtype, p.requires_grad) for n, p in model.named_parameters()
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.row("W4")
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = language_model("softmax"), tmp_path / "model.safetensors"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(
        safetensors_torch, "save_file", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert len([*tmp_path.iterdir()]) == 1


def damaged(path, case):
    model = language_model("rattention")
    tensors, config = dict(model.state_dict()), dict(model.config)
    if case == "missing":
        del tensors["embedding.weight"]
    elif case == "extra":
        tensors["more"] = torch.zeros(2)
    elif case == "shape":
        tensors["embedding.weight"] = torch.zeros(3, 3)
    elif case == "unknown option":
        config["colour"] = "red"
    elif case == "another option":
        config["pattern"] = [{"mechanism": "multi_timescale", "learn_timescales": True}]
    elif case == "huge":
        config["vocabulary"] = 10**12
    metadata = {} if case == "no config" else {"rattention.config": json.dumps(config)}
    safetensors_torch.save_file(tensors, path, metadata)
    if case == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.mark.row("W4")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "Missing key.*embedding.weight"),
        ("extra", "Unexpected key.*more"),
        ("shape", "size mismatch for embedding.weight"),
        ("unknown option", "colour"),
        ("another option", "mechanism 'multi_timescale' has no option learn_timescales"),
        ("huge", "size mismatch"),
        ("no config", "not written by save"),
        ("cut off", "cannot be read"),
    ],
)
def test_damaged_files(case, message, tmp_path):
    with pytest.raises(WeightsError, match=f"(?s){message}"):
        rn.LanguageModel.load(damaged(tmp_path / "model.safetensors", case))


def test_no_such_file(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        rn.LanguageModel.load(tmp_path / "none")
