"""A study: trainings and results, one after another into a folder, going on where it stopped."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rattention._files import json_ready, writable_folder, write_json
from rattention.studies.kit import distributed
from rattention.studies.kit.folder import (
    STUDY,
    at_work,
    environment,
    read_result,
    write_environment,
)
from rattention.studies.kit.settings import as_plain, differences
from rattention.studies.lm.config import SUBSETS, Study
from rattention.studies.lm.corpus import MANIFEST
from rattention.studies.lm.experiments import EXPERIMENTS, Run
from rattention.studies.lm.models import Bench

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rattention.studies.lm.corpus import CorpusData

RESULTS = "results"
"""The folder of what `analyze` reads: a file for each run."""


def _ignore(_line: str) -> None:
    pass


def run_study(
    study: Study, folder: str | os.PathLike[str], progress: Callable[[str], None] = _ignore
) -> list[dict[str, Any]]:
    """Every run of a study that is not finished yet, then the analysis.

    Parameters
    ----------
    study:
        What to run. More experiments, seeds, windows and layouts may go into its folder later.
    folder:
        Gets the results (see the package's documentation); one that is new, empty, or of this study.
    progress:
        Is called with a line for each run.

    Returns
    -------
    The results of the study's runs.

    Raises
    ------
    ValueError
        A folder that holds something else, the results of another study (the message says what differs), or
        in which another process is at work; texts that cannot be used, or that have changed.
    OSError
        A folder that cannot be written, a full disk. Finished runs and checkpoints are kept.
    FloatingPointError, KeyboardInterrupt
        As `rattention.studies.lm.training.train` raises them.
    """
    distributed.init()
    if distributed.rank() != 0:
        progress = _ignore
    with at_work(folder, partial(open_folder, study)) as path:
        results = list(_results(study, path, progress))
    if distributed.rank() == 0:
        from rattention.studies.lm.analysis import analyze

        analyze([path], path)
    distributed.barrier()
    return results


def open_folder(study: Study, folder: Path) -> None:
    """Write down the study and where it runs; ValueError where the folder has another one."""
    path = folder / STUDY
    if path.exists():
        before = Study.load(path)
        chosen: dict[str, Any] = {name: getattr(before, name) + getattr(study, name) for name in SUBSETS}
        before, study = (replace(each, **chosen) for each in (before, study))
        if differing := differences(before, study):
            raise ValueError(
                f"{folder} holds another study, with {'; '.join(differing)}: choose another folder, or the "
                "same settings to go on"
            )
    study.save(path)
    write_environment(folder)


def runs_of(study: Study) -> list[Run]:
    """All runs of a study."""
    return [run for name in study.experiments for run in EXPERIMENTS[name].runs(name, study)]


def _results(study: Study, folder: Path, progress: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    runs, data = runs_of(study), None
    if any(_reads_text(run) for run in runs):
        data = _loaded(study, folder)
    bench = Bench(study, folder, data, progress)
    writable_folder(folder / RESULTS)
    for index, run in enumerate(runs, 1):
        path = folder / RESULTS / f"{run.name}.json"
        result = distributed.broadcast(read_result(path) if distributed.rank() == 0 else None)
        after = "finished before"
        if result is None:
            began = time.perf_counter()
            result = _result(bench, run)
            after = f"{time.perf_counter() - began:.0f} s"
            if distributed.rank() == 0:
                write_json(path, result)
        progress(f"[{index}/{len(runs)}] {run.name}: {after}")
        yield dict(result)


def _reads_text(run: Run) -> bool:
    return run.experiment not in ("recall", "cost")


def _result(bench: Bench, run: Run) -> dict[str, Any]:
    """Train where that is asked for, and measure."""
    model, training = bench.trained(run)
    began = time.perf_counter()
    found: dict[str, Any] = {}
    if distributed.rank() == 0:
        found = EXPERIMENTS[run.experiment].evaluate(bench.study, run, model, bench.data)
    distributed.barrier()
    return json_ready(
        {
            "experiment": run.experiment,
            "variant": as_plain(run.variant),
            "name": run.variant.name,
            "label": run.variant.label,
            "seed": run.seed,
            "trained_on": run.training,
            "training": training,
            **found,
            "evaluation_seconds": time.perf_counter() - began,
            "corpus_sha256": None if bench.data is None or not _reads_text(run) else bench.data.sha256,
            "settings": as_plain(bench.study),
            "environment": environment(),
        }
    )


def _loaded(study: Study, folder: Path) -> CorpusData:
    """The texts; rank 0 makes the cache, which the others read. ValueError where the study has other ones."""
    if distributed.rank() != 0:
        distributed.barrier()
    data = study.corpus.load(study.training.context * _longest(study))
    if distributed.rank() == 0:
        before = read_result(folder / MANIFEST)
        if before is not None and before["sha256"] != data.sha256:
            raise ValueError(f"the texts have changed since {folder} was begun: choose another folder")
        write_json(folder / MANIFEST, {"sha256": data.sha256} | data.manifest)
        distributed.barrier()
    return data


def _longest(study: Study) -> int:
    return max(study.length.factors) if "length" in study.experiments else 1
