"""Folders of results as tables, figures and sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from rattention._files import figure_format, save_figure, writable_folder, write_csv, write_json, write_text
from rattention.studies.kit.intervals import interval
from rattention.studies.lm.figures import figures_of
from rattention.studies.lm.findings import Contrast, contrasts_of, cost_sentences, markdown
from rattention.studies.lm.results import Number, numbers_of, read_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Analysis:
    """What a study came to."""

    numbers: tuple[Number, ...]
    contrasts: tuple[Contrast, ...]
    costs: tuple[str, ...]
    """Sentences on bytes of caches."""
    files: tuple[Path, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Means over seeds with intervals, None where there is one seed only."""
        groups: dict[tuple[Any, ...], list[Number]] = {}
        for number in self.numbers:
            groups.setdefault((number.experiment, number.name, number.measure, number.at), []).append(number)
        rows = []
        for own in groups.values():
            bounds = interval([number.value for number in own])
            one = asdict(own[0]) | {"seeds": len(own), "mean": bounds.mean}
            several = len(own) > 1
            bounded = {"low": bounds.low if several else None, "high": bounds.high if several else None}
            rows.append({n: v for n, v in one.items() if n not in ("seed", "value")} | bounded)
        return rows

    def as_data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "summary": self.rows(),
            "contrasts": [contrast.as_data() for contrast in self.contrasts],
            "costs": list(self.costs),
            "files": [str(path) for path in self.files],
        }


def analyze(
    folders: Iterable[str | Path], out: str | Path | None = None, *, formats: Sequence[str] = ("png",)
) -> Analysis:
    """Compare the finished runs of one or several folders.

    Parameters
    ----------
    folders:
        What ``rattention lm run`` has written; runs that are not finished have no result and do not count.
    out:
        Gets ``summary.json``, ``summary.csv`` (a row for each number), ``findings.md`` and ``figures/``; None
        writes nothing.
    formats:
        Of figures, each one of ``"png"``, ``"svg"`` and ``"pdf"``.

    Raises
    ------
    ValueError
        As `read_results`; an unknown format.
    OSError
        `out` cannot be written.
    """
    for name in formats:
        figure_format(name)
    results = read_results(folders)
    numbers = numbers_of(results)
    analysis = Analysis(tuple(numbers), tuple(contrasts_of(numbers)), tuple(cost_sentences(numbers)))
    if out is None:
        return analysis
    files = _write(analysis, results, writable_folder(out), formats)
    return Analysis(analysis.numbers, analysis.contrasts, analysis.costs, tuple(files))


def _write(
    analysis: Analysis, results: list[dict[str, Any]], folder: Path, formats: Sequence[str]
) -> list[Path]:
    files = [folder / name for name in ("summary.json", "summary.csv", "findings.md")]
    write_json(files[0], analysis.as_data())
    names = [field.name for field in fields(Number)]
    write_csv(files[1], names, ([getattr(n, name) for name in names] for n in analysis.numbers))
    write_text(files[2], markdown(analysis.contrasts, analysis.costs))
    place = writable_folder(folder / "figures")
    for name, figure in figures_of(results, analysis.numbers).items():
        for kind in formats:
            files.append(place / f"{name}.{kind}")
            save_figure(files[-1], figure, dpi=160)
    return files
