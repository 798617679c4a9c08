"""Training in the comparison: numbers, files, what a kill leaves, and what stops a run."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.studies.kit.training import FAILED_BATCH
from rattention.studies.lra import MECHANISMS, ListOps, SequenceClassifier, Split, Study
from rattention.studies.lra.data import TrainingBatches, collate, in_order_of_length
from rattention.studies.lra.measuring import PeakMemory, attention_by_head, longest_samples
from rattention.studies.lra.training import do_run, evaluate, new_model
from safetensors.torch import load_file

from tests.lra_runs import (
    SIZE,
    TRAINING,
    everything,
    lines,
    ragged,
    spoil_in_step,
    straight_run,
    tiny_run,
    tiny_task,
)
from tests.processes import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return straight_run(tmp_path_factory.mktemp("straight"))


class TestBatches:
    def test_every_sample_once_an_epoch(self):
        split = ragged(45, 0)
        batches = TrainingBatches(split, 8, seed=3, rank=0, ranks=1)
        seen = np.concatenate(batches.indices())
        assert sorted(seen) == list(range(45))
        assert [len(batch["labels"]) for batch in batches] == [len(i) for i in batches.indices()]
        assert len(batches) == 6

    def test_alike_in_length_and_in_another_order_each_epoch(self):
        split = ragged(400, 0, longest=100)
        batches = TrainingBatches(split, 8, seed=3, rank=0, ranks=1)
        first, padding = batches.indices(), 0.0
        for batch in batches:
            padding += 1 - float(batch["lengths"].sum()) / batch["tokens"].numel()
        assert padding / len(batches) < 0.05
        mixed = TrainingBatches(split, 8, seed=3, rank=0, ranks=1, pool=1)
        assert np.mean([np.ptp(split.lengths[i]) for i in mixed.indices()]) > 60
        assert sorted(np.concatenate(mixed.indices())) == list(range(400))
        batches.epoch = 1
        assert any((a != b).any() for a, b in zip(first, batches.indices(), strict=True) if len(a) == len(b))
        batches.epoch = 0
        assert all((a == b).all() for a, b in zip(first, batches.indices(), strict=True))

    @pytest.mark.parametrize("ranks", [2, 3])
    @pytest.mark.parametrize("samples", [16, 17, 21])
    def test_ranks_share_every_batch(self, ranks, samples):
        split = ragged(samples, 0)
        whole = TrainingBatches(split, 8, 0, 0, ranks)
        parts = [list(TrainingBatches(split, 8, 0, rank, ranks)) for rank in range(ranks)]
        assert len({len(part) for part in parts}) == 1
        for indices, *shares in zip(whole.indices(), *parts, strict=True):
            labels = Counter(label for part in shares for label in part["labels"].tolist())
            assert labels == Counter(split.labels[indices].tolist())
            assert all(len(part["labels"]) for part in shares)
            assert sum(part["share"] for part in shares) == pytest.approx(ranks)

    def test_padding_is_behind(self):
        split = ragged(9, 0)
        batch = collate(split, np.array([3, 0, 5]))
        for row, length, index in zip(batch["tokens"], batch["lengths"], (3, 0, 5), strict=True):
            assert row[:length].tolist() == split[index][0].tolist()
            assert not row[length:].any()
        assert batch["tokens"].dtype == batch["labels"].dtype == torch.int64


class TestEvaluation:
    def test_is_the_mean_over_samples(self):
        data = tiny_task()
        model = new_model(tiny_run("gravitational"), data)
        one_by_one = [model.eval()(**collate(data.test, np.array([i]))) for i in range(len(data.test))]
        loss, accuracy = evaluate(model.train(), data.test, 8)
        assert model.training
        assert loss == pytest.approx(np.mean([o["loss"].item() for o in one_by_one]), rel=1e-5)
        right = [int(o["logits"].argmax()) == data.test[i][1] for i, o in enumerate(one_by_one)]
        assert accuracy == np.mean(right)

    def test_all_samples_longest_first(self):
        split = ragged(21, 0)
        batches = in_order_of_length(split, 8)
        assert sorted(np.concatenate(batches)) == list(range(21))
        assert (np.diff(split.lengths[np.concatenate(batches)]) <= 0).all()


class TestRun:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    def test_every_mechanism_learns(self, mechanism, tmp_path):
        state = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()]  # noqa: NPY002
        training = replace(TRAINING, epochs=12, learning_rate=1e-2)
        result = do_run(tiny_run(mechanism, training=training), tiny_task(200), tmp_path / "run")
        losses = [line["train_loss"] for line in lines(tmp_path / "run" / "metrics.jsonl")]
        assert losses[-1] < 0.8 * losses[0]
        assert result["test_accuracy"] > result["majority_accuracy"]
        assert torch.equal(torch.get_rng_state(), state[0])
        assert random.getstate() == state[1]
        assert (np.random.get_state()[1] == state[2]).all()  # noqa: NPY002

    def test_files(self, straight):
        names = {path.name for path in straight.iterdir()}
        assert names == {
            "run.yaml",
            "metrics.jsonl",
            "attention.jsonl",
            "attention_maps.safetensors",
            "result.json",
            "model.safetensors",
            "tensorboard",
        }
        assert list((straight / "tensorboard").glob("events*"))

    def test_numbers_of_every_epoch(self, straight):
        metrics = lines(straight / "metrics.jsonl", without=())
        assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
        assert [line["step"] for line in metrics] == [5, 10, 15, 20]
        for line in metrics:
            assert 0 <= line["train_accuracy"] <= 1
            assert 0 <= line["validation_accuracy"] <= 1
            assert line["seconds"] > 0
            tokens = int(tiny_task().train.lengths.sum())
            assert line["tokens_per_second"] == pytest.approx(tokens / line["seconds"])
            assert 50e6 < line["peak_memory_bytes"] < 8e9

    def test_attention_of_every_layer_and_head(self, straight):
        """The mean over samples and rows of what the model's layers attend with."""
        table = lines(straight / "attention.jsonl")
        heads = 2 * 2  # of each of two timescales
        places = [(line["epoch"], line["layer"], line["head"]) for line in table]
        assert places == [(e, layer, h) for e in (1, 2, 3, 4) for layer in (0, 1) for h in range(heads)]
        for line in table:
            assert 0 <= line["entropy"] <= math.log(20)
            assert 0 <= line["local_concentration"] <= 1 + 1e-6
            assert line["long_range"] is None  # no key is farther than 50 positions
            assert 0 < line["max_weight"] <= 1
            assert (line["samples"], line["longest"]) == (2, int(tiny_task().validation.lengths.max()))

    def test_attention_is_that_of_the_longest_samples(self, straight):
        """Of those of equal length the first, and of all where there are fewer."""
        split = tiny_task().validation
        lengths = [int(length) for length in split.lengths]
        chosen = [int(i) for i in longest_samples(split, 5)]
        assert chosen == sorted(range(len(split)), key=lambda i: (-lengths[i], i))[:5]
        model = SequenceClassifier.load(straight / "model.safetensors")
        lines = attention_by_head(model, split, 5)
        assert lines == attention_by_head(model, split.select(chosen), 5)
        assert (lines[0]["shortest"], lines[0]["longest"]) == (lengths[chosen[-1]], lengths[chosen[0]])
        assert attention_by_head(model, split, 99)[0]["samples"] == len(split)

    @pytest.mark.parametrize(
        ("mechanism", "tokens", "window", "there"),
        [
            ("softmax", 51, 4, False),
            ("softmax", 52, 4, True),
            ("rattention", 60, 50, False),
            ("rattention", 60, 51, True),
        ],
    )
    def test_nothing_is_far_where_no_key_is(self, mechanism, tokens, window, there):
        model = SequenceClassifier(6, 3, mechanism, replace(SIZE, window=window), 60)
        split = Split.of([np.ones(tokens), np.ones(9)], [0, 1])
        (*_, line) = attention_by_head(model, split, 2)
        assert (line["long_range"] is not None) == there
        if there:
            assert line["long_range"] > 0

    def test_maps_of_the_first_test_sample(self, straight):
        maps = load_file(straight / "attention_maps.safetensors")
        length = len(tiny_task().test[0][0])
        assert set(maps) == {"layer0", "layer1"}
        for weights in maps.values():
            assert weights.shape == (4, length, length)
            torch.testing.assert_close(weights.sum(dim=2), torch.ones(4, length))

    def test_result(self, straight):
        result = json.loads((straight / "result.json").read_text("utf-8"))
        metrics = lines(straight / "metrics.jsonl", without=())
        best = max(metrics, key=lambda line: line["validation_accuracy"])
        assert result["best_epoch"] == best["epoch"]
        assert result["best_validation_accuracy"] == best["validation_accuracy"]
        wanted = 0.9 * best["validation_accuracy"]
        reached = next(line["epoch"] for line in metrics if line["validation_accuracy"] >= wanted)
        assert result["epochs_to_90_percent"] == reached
        assert result["seconds_per_epoch"] == pytest.approx(np.mean([line["seconds"] for line in metrics]))
        assert (result["epochs"], result["stopped"]) == (4, "epochs")
        assert result["samples"] == {"train": 40, "validation": 20, "test": 20}
        model = SequenceClassifier.load(straight / "model.safetensors")
        assert result["test_accuracy"] == evaluate(model, tiny_task().test, 8)[1]
        assert result["parameters"]["total"] == sum(p.numel() for p in model.parameters())

    def test_same_seed_same_numbers(self, straight, tmp_path):
        do_run(tiny_run("gravitational_multi_timescale"), tiny_task(), tmp_path / "again")
        assert everything(tmp_path / "again") == everything(straight)
        do_run(tiny_run("gravitational_multi_timescale", seed=1), tiny_task(), tmp_path / "other")
        assert lines(tmp_path / "other" / "metrics.jsonl") != lines(straight / "metrics.jsonl")

    def test_patience(self, tmp_path):
        """A model that learns nothing is best after the first epoch."""
        training = replace(TRAINING, epochs=9, patience=2, learning_rate=1e-12)
        result = do_run(tiny_run(training=training), tiny_task(), tmp_path / "run")
        assert (result["epochs"], result["best_epoch"], result["stopped"]) == (3, 1, "patience")

    def test_the_model_kept_is_the_best(self, tmp_path):
        training = replace(TRAINING, epochs=6, learning_rate=0.1)
        result = do_run(tiny_run(training=training), tiny_task(), tmp_path / "run")
        model = SequenceClassifier.load(tmp_path / "run" / "model.safetensors")
        assert evaluate(model, tiny_task().validation, 8)[1] == result["best_validation_accuracy"]

    @pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
    def test_schedules(self, schedule, tmp_path, monkeypatch):
        """The learning rate of every step: up from 0 in the warm-up, then on or down to 0."""
        training = replace(TRAINING, epochs=2, schedule=schedule, warmup_steps=3, measured=0)
        steps = watched_steps(monkeypatch)
        do_run(tiny_run(training=training), tiny_task(), tmp_path / "run")
        peak, last = training.learning_rate, 10
        progress = [(step - 3) / (last - 3) for step in range(3, last)]
        then = {
            "constant": [1.0 for _ in progress],
            "linear": [1 - p for p in progress],
            "cosine": [(1 + math.cos(math.pi * p)) / 2 for p in progress],
        }[schedule]
        wanted = [peak * share for share in [0, 1 / 3, 2 / 3, *then]]
        assert [rate for rates, _, _ in steps for rate in rates] == pytest.approx(
            [rate for rate in wanted for _ in (0, 1)], rel=1e-6
        )
        assert (tmp_path / "run" / "attention.jsonl").read_text("utf-8") == ""

    def test_matrices_alone_decay(self, tmp_path, monkeypatch):
        steps = watched_steps(monkeypatch)
        do_run(
            tiny_run(training=replace(TRAINING, epochs=1, weight_decay=0.25)), tiny_task(), tmp_path / "run"
        )
        (_, decayed), (_, others) = steps[0][2]
        assert [group[0] for group in steps[0][2]] == [0.25, 0]
        assert decayed
        assert others
        assert set(decayed) == {2}
        assert max(others) < 2

    @pytest.mark.parametrize("clip", [0.01, 1e9])
    def test_clipping(self, clip, tmp_path, monkeypatch):
        """The norm of the gradient that the optimiser gets is the bound where it would be larger."""
        steps = watched_steps(monkeypatch)
        do_run(tiny_run(training=replace(TRAINING, epochs=1, clip=clip)), tiny_task(), tmp_path / "run")
        norms = [norm for _, norm, _ in steps]
        if clip == 0.01:
            assert norms == pytest.approx([clip] * 5, rel=1e-3)
        else:
            assert min(norms) > 0.05

    def test_peak_memory_is_of_the_run(self):
        """What was taken and given back before does not count."""
        big = np.ones(40_000_000)
        del big
        before = PeakMemory()
        held = before.bytes()
        big = np.ones(40_000_000)
        assert before.bytes() - held > 300e6
        del big
        assert PeakMemory().bytes() - held < 200e6


