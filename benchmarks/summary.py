"""What models of Transformers gain, from a run: a sentence in the README, the tables and the figure of
docs/transformers.md. ``python -m benchmarks.summary``.

Repeat it after ``python -m benchmarks --only 'hf-*' --only transformers-steps --json
benchmarks/results/transformers_2_threads.json``.
"""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rattention._files import save_figure, write_text

from benchmarks.cases.generation import CONTEXTS, STEP_CACHES, STEP_TOLERANCES, step_name
from benchmarks.cases.models import NAMES, against, title
from benchmarks.outcome import MEBI
from benchmarks.peers.transformers_layers import LAYERS
from benchmarks.race import OURS
from benchmarks.report import markdown

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results/transformers_2_threads.json")
FIGURE = Path("docs/transformers.svg")
BLOCK = re.compile(r"(?<=<!-- models: begin -->\n).*?(?=<!-- models: end -->)", re.DOTALL)
TIMES = {
    "8,192 tokens": "hf-{}-8192",
    "in bfloat16": "hf-{}-bf16-8192",
    "512 tokens": "hf-{}-512",
    "8 x 512": "hf-{}-8x512",
}
MEMORY, LONGEST = "hf-{}-memory-32768", 32768
PLOTTED = "gemma3"
"""The model whose memory is drawn."""

Run = dict[str, Any]


def main() -> None:
    run = results()
    draw(run, ROOT / FIGURE)
    for page, written in PAGES.items():
        text, count = BLOCK.subn(lambda _, written=written: written(run), (ROOT / page).read_text("utf-8"))
        if count != 1:
            raise SystemExit(f"{page} has no place for what was measured, or several")
        write_text(ROOT / page, text)


def results() -> Run:
    return json.loads((ROOT / RESULTS).read_text("utf-8"))  # type: ignore[no-any-return]


def sentence(run: Run) -> str:
    """Whole models that read a long text, the largest gain first."""
    length, case = next(iter(TIMES.items()))
    ratios = {name: speedup(run, case.format(name)) for name in _measured(run) if name not in LAYERS}
    ranked = sorted((ratio, title(name).split(",")[0]) for name, ratio in ratios.items() if ratio)
    first, *others = [f"{ratio:.3g} times as fast in {name}" for ratio, name in reversed(ranked)]
    gains = ", ".join([first, *(gain.replace(" times as fast", "") for gain in others)])
    machine = run["machine"]
    text = f"""A forward pass over {length} is {gains}: {run["options"]["threads"]} threads of
        {machine["processor"]} ({machine["instruction_set"]}), against the fastest of Transformers' own
        implementations ([all figures, and how they were measured](docs/transformers.md#what-it-brings))."""
    return fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def block(run: Run) -> str:
    """The tables in Markdown, with what was measured and where."""
    machine, peers = run["machine"], run["machine"]["peers"]
    head = ("model", *TIMES, "memory, 32,768 tokens")
    rows = [head, ["---"] * len(head), *((title(name), *_cells(run, name)) for name in _measured(run))]
    table = markdown(rows)
    layers = any(name in LAYERS for name in _measured(run))
    eager = ' (gpt-oss: `"eager"`)' if layers else ""
    alone = "; gpt-oss\nand T5 call `rattention.torch.attention` directly" if layers else ""
    return f"""Speed-up of a forward pass over `"sdpa"`{eager}, and the peak memory of one layer
beyond its weights, ours first: {run["options"]["threads"]} threads of
{machine["processor"]} ({machine["instruction_set"]}), PyTorch {peers["torch"]}, Transformers
{peers["transformers"]}.

{table}

![Speed-up by model, and memory by length]({FIGURE.name})

Speed-up of decoding one more token, by length of the context, in a model like Gemma 3 with a window in every
other layer. Transformers' `DynamicCache` copies all keys and values for every token;
`rattention.hf.InPlaceCache` does not:

{_steps(run)}

Shapes are those of the published models, weights are random, and dense layers are PyTorch's in both{alone}
([how it was
measured](../benchmarks/README.md#models-of-transformers), [the run](../{RESULTS})).
"""


