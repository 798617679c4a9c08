"""Folders of results as ``rattention lra run`` writes them, with made-up numbers."""

import json
from pathlib import Path

import numpy as np
import yaml
from rattention.studies.lra.results import RunRecord
from rattention.studies.lra.summary import Cell
from safetensors.numpy import save_file

MECHANISMS = ("softmax", "gravitational", "multi_timescale", "gravitational_multi_timescale", "rattention")
MAJORITY = {"listops": 0.17, "text": 0.5}
ACCURACY = {
    "listops": dict(zip(MECHANISMS, (0.362, 0.374, 0.381, 0.369, 0.168), strict=True)),
    "text": dict(zip(MECHANISMS, (0.628, 0.634, 0.652, 0.655, 0.641), strict=True)),
}
SECONDS = dict(zip(MECHANISMS, (31.0, 44.0, 62.0, 81.0, 22.0), strict=True))
MEMORY = dict(zip(MECHANISMS, (900, 930, 1310, 1380, 760), strict=True))
PARAMETERS = dict(zip(MECHANISMS, (401_000, 401_400, 532_000, 532_400, 403_000), strict=True))
HEADS = {"multi_timescale": 12, "gravitational_multi_timescale": 12}
METRICS = ("entropy", "local_concentration", "long_range", "retention", "context_mean", "context_std")


def write_study(
    folder,
    tasks=("listops", "text"),
    mechanisms=MECHANISMS,
    seeds=(0, 1, 2),
    settings=None,
    threads=2,
    unfinished=(),
    **numbers,
):
    """A folder of runs; `numbers` replaces those of every result, `unfinished` names runs without one."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump({"tasks": [*tasks], "seeds": [*seeds]}))
    environment = {"created": "2026-11-27T20:00:00", "hardware": {"isa": "avx512"}, "versions": {}}
    (folder / "environment.json").write_text(json.dumps(environment | {"threads": threads}))
    for task in tasks:
        for mechanism in mechanisms:
            for seed in seeds:
                run = write_run(folder, task, mechanism, seed, settings=settings, **numbers)
                if run.name in unfinished:
                    (run / "result.json").unlink()
                    (run / "attention_maps.safetensors").unlink()
    return folder


def write_run(folder, task, mechanism, seed, settings=None, epochs=12, accuracy=None, heads=None, **numbers):
    """One run; its accuracy is that of the tables above and some noise, or `accuracy`."""
    place = Path(folder) / "runs" / f"{task}-{mechanism}-{seed}"
    place.mkdir(parents=True)
    drawn = np.random.default_rng([seed, *task.encode(), *mechanism.encode()])
    settings = {"model": {"dim": 128, "depth": 2}, "training": {"epochs": epochs}} | (settings or {})
    run = {"task": task, "mechanism": mechanism, "seed": seed, **settings}
    (place / "run.yaml").write_text(yaml.safe_dump(run))
    if accuracy is None:
        accuracy = ACCURACY[task].get(mechanism, 0.4) + 0.006 * drawn.standard_normal()
    lines = _metrics(drawn, accuracy, MAJORITY[task], SECONDS.get(mechanism, 30.0), epochs)
    _write_lines(place / "metrics.jsonl", lines)
    count = heads or HEADS.get(mechanism, 4)
    _write_lines(place / "attention.jsonl", _attention(drawn, epochs, count))
    save_file(_maps(drawn, count, mechanism), place / "attention_maps.safetensors")
    best = max(lines, key=lambda line: line["validation_accuracy"])
    first = next(x for x in lines if x["validation_accuracy"] >= 0.9 * best["validation_accuracy"])
    parameters = PARAMETERS.get(mechanism, 400_000)
    result = {
        "task": task,
        "mechanism": mechanism,
        "seed": seed,
        "test_accuracy": float(accuracy),
        "test_loss": 1.7,
        "best_epoch": best["epoch"],
        "best_validation_accuracy": best["validation_accuracy"],
        "epochs": epochs,
        "epochs_to_90_percent": first["epoch"],
        "seconds_per_epoch": float(np.mean([line["seconds"] for line in lines])),
        "tokens_per_second": float(np.mean([line["tokens_per_second"] for line in lines])),
        "peak_memory_bytes": int(2**20 * (MEMORY.get(mechanism, 900) + 8 * drawn.standard_normal())),
        "parameters": {"attention": 1, "mlp": 1, "embedding": 1, "norm": 1, "total": parameters},
        "majority_accuracy": MAJORITY[task],
        "label_shares": {"train": [0.5, 0.5]},
        "samples": {"train": 20_000, "validation": 2_000, "test": 2_000},
        "stopped": "epochs",
    }
    (place / "result.json").write_text(json.dumps(result | numbers))
    return place


def _metrics(drawn, accuracy, start, seconds, epochs):
    lines = []
    rate = drawn.uniform(0.25, 0.6)
    for epoch in range(1, epochs + 1):
        share = 1 - np.exp(-rate * epoch)
        reached = start + (accuracy - start) * share + 0.004 * drawn.standard_normal()
        lines.append(
            {
                "epoch": epoch,
                "step": 600 * epoch,
                "train_loss": 2.2 - 0.7 * share,
                "train_accuracy": float(reached + 0.03 * share),
                "validation_loss": float(2.2 - 0.6 * share + 0.004 * epoch),
                "validation_accuracy": float(reached),
                "seconds": float(seconds * (1 + 0.03 * drawn.standard_normal())),
                "tokens_per_second": float(2e6 / seconds),
                "peak_memory_bytes": 2**30,
            }
        )
    return lines


def _attention(drawn, epochs, heads):
    return [
        {"epoch": epoch, "layer": layer, "head": head}
        | {name: float((5 if name == "entropy" else 1) * drawn.uniform(0.1, 0.9)) for name in METRICS}
        | {"recent_distant_ratio": None, "max_weight": 0.2, "samples": 32, "shortest": 61, "longest": 90}
        for epoch in range(1, epochs + 1)
        for layer in range(2)
        for head in range(heads)
    ]


def _maps(drawn, heads, mechanism):
    rows = np.arange(64)
    distance = np.abs(rows[:, None] - rows)
    widths = drawn.uniform(2, 40, size=(2, heads, 1, 1))
    maps = np.exp(-distance / widths) + 0.15 * drawn.random((2, heads, 1, 64))
    if mechanism == "rattention":
        maps = maps * (rows[:, None] >= rows) * (distance < 8)
    maps = (maps / maps.sum(-1, keepdims=True)).astype(np.float32)
    return {f"layer{layer}": np.ascontiguousarray(maps[layer]) for layer in range(2)}


def _write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def result(accuracy, **numbers):
    return {
        "test_accuracy": accuracy,
        "best_epoch": 4,
        "epochs": 10,
        "epochs_to_90_percent": 2,
        "seconds_per_epoch": 10.0,
        "tokens_per_second": 1000.0,
        "peak_memory_bytes": 2**30,
        "majority_accuracy": 0.2,
        "parameters": {"total": 1000},
        "samples": {"test": 10_000},
    } | numbers


def cell(mechanism, accuracies, baseline=None, seeds=None, **numbers):
    """A cell with given accuracies, by hand."""
    runs = tuple(
        RunRecord("listops", mechanism, seed, None, result=result(accuracy, **numbers))
        for seed, accuracy in zip(seeds or range(len(accuracies)), accuracies, strict=True)
    )
    return Cell("listops", mechanism, runs, baseline)