def watched_steps(monkeypatch):
    """Of each step of AdamW the learning rates, the norm of the gradient, and of each group of parameters its
    decay and the dimensions of its tensors."""
    step, seen = torch.optim.AdamW.step, []

    def watched(optimizer, *args, **kwargs):
        groups = optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        decay = [(group["weight_decay"], [p.dim() for p in group["params"]]) for group in groups]
        seen.append(([group["lr"] for group in groups], norm, decay))
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    return seen


class TestFaults:
    def test_a_loss_that_is_no_number(self, tmp_path, monkeypatch):
        """The batch is saved, the error names the file, and the epochs before stay."""
        spoil_in_step(8, monkeypatch)
        with pytest.raises(FloatingPointError, match=rf"the loss became nan in step 8: .*{FAILED_BATCH}"):
            do_run(tiny_run(), tiny_task(), tmp_path / "run")
        batch = load_file(tmp_path / "run" / FAILED_BATCH)
        assert set(batch) == {"tokens", "lengths", "labels"}
        batches = TrainingBatches(tiny_task().train, 8, 0, 0, 1, epoch=1)
        assert torch.equal(batch["tokens"], list(batches)[2]["tokens"])
        assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 1
        monkeypatch.undo()
        assert do_run(tiny_run(), tiny_task(), tmp_path / "run")["epochs"] == 4

    def test_a_gradient_that_is_no_number(self, tmp_path):
        training = replace(TRAINING, learning_rate=1e30, clip=1e30)
        with pytest.raises(FloatingPointError, match=rf"became (nan|inf) in step \d+.*{FAILED_BATCH}"):
            do_run(tiny_run(training=training), tiny_task(), tmp_path / "run")

    def test_a_saved_model_that_is_another(self, tmp_path, monkeypatch):
        """As in the benchmark's first code, whose reload lost the weights."""
        save = SequenceClassifier.save

        def forgetful(model, path):
            torch.nn.init.zeros_(model.head.weight)
            save(model, path)

        monkeypatch.setattr(SequenceClassifier, "save", forgetful)
        training = replace(TRAINING, epochs=8, learning_rate=1e-2)
        with pytest.raises(
            RuntimeError, match=r"model\.safetensors: the saved model has a validation accuracy"
        ):
            do_run(tiny_run(training=training), tiny_task(200), tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_train_as_one(tmp_path):
    """Without dropout, which each draws for itself, they do what one does, up to rounding."""
    study = Study(
        tasks=("listops",),
        mechanisms=("gravitational_multi_timescale",),
        seeds=(3,),
        model=SIZE,
        training=replace(TRAINING, epochs=2),
        data={"listops": ListOps(30, 9, 9, min_length=5, max_length=30, max_depth=3, max_args=3)},
    )
    study.save(tmp_path / "study.yaml")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*command, "tests.lra_worker", str(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "RATTENTION_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    from tests.lra_worker import RUN, TASK

    do_run(RUN, TASK, tmp_path / "one")
    two, one = (everything(tmp_path / name) for name in ("two", "one"))
    assert [line["step"] for line in two["metrics"]] == [line["step"] for line in one["metrics"]]
    for a, b in zip(two["metrics"], one["metrics"], strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert two["result"]["test_loss"] == pytest.approx(one["result"]["test_loss"], rel=1e-3)
    assert two["maps"].keys() == one["maps"].keys()
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("one", "two")]
    assert names[0] == names[1]
    assert done.stdout.count("(majority class") == 1
    assert (
        len(everything(tmp_path / "study" / "runs" / "listops-gravitational_multi_timescale-3")["metrics"])
        == 2
    )
    assert Study.load(tmp_path / "study" / "study.yaml") == study