PAGES: dict[str, Callable[[Run], str]] = {"README.md": sentence, "docs/transformers.md": block}
"""Where what is written stands between the marks of `BLOCK`."""


def _measured(run: Run) -> list[str]:
    """The models that the run was about."""
    return [name for name in NAMES if MEMORY.format(name) in run["cases"]]


def _steps(run: Run) -> str:
    """A token of a model after contexts of growing length, by dtype and cache."""
    ratios = {figure["against"]: figure["value"] for figure in run["cases"]["transformers-steps"]["figures"]}
    head = ("dtype", "cache used with rattention", *(f"{context:,}" for context in CONTEXTS))
    rows = [
        (dtype, f"`{cache}`", *(f"{ratios[step_name(dtype, context, cache)]:.3g}x" for context in CONTEXTS))
        for dtype, cache in product(STEP_TOLERANCES, STEP_CACHES)
    ]
    return markdown([head, ["---"] * len(head), *rows])


def _cells(run: Run, name: str) -> list[str]:
    ratios = (speedup(run, case.format(name)) for case in TIMES.values())
    ours, theirs = (memory(run, name, who).get(LONGEST) for who in (OURS, against(name)))
    return [*("-" if r is None else f"{r:.3g}x" for r in ratios), f"{_size(ours)}; {_size(theirs)}"]


def speedup(run: Run, case: str) -> float | None:
    """Their median time over ours; None where they took no part."""
    figures = run["cases"].get(case, {}).get("figures", ())
    return next((figure["value"] for figure in figures if figure["unit"] == "x"), None)


def memory(run: Run, name: str, who: str) -> dict[int, float]:
    """Bytes by length, where they were measured."""
    details = run["cases"].get(MEMORY.format(name), {}).get("details", {})
    found = (re.fullmatch(rf"bytes, {who}, (\d+) tokens", text) for text in details)
    return {int(match[1]): details[match[0]] for match in found if match}


def _size(size: float | None) -> str:
    if size is None:
        return "does not fit"
    return f"{size / MEBI:.0f} MiB" if size < 1000 * MEBI else f"{size / MEBI / 1024:.1f} GiB"


def draw(run: Run, path: Path) -> None:
    """Speed-ups as bars and memory as lines; needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    bars, lines = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_speedups(bars, run)
    _draw_memory(lines, run)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rattention"}):  # text stays text: a small file
        save_figure(path, figure)


def _draw_speedups(axes: Any, run: Run) -> None:
    for shift, (label, case) in zip((-0.2, 0.2), list(TIMES.items())[:2], strict=True):
        ratios = {place + shift: speedup(run, case.format(name)) for place, name in enumerate(_measured(run))}
        shown = {place: ratio for place, ratio in ratios.items() if ratio}
        axes.barh(list(shown), [ratio - 1 for ratio in shown.values()], 0.38, left=1, label=label)
        for place, ratio in shown.items():
            axes.text(max(ratio, 1) * 1.03, place, f"{ratio:.3g}x", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    names = [title(n).split(",")[0] + (" (attention)" if n in LAYERS else "") for n in _measured(run)]
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="times as fast as Transformers alone")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.2)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200) if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _draw_memory(axes: Any, run: Run) -> None:
    for who in (against(PLOTTED), OURS):
        sizes = memory(run, PLOTTED, who)
        axes.plot(list(sizes), [s / MEBI / 1024 for s in sizes.values()], marker="o", label=who)
    lengths = list(memory(run, PLOTTED, OURS))
    axes.set_xticks(lengths, [f"{n // 1024}k" for n in lengths])
    axes.set(xlabel="tokens", ylabel=f"GiB, a layer of {title(PLOTTED).split(',')[0]}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
