"""Trainings of ``rattention lm`` that are killed or interrupted go on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention._files import write_json
from rattention.studies.kit.settings import read_lines
from rattention.studies.lm import Corpus, Variant
from rattention.studies.lm.batches import TextBatches
from rattention.studies.lm.settings import Training
from rattention.studies.lm.training import LmTrainer, load, train

from tests.lm_studies import SIZE, TRAINING, without_times, write_texts
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")

VARIANT = Variant("rattention_gated", 4, "3:1")


def trained(source, folder, **changes):
    data = Corpus(str(source)).load()
    batches = TextBatches(data, TRAINING.context, TRAINING.batch, 0, task_share=0.0)
    options = {"seed": 3, "rate": 1e-2, "steps": TRAINING.steps} | changes
    return train(VARIANT, SIZE, 256, batches, TRAINING, folder, **options)


def everything(folder):
    lines, damaged = read_lines(folder / "metrics.jsonl")
    assert damaged == []
    return without_times(lines), load(folder).state_dict()


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts") / "texts")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def straight(source, tmp_path):
    trained(source, tmp_path / "straight")
    return everything(tmp_path / "straight")


DYING = """
import os, signal, sys
from pathlib import Path

from rattention.studies.lm import training
from tests.test_lm_training import trained
import torch

torch.set_num_threads(1)
OWNERS = {"after_step": training.LmTrainer, "save_checkpoint": training, "save_model": training}
source, folder, name, left = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
function = getattr(OWNERS[name], name)

def dying(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)

setattr(OWNERS[name], name, dying)
trained(source, folder)
"""


@pytest.mark.parametrize(
    ("name", "call", "left"),
    [
        ("after_step", 1, [1, 2, 3, 4, 5, 6]),
        ("after_step", 4, [3, 4, 5, 6]),
        ("save_checkpoint", 2, [3, 4, 5, 6]),
        ("save_checkpoint", 3, [5, 6]),
        ("save_model", 1, []),
    ],
)
def test_killed_and_resumed_is_uninterrupted(source, tmp_path, straight, name, call, left, monkeypatch):
    command = [sys.executable, "-c", DYING, source, str(tmp_path / "run"), name, str(call)]
    died = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (tmp_path / "run" / "trained.json").exists()
    steps, after = [], LmTrainer.after_step
    monkeypatch.setattr(
        LmTrainer, "after_step", lambda self, bar: (steps.append(self.step), after(self, bar))
    )
    trained(source, tmp_path / "run")
    assert steps == left
    assert_same(everything(tmp_path / "run"), straight)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_ctrl_c_keeps_the_last_checkpoint(source, tmp_path, straight, monkeypatch):
    after = LmTrainer.after_step

    def pressed(self, bar):
        after(self, bar)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LmTrainer, "after_step", pressed)
    with pytest.raises(KeyboardInterrupt):
        trained(source, tmp_path / "run")
    monkeypatch.undo()
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")[0]] == [1, 2]


def test_a_damaged_checkpoint_is_passed_over(source, tmp_path, straight, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("rattention.studies.lm.training.save_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(source, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run" / "checkpoints" / "step-6.pt").write_bytes(b"damaged")
    trained(source, tmp_path / "run")
    assert_same(everything(tmp_path / "run"), straight)


def test_a_finished_training_is_not_repeated(source, tmp_path):
    first = trained(source, tmp_path / "run")
    marked = first | {"steps": -1}
    write_json(tmp_path / "run" / "trained.json", marked)
    assert trained(source, tmp_path / "run") == marked


def test_a_line_per_step_and_a_record(source, tmp_path):
    numbers = trained(source, tmp_path / "run")
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(len(line["offsets"]) == TRAINING.batch for line in lines)
    assert numbers["tokens"] == 6 * TRAINING.batch * TRAINING.context
    assert numbers == json.loads((tmp_path / "run" / "trained.json").read_text())
    assert numbers["parameters"] == sum(p.numel() for p in load(tmp_path / "run").parameters())


def test_it_learns(source, tmp_path):
    numbers = trained(source, tmp_path / "run", steps=60)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert numbers["last_train_loss"] < lines[0]["loss"] - 1


def test_the_seed_sets_the_weights(source, tmp_path):
    for seed in (0, 1):
        trained(source, tmp_path / str(seed), seed=seed, steps=1)
    one, two = (load(tmp_path / name).embedding.weight for name in "01")
    assert not torch.equal(one, two)


def test_rates():
    training = Training(warmup_share=0.1, floor=0.1)
    rates = [training.rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == max(rates) == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.2 <= rates[-1] < 0.21


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"rates": ()}, "rates"),
        ({"floor": 2.0}, "floor"),
        ({"context": 1}, "context"),
    ],
)
def test_settings_are_checked(changes, says):
    with pytest.raises(ValueError, match=says):
        Training(**changes)
