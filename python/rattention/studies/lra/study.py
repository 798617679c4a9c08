"""A study: one run after another into a folder, going on where it stopped."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rattention.studies.kit import distributed
from rattention.studies.kit.folder import (
    at_work,
    read_result,
)
from rattention.studies.lra import folder as files

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rattention.studies.lra.config import Run, Study
    from rattention.studies.lra.data import TaskData


def _ignore(_line: str) -> None:
    pass


def run_study(
    study: Study, folder: str | os.PathLike[str], progress: Callable[[str], None] = _ignore
) -> list[dict[str, Any]]:
    """Every run of a study that is not finished yet, then the analysis.

    Parameters
    ----------
    study:
        What to run. More tasks, mechanisms and seeds of a study may go into its folder later.
    folder:
        Gets the results (see the package's documentation); one that is new, empty, or of this study.
    progress:
        Is called with a line for each run.

    Returns
    -------
    The results of the study's runs, as their ``result.json`` has them.

    Raises
    ------
    ValueError
        A folder that holds something else, the results of another study (the message says what differs), or
        in which another process is at work; data that cannot be used.
    OSError
        A folder that cannot be written, a full disk. Finished runs and epochs are kept.
    FloatingPointError, RuntimeError, KeyboardInterrupt
        As `rattention.studies.lra.training.do_run` raises them.
    """
    distributed.init()
    if distributed.rank() != 0:
        progress = _ignore
    with at_work(folder, partial(files.open_folder, study)) as path:
        results = list(_results(study, path, progress))
    if distributed.rank() == 0:
        try:
            from rattention.studies.lra.analysis import analyze

            analyze([path], out=path)
        except ImportError as error:
            progress(f"no tables and figures: {error}")
    distributed.barrier()
    return results


def _results(study: Study, folder: Path, progress: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """One after another; what is left takes about as long as what was done, run for run."""
    from rattention.studies.lra.training import do_run  # transformers takes seconds to import

    runs = study.runs()
    done = distributed.broadcast(
        [read_result(folder / files.RUNS / run.name / files.RESULT) for run in runs]
        if distributed.rank() == 0
        else []
    )
    _check_data([run for run, result in zip(runs, done, strict=True) if result is None], progress)
    took: list[float] = []
    data: TaskData | None = None
    for index, (run, result) in enumerate(zip(runs, done, strict=True), 1):
        after = " (finished before)"
        if result is None:
            began = time.perf_counter()
            if data is None or data.name != run.task:
                data = None  # no run's memory is that of another task's data
                data = _loaded(run)
            _report_mismatch(run, data, progress)
            result = do_run(run, data, folder / files.RUNS / run.name)
            took.append(time.perf_counter() - began)
            if distributed.rank() == 0:
                files.write_tables(folder)
            after = _left(took, len(runs) - index)
        progress(
            f"[{index}/{len(runs)}] {run.name}: test accuracy {result['test_accuracy']:.4f} after "
            f"{result['epochs']} epochs of {result['seconds_per_epoch']:.1f} s{after}"
        )
        yield dict(result)


def _check_data(runs: list[Run], progress: Callable[[str], None]) -> None:
    """Make or read the data of every task before anything is trained; ValueError where one cannot be."""
    tasks = {run.task: run.data for run in runs}
    for task, settings in tasks.items():
        fault = None
        if distributed.rank() == 0 and len(tasks) > 1:  # a single task is loaded at once anyway
            progress(f"{task}: checking the data")
            try:
                settings.load()
            except ValueError as error:
                fault = str(error)
        if fault := distributed.broadcast(fault):
            others = ",".join(other for other in tasks if other != task)
            raise ValueError(f"{fault}; or leave {task} out: --tasks {others}")


def _loaded(run: Run) -> TaskData:
    """The data of the run's task; rank 0 makes the cache, which the others read."""
    if distributed.rank() != 0:
        distributed.barrier()
    data = run.data.load()
    if distributed.rank() == 0:
        distributed.barrier()
    return data


def _left(took: list[float], runs: int) -> str:
    seconds = sum(took) / len(took) * runs
    left = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"; about {left} left" if runs else ""


def _report_mismatch(run: Run, data: TaskData, progress: Callable[[str], None]) -> None:
    """Where parameters were to be matched and cannot be."""
    from rattention.studies.lra.models import MATCHED_WITHIN, mismatch

    if run.model.match_parameters:
        more = mismatch(data.vocabulary, data.classes, run.mechanism, run.model, data.longest())
        if abs(more) > MATCHED_WITHIN:
            progress(
                f"{run.name}: parameters cannot be matched, they are {more:+.0%} off softmax "
                "attention's; fewer timescales or a wider MLP would do"
            )
