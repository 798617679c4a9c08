"""docs/benchmarks.md, from the runs in benchmarks/results: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._files import write_text

from benchmarks.cases import CASES
from benchmarks.growth import WINDOW
from benchmarks.race import BFLOAT16_PEAK, PEAK
from benchmarks.report import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
PAGE = ROOT / "docs" / "benchmarks.md"
SAME = 0.01
"""Ratios within this of 1 are called neither faster nor slower."""
SUMMARIES = {case.name: re.sub(r" \(\d+ in a quick run\)", "", case.summary) for case in CASES}

Run = dict[str, Any]


def main() -> None:
    write_text(PAGE, page(runs()))


def runs() -> dict[str, Run]:
    """Every committed run by the name of its file, the newest first."""
    files = {path.name: json.loads(path.read_text("utf-8")) for path in (ROOT / RESULTS).glob("*.json")}
    return dict(sorted(files.items(), key=lambda item: item[1]["machine"]["when"], reverse=True))


def page(runs: dict[str, Run]) -> str:
    """The whole page in Markdown."""
    return "\n\n".join([HEAD, *(section(name, run) for name, run in runs.items())]) + "\n"


HEAD = f"""# Benchmarks

What was measured, machine by machine, the newest run first. `python -m benchmarks.page` writes this page from
the runs in `{RESULTS}`, which have every single timing;
[benchmarks/README.md](../benchmarks/README.md) says how they are made and how to repeat them.

Times are medians, and answers were compared first. A ratio is their time over ours: above 1 we are faster.
**Ratios in bold are losses** of more than {SAME:.0%}. *Times as long* is the other way round, our time over
that of a part of the same work: what the rest costs. *Share of peak* is the arithmetic of the call as a share
of the machine's measured rate of matrix products. Inputs are `[1, 8, n, 64]` in float32 unless a row says
otherwise."""


def section(name: str, run: Run) -> str:
    """One run: machine, versions, and its table."""
    machine = run["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items() if version)
    title = (machine["processor"], machine["instruction_set"], _threads(run), machine["when"][:10])
    head = f"""## {", ".join(title)}

{_peak(run)}rattention {machine["rattention"]}, NumPy {machine["numpy"]}, {peers}, Python {machine["python"]};
[{name}](../{RESULTS}/{name}){_note(run)}"""
    body = _growth if "growth" in run else _schedule if "schedule" in run else _cases
    return f"{head}\n\n{body(run)}"


def _threads(run: Run) -> str:
    if "schedule" in run:
        return "schedules"
    threads = run["options"]["threads"]
    return f"{threads} thread" + ("s" if threads != 1 else "")


def _note(run: Run) -> str:
    """What has to be known of a run that was put together from several."""
    return f". {run['note']}" if "note" in run else ""


def _peak(run: Run) -> str:
    """The machine's rates of products, where the run has them."""
    return "".join(f"Matrix products run at {rate:.0f} GFLOP/s in {kind}. " for kind, rate in _rates(run))


def _rates(run: Run) -> Iterator[tuple[str, float]]:
    for peak, kind in ((PEAK, "float32"), (BFLOAT16_PEAK, "bfloat16")):
        cases = run.get("cases", {}).values()
        rates = [case["samples"][peak]["median"] for case in cases if peak in case["samples"]]
        if rates:
            yield kind, sum(rates) / len(rates)


def _cases(run: Run) -> str:
    rows = [["work", "against", "ours", "theirs", "result"], ["---"] * 5]
    for name, case in run["cases"].items():
        work = SUMMARIES.get(name, name)
        for figure in case["figures"]:
            if figure["against"].startswith("best: "):
                continue  # a repetition
            rows.append([work, *_cells(figure)])
            work = ""
        rows += [["" if case["figures"] else work, peer, "", "", "missing"] for peer in case["missing"]]
    return markdown(rows)


def _cells(figure: Run) -> list[str]:
    shares = figure["against"].startswith((PEAK, BFLOAT16_PEAK))
    against = "share of peak" if shares else figure["against"]
    times = [_time(figure["ours"]), _time(figure["theirs"]) if against != "share of peak" else ""]
    return [against, *times, _result(figure)]


def _result(figure: Run) -> str:
    value, unit = figure["value"], figure["unit"]
    if unit != "x":
        return f"{_number(value)} {unit}"
    if figure["ours"] is None:
        return f"{_number(value)}x"
    if _is_ceiling(figure):
        return f"{_number(value)} times as long"
    return f"**{_number(value)}x**" if value < 1 - SAME else f"{_number(value)}x"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _is_ceiling(figure: Run) -> bool:
    """Whether the ratio is ours over theirs, and small is good."""
    return figure["goal"] is not None and figure["goal"]["sign"] == "<="


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _growth(run: Run) -> str:
    """Microseconds a token by length."""
    growth = run["growth"]
    lengths = list(next(iter(growth.values())))
    rows = [["microseconds a token, n =", *(f"{int(n):,}" for n in lengths)], ["---"] * (len(lengths) + 1)]
    rows += [[name, *(f"{1e6 * times[n] / int(n):.3g}" for n in lengths)] for name, times in growth.items()]
    return f"Window {WINDOW}.\n\n{markdown(rows)}"


def _schedule(run: Run) -> str:
    """Expected speed-ups by the number of workers."""
    schedule = run["schedule"]
    workers = list(next(iter(schedule.values())))
    rows = [["times as fast as on one core, on", *workers], ["---"] * (len(workers) + 1)]
    rows += [[name, *(f"{ratios[n]:.3g}" for n in workers)] for name, ratios in schedule.items()]
    return f"{SCHEDULE}\n\n{markdown(rows)}"


SCHEDULE = """What more cores than this machine has would bring, **computed and not measured**. `python
-m benchmarks.schedule` runs every pass with as many threads on the cores there are, notes the processor
time of each task, and hands the tasks out in their order to as many workers on paper. Memory bandwidth
that cores share, their clocks and the time to wake threads are left out, so these are upper bounds: they
show whether the work is cut finely enough. Window 512; what the forward pass keeps is there
beforehand."""


if __name__ == "__main__":
    main()
