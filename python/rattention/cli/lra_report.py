"""What ``rattention lra`` prints for people."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rattention.cli.terminal import Style, table

if TYPE_CHECKING:
    from pathlib import Path

    from rattention.studies.lra.data import TaskData

SPLITS = ("train", "validation", "test")
PARTS = ("attention", "mlp", "total")


def of_results(results: list[dict[str, Any]], folder: Path, style: Style) -> str:
    """A table for each task: means over seeds."""
    tasks = dict.fromkeys(result["task"] for result in results)
    parts = [_of_task(task, [r for r in results if r["task"] == task], style) for task in tasks]
    return "\n\n".join([*parts, f"Results in {folder}"])


def _of_task(task: str, results: list[dict[str, Any]], style: Style) -> str:
    mechanisms = dict.fromkeys(result["mechanism"] for result in results)
    rows = [_row(m, [r for r in results if r["mechanism"] == m], style) for m in mechanisms]
    header = (
        "mechanism",
        "test\naccuracy",
        "best\nepoch",
        "epochs\nrun",
        "seconds\nper epoch",
        "tokens\nper second",
        "peak memory\nMiB",
        *(f"parameters\n{part}" for part in PARTS),
        "seeds",
    )
    majority = mean(result["majority_accuracy"] for result in results)
    title = style.title(f"{task}: always the most frequent label gives {majority:.3f}")
    return f"{title}\n{table(header, rows, style)}"


def _row(mechanism: str, results: list[dict[str, Any]], style: Style) -> list[str]:
    def average(name: str) -> float:
        return float(mean(result[name] for result in results))

    return [
        mechanism,
        _with_spread([result["test_accuracy"] for result in results], style),
        f"{average('best_epoch'):.1f}",
        f"{average('epochs'):.1f}",
        f"{average('seconds_per_epoch'):.1f}",
        f"{average('tokens_per_second'):,.0f}",
        f"{average('peak_memory_bytes') / 2**20:.0f}",
        *(f"{results[0]['parameters'][part]:,}" for part in PARTS),
        ",".join(str(result["seed"]) for result in results),
    ]


def _with_spread(values: list[float], style: Style) -> str:
    """The mean, and the standard deviation over seeds where there are several."""
    sign = "±" if style.symbols else "+-"
    return f"{mean(values):.3f}" + (f" {sign} {stdev(values):.3f}" if len(values) > 1 else "")


def describe(data: TaskData) -> dict[str, Any]:
    """What a task consists of, as plain values."""
    lengths = {name: getattr(data, name).lengths for name in SPLITS}
    return {
        "task": data.name,
        "vocabulary": data.vocabulary,
        "classes": data.classes,
        "token_names": None if data.token_names is None else list(data.token_names),
        "samples": {name: len(values) for name, values in lengths.items()},
        "lengths": {
            name: {"min": int(values.min()), "mean": float(values.mean()), "max": int(values.max())}
            for name, values in lengths.items()
        },
        "label_shares": data.label_shares(),
        "majority_accuracy": data.majority_accuracy(),
    }


def of_data(described: dict[str, Any], style: Style) -> str:
    """Samples, lengths and labels of each split."""
    name, vocabulary = described["task"], described["vocabulary"]
    title = style.title(f"{name}: {vocabulary} tokens (0 is padding), {described['classes']} labels")
    header = (
        "split",
        "samples",
        "length\nleast",
        "length\nmean",
        "length\nmost",
        "share of each label\n0, 1, ...",
    )
    rows = [
        [
            split,
            f"{described['samples'][split]:,}",
            str(described["lengths"][split]["min"]),
            f"{described['lengths'][split]['mean']:.0f}",
            str(described["lengths"][split]["max"]),
            " ".join(f"{share:.3f}" for share in described["label_shares"][split]),
        ]
        for split in SPLITS
    ]
    majority = (
        f"Always the most frequent label of the training samples gives {described['majority_accuracy']:.3f}."
    )
    names = described["token_names"]
    listed = [] if names is None or len(names) > 32 else [f"Tokens: {' '.join(names[1:])}"]
    return "\n".join([title, table(header, rows, style), *listed, majority])
