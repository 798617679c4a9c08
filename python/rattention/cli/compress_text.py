"""What ``rattention compress`` prints and tabulates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rattention.cli.text import number, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rattention.cli.text import Style
    from rattention.compression.budget import Budget
    from rattention.studies.compression import Cell, Preview, Task, Validation

RANGES_SHOWN = 4

COLUMNS = {
    "share": ("share of\nquality", ".1%"),
    "mass": ("attention\nkept", ".1%"),
    "kl": ("KL\n(nats)", ".3f"),
    "top1_agreement": ("same\nfirst", ".1%"),
    "output_error": ("output\nerror", ".1%"),
    "bytes_share": ("bytes\nheld", ".1%"),
    "speed_up": ("speed-up\n(times)", ".2f"),
    "compressing": ("choosing\n/ time", ".1%"),
}
"""Numbers of a cell in the table: headers and formats."""


def previews(task: Task, seen: Mapping[tuple[str, Budget], Preview], style: Style) -> str:
    """A table of what each strategy keeps of one sequence."""
    rows = [
        [
            name,
            f"{budget:g}",
            str(len(next(iter(preview.positions.values())))),
            f"{preview.mass:.1%}",
            f"{preview.nbytes / preview.full_nbytes:.0%}",
            ranges(next(iter(preview.positions.values()))),
        ]
        for (name, budget), preview in seen.items()
    ]
    one = next(iter(seen.values()))
    header = ("strategy", "budget", "kept", "attention", "bytes", "positions kept")
    about = (
        f"Of {one.tokens} positions. Attention: the share of the newest row's attention that is kept; "
        f"bytes: the share of the memory, with positions and sizes of clusters. Positions: those of "
        f"{next(iter(one.positions))}; --json lists every layer and head. What that costs: --validate."
    )
    return style.section(task.name, paragraph(about), table(header, rows, style))


def previews_as_data(task: Task, seen: Mapping[tuple[str, Budget], Preview]) -> dict[str, Any]:
    """The same with all positions."""
    kept = [{"strategy": name, "budget": budget} | vars(preview) for (name, budget), preview in seen.items()]
    return {"task": task.name, "kept": kept}


def validation(measured: Validation, verdict: str, saved: Sequence[Path], style: Style) -> str:
    """The table of all cells, the verdict, and where the files are."""
    cells = measured.cells()
    names = [name for name in COLUMNS if any(name in cell.numbers for cell in cells)]
    rows = [[cell.strategy, f"{cell.budget:g}", *(_number(cell, name) for name in names)] for cell in cells]
    full, seeds = measured.full_quality(), len(measured.seeds)
    better = "higher" if measured.higher_is_better else "lower"
    about = (
        f"Full: {full.mean:,.2f} {measured.quality} ({better} is better), mean of {seeds} "
        f"seed{'s' if seeds > 1 else ''}. Beside shares: half of the 95 % interval over the seeds. Speed-up: "
        "of whole runs, with the time to choose; full and compressed runs take turns, and the median counts."
    )
    parts = [table(["strategy", "budget", *(COLUMNS[name][0] for name in names)], rows, style)]
    if measured.constant is not None:
        share = measured.constant.nbytes / measured.constant.full_nbytes
        parts.append(
            paragraph(f"{measured.constant.label}: its caches hold {share:.0%} of what full attention would")
        )
    parts += [paragraph(verdict[0].upper() + verdict[1:] + "."), *(f"  {path}" for path in saved)]
    return style.section(measured.task, paragraph(about), *parts)


def rows(measured: Validation) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the CSV file: mean and bounds of every number, of times median and quartiles."""
    cells = measured.cells()
    names = list(dict.fromkeys(name for cell in cells for name in cell.numbers))
    bounds = ("", "_low", "_high")
    header = ["strategy", "budget", "seeds", *(name + bound for name in names for bound in bounds)]
    return header, [[cell.strategy, cell.budget, cell.seeds, *_numbers(cell, names)] for cell in cells]


def ranges(positions: Sequence[int]) -> str:
    """``0-3, 7, 180-255``, shortened in the middle."""
    found: list[list[int]] = []
    for position in positions:
        if found and position == found[-1][1] + 1:
            found[-1][1] = position
        else:
            found.append([position, position])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in found]
    if len(texts) > RANGES_SHOWN:
        texts = [*texts[: RANGES_SHOWN // 2], "...", *texts[-RANGES_SHOWN // 2 :]]
    return ", ".join(texts)


def _number(cell: Cell, name: str) -> str:
    if name not in cell.numbers:
        return "-"
    found, (_, form) = cell.numbers[name], COLUMNS[name]
    text = number(found.middle, form)
    if name == "share" and not math.isnan(found.low):
        text += f" ±{found.middle - found.low:.1%}"
    if name == "speed_up" and found.high < 1:
        text += " slower"
    return text


def _numbers(cell: Cell, names: Sequence[str]) -> list[float | None]:
    values: list[float | None] = []
    for name in names:
        found = cell.numbers.get(name)
        for value in (None,) * 3 if found is None else (found.middle, found.low, found.high):
            values.append(value if value is not None and math.isfinite(value) else None)
    return values
