"""The figures of docs/evidence.md are those of the results beside it."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import astuple
from itertools import product
from typing import Any

import pytest

from tests.extras import needs
from tests.pages import ROOT

PAGE = ROOT / "docs" / "evidence.md"
EVIDENCE = ROOT / "docs" / "evidence"
LENGTH = 4096

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="needs the documentation")


def rows(title: str) -> list[list[str]]:
    """Cells of the table under a heading, without its own head."""
    text = PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in re.findall(r"^\|.*\|$", text, re.M)[2:]
    ]


def result(folder: str, experiment: str, name: str, seed: int) -> dict[str, Any]:
    path = EVIDENCE / folder / "results" / f"{experiment}-{name}-{seed}.json"
    return dict(json.loads(path.read_text("utf-8")))


def results(folder: str, experiment: str, name: str) -> list[dict[str, Any]]:
    """Of every seed there is."""
    place = EVIDENCE / folder / "results"
    return [
        result(folder, experiment, name, s)
        for s in range(3)
        if (place / f"{experiment}-{name}-{s}.json").exists()
    ]


def cost(name: str) -> dict[str, float]:
    return next(at for at in result("cost", "cost", name, 0)["cost"] if at["length"] == LENGTH)


def test_memory() -> None:
    full = cost("full")["cache_bytes"]
    assert f"{full / 2**20:.1f} MiB" in PAGE.read_text("utf-8")
    told = rows("Memory")
    assert len(told) == 6
    for layers, window, *cells in told:
        layout = {"all local": "", "3:1": "-3to1"}[layers]
        for mechanism, cell in zip(("window", "rattention"), cells, strict=True):
            held = cost(f"{mechanism}-w{window}{layout}")["cache_bytes"]
            assert cell.replace("*", "") == f"{held / 2**20:.1f} MiB, {1 - held / full:.1%} saved".replace(
                "%", " %"
            )


def test_time() -> None:
    full, names = (
        cost("full"),
        {"full attention": "full", "sliding window": "window-w512", "RAttention": "rattention-w512"},
    )
    told = rows("Time")
    assert len(told) == 5
    for label, *cells in told:
        own = cost(names[label.removesuffix(", 3:1")] + ("-3to1" if label.endswith(", 3:1") else ""))
        measures = ("step_seconds", "prefill_seconds", "decoded_tokens_per_second")
        for measure, cell in zip(measures, cells, strict=True):
            value, *ratio = [float(number) for number in re.findall(r"[\d.]+", cell)]
            assert value == pytest.approx(own[measure], rel=0.04)
            assert not ratio or ratio[0] == pytest.approx(own[measure] / full[measure], abs=0.05)


LANGUAGE = {
    "full attention": "full",
    "sliding window": "window-w32",
    "RAttention": "rattention-w32",
}
LONGER = {**LANGUAGE, "RAttention, begun as its window": "rattention_as_window-w32"}
WIDER = {
    "full attention": "full",
    "sliding window": "window-w64",
    "RAttention": "rattention-w64",
    "RAttention, begun as its window": "rattention_as_window-w64",
    "sliding window, 3:1": "window-w64-3to1",
    "RAttention, 3:1": "rattention-w64-3to1",
    "RAttention, begun as its window, 3:1": "rattention_as_window-w64-3to1",
}
RECALL = {
    "full attention": "full",
    "sliding window": "window-w8",
    "residual linear attention alone": "linear",
    "RAttention": "rattention-w8",
    "RAttention, begun as its window": "rattention_as_window-w8",
    "RAttention, state gated": "rattention_gated-w8",
    "scalar gate": "gated_linear",
    "Gated DeltaNet": "gated_delta",
}


def require_losses(title: str, folder: str, names: dict[str, str], window: int) -> None:
    """The table under a heading has the losses of every seed, of all tokens and of those last seen beyond."""
    told = rows(title)
    assert [label for label, *_ in told] == [*names]
    for label, rate, *cells in told:
        for seed, cell in enumerate(cells):
            own = result(folder, "pareto", names[label], seed)
            assert float(rate) == own["training"]["learning_rate"]
            far = [at for at in own["text"]["by_reach"] if (at["reach"] or 0) > window]
            beyond = sum(at["bits"] for at in far) / sum(at["tokens"] for at in far)
            assert cell == f"{own['text']['second_half_bits_per_byte']:.3f}, {beyond:.2f}"
        assert len(cells) == 3


def test_language_models() -> None:
    require_losses("Language models", "language", LANGUAGE, 32)
    grams = result("language", "ngram", "full", 0)["text"]["second_half_bits_per_byte"]
    assert f"5-grams of the same training text need {grams:.3f}." in PAGE.read_text("utf-8")


def test_wider_windows() -> None:
    require_losses("Wider windows", "windows", WIDER, 64)


def test_recall() -> None:
    told = rows("Recall")
    assert [label for label, *_ in told] == [*RECALL]
    for label, rate, *cells in told:
        for folder, cell in zip(("recall", "recall_5000"), cells, strict=True):
            own = results(folder, "recall-p8", RECALL[label])
            assert {run["training"]["learning_rate"] for run in own} <= {float(rate)}
            shares = ", ".join(f"{run['recall']['accuracy']:.0%}".replace("%", " %") for run in own)
            assert cell == (shares or "–")


def bits(text: dict[str, Any]) -> str:
    return f"{text['second_half_bits_per_byte']:.3f}"


def test_longer_contexts() -> None:
    told = {label: cells for label, *cells in rows("Longer contexts")}
    assert [*told] == [*LONGER]
    for (label, cells), place in product(told.items(), range(4)):
        own = [result("length", "length", LONGER[label], seed)["lengths"][place] for seed in range(3)]
        assert [text["context"] for text in own] == 3 * [512 * 2**place]
        assert cells[place] == ", ".join(map(bits, own))


def test_parts() -> None:
    told = {label: cells for label, *cells in rows("Parts of RAttention")}
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((EVIDENCE / "ablations" / "results").glob("*.json"), key=lambda path: path.stem[-1]):
        own = json.loads(path.read_text("utf-8"))
        found.setdefault(own["label"].removesuffix(", window 32"), []).append(own["text"])
    assert {label: [*map(bits, texts)] for label, texts in found.items()} == {
        label: cells[:3] for label, cells in told.items()
    }
    means = {
        label: statistics.fmean(text["second_half_bits_per_byte"] for text in texts)
        for label, texts in found.items()
    }
    assert [*told] == sorted(means, key=means.__getitem__)
    for label, texts in found.items():
        mean, low, high = paired(texts, found["RAttention"])
        less = f"{mean:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")
        assert told[label][3] == ("–" if label == "RAttention" else less)


def paired(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of the differences of three seeds."""
    values = [
        one["second_half_bits_per_byte"] - other["second_half_bits_per_byte"]
        for one, other in zip(ones, others, strict=True)
    ]
    mean, half = statistics.fmean(values), 4.302653 * statistics.stdev(values) / 3**0.5
    return mean, mean - half, mean + half


