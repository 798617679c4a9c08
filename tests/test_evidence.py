"""The figures of docs/evidence.md are those of the results beside it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

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
RECALL = {
    "full attention": "full",
    "sliding window": "window-w8",
    "residual linear attention alone": "linear",
    "RAttention": "rattention-w8",
    "RAttention, state gated": "rattention_gated-w8",
    "scalar gate": "gated_linear",
    "Gated DeltaNet": "gated_delta",
}


def by_seed(
    title: str, folder: str, experiment: str, names: dict[str, str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every result that the table under a heading tells, and its cell."""
    told = rows(title)
    assert [label for label, *_ in told] == [*names]
    for label, rate, *cells in told:
        assert len(cells) == 3
        for seed, cell in enumerate(cells):
            own = result(folder, experiment, names[label], seed)
            assert float(rate) == own["training"]["learning_rate"]
            yield own, cell


def test_language_models() -> None:
    for own, cell in by_seed("Language models", "language", "pareto", LANGUAGE):
        far = [at for at in own["text"]["by_reach"] if (at["reach"] or 0) > 32]
        beyond = sum(at["bits"] for at in far) / sum(at["tokens"] for at in far)
        assert cell == f"{own['text']['second_half_bits_per_byte']:.3f}, {beyond:.2f}"
    grams = result("language", "ngram", "full", 0)["text"]["second_half_bits_per_byte"]
    assert f"5-grams of the same training text need {grams:.3f}." in PAGE.read_text("utf-8")


def test_recall() -> None:
    for own, cell in by_seed("Recall", "recall", "recall-p8", RECALL):
        assert cell == f"{own['recall']['accuracy']:.0%}".replace("%", " %")
