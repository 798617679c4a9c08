"""What ``rattention compress`` prints and tabulates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rattention.cli.terminal import paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rattention.cli.terminal import Style
    from rattention.compression.budget import Budget
    from rattention.studies.compression import Cell, Preview, Task, Validation

RANGES_SHOWN = 6

COLUMNS = {
    "share": "share of\nfull quality",
    "mass": "attention\nkept",
    "kl": "KL\n(nats)",
    "top1_agreement": "same first\nchoice",
    "output_error": "output\nerror",
    "bytes_share": "held of\nfull",
    "speed_up": "speed-up\n(times)",
    "compressing": "choosing /\nfull time",
}
"""Numbers of a cell in the table, and their headers."""

PERCENT = ("share", "mass", "top1_agreement", "output_error", "bytes_share", "compressing")


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
    header = [
        "strategy",
        "budget",
        "kept",
        "attention",
        "held",
        f"positions kept, {next(iter(one.positions))}",
    ]
    about = (
        f"Of {one.tokens} positions. Attention: the share of the newest row's that is kept; held: the share "
        "of the bytes, with positions and sizes of clusters. --json lists every layer and head."
    )
    return f"{style.title(task.name)}\n{paragraph(about)}\n{table(header, rows, style)}"


def previews_as_data(task: Task, seen: Mapping[tuple[str, Budget], Preview]) -> dict[str, Any]:
    """The same with all positions."""
    kept = [{"strategy": name, "budget": budget} | vars(preview) for (name, budget), preview in seen.items()]
    return {"task": task.name, "kept": kept}


def validation(measured: Validation, verdict: str, saved: Sequence[Path], style: Style) -> str:
    """The table of all cells, the verdict, and where the files are."""
    cells = measured.cells()
    names = [name for name in COLUMNS if any(name in cell.numbers for cell in cells)]
    rows = [
        [cell.strategy, f"{cell.budget:g}", *(_number(cell, name) for name in names), ""] for cell in cells
    ]
    full = measured.full_quality()
    better = "higher" if measured.higher_is_better else "lower"
    seeds = len(measured.seeds)
    about = (
        f"Full: {full.mean:.4g} {measured.quality} ({better} is better), mean of {seeds} "
        f"seed{'s' if seeds > 1 else ''}. Beside shares: half of the 95 % interval over the seeds. Speed-up: "
        "of whole runs, with the time to choose; full and compressed runs take turns, and the median counts."
    )
    lines = [style.title(measured.task), paragraph(about)]
    lines.append(table(["strategy", "budget", *(COLUMNS[name] for name in names), ""], rows, style))
    if measured.constant is not None:
        share = measured.constant.nbytes / measured.constant.full_nbytes
        lines.append(f"{measured.constant.label}: its caches hold {share:.0%} of what full attention would")
    lines += [paragraph(verdict[0].upper() + verdict[1:] + "."), *(f"  {path}" for path in saved)]
    return "\n".join(lines)


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
    number = cell.numbers[name]
    text = f"{number.middle:.1%}" if name in PERCENT else f"{number.middle:.3g}"
    if name == "share" and not math.isnan(number.low):
        text += f" ±{number.middle - number.low:.1%}"
    if name == "speed_up" and number.high < 1:
        text += " slower"
    return text


def _numbers(cell: Cell, names: Sequence[str]) -> list[float | None]:
    values: list[float | None] = []
    for name in names:
        number = cell.numbers.get(name)
        for value in (None,) * 3 if number is None else (number.middle, number.low, number.high):
            values.append(value if value is not None and math.isfinite(value) else None)
    return values