STEPS = (0, 50, 200, 800)


def test_conversion() -> None:
    told = {label: cells for label, *cells in rows("Conversion")}
    names = LANGUAGE | {"RAttention, begun as its window": "rattention_as_window-w32"}
    assert [*told] == [*names]
    for (label, cells), place in product(told.items(), range(4)):
        name = f"conversion-s{STEPS[place]}"
        own = [result("conversion", name, names[label], seed) for seed in range(3)]
        assert {run["training"]["tokens"] for run in own} == {STEPS[place] * 2048}
        assert cells[place] == ", ".join(bits(run["text"]) for run in own)


def test_four_mechanisms() -> None:
    """Accuracies by seed, and what the analysis makes of them."""
    needs("studies")
    from rattention.studies.lra.results import StudyResults
    from rattention.studies.lra.summary import points, summarize

    cells = summarize(StudyResults.read([EVIDENCE / "mechanisms"]))
    told = rows("Four mechanisms")
    assert [label for label, *_ in told] == [cell.label.lower() for cell in cells]
    for (_, *texts), cell in zip(told, cells, strict=True):
        wanted = (
            ", ".join(f"{100 * accuracy:.1f}" for accuracy in cell.values("test_accuracy")) + " %",
            "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * part for part in astuple(cell.accuracy))),
            "–" if cell.improvement is None else points(cell.improvement.points).replace("-", "−"),
            f"{cell.mean('epochs_to_90_percent'):.1f}",
            f"{cell.mean('seconds_per_epoch'):.1f}",
        )
        assert tuple(texts) == wanted
    page = PAGE.read_text("utf-8")
    assert f"gets {cells[0].bag:.1%}".replace("%", " %") in page
