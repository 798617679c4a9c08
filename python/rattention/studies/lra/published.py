"""The published comparison, as context only: other sizes, other hardware, and possibly another pipeline."""

from __future__ import annotations

from rattention.studies.lra.tasks import TASKS

SOURCE = (
    "Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, ICLR 2021 (arXiv:2011.04006), "
    "Table 1, as in the README of google-research/long-range-arena (8 November 2020)"
)

CAVEAT = (
    "As context only: these models had other sizes and settings and ran on other hardware, and an "
    "early data pipeline of the benchmark lost the brackets of ListOps; the sources do not say whether these "
    "numbers come from it. They cannot be compared with the numbers of this study."
)

ACCURACIES = {
    "Transformer": {"listops": 36.37, "text": 64.27},
    "Local attention": {"listops": 15.82, "text": 52.98},
    "Sparse Transformer": {"listops": 17.07, "text": 63.58},
    "Longformer": {"listops": 35.63, "text": 62.85},
    "Linformer": {"listops": 35.70, "text": 53.94},
    "Reformer": {"listops": 37.27, "text": 56.10},
    "Sinkhorn Transformer": {"listops": 33.67, "text": 61.20},
    "Synthesizer": {"listops": 36.99, "text": 61.68},
    "BigBird": {"listops": 36.05, "text": 64.02},
    "Linear Transformer": {"listops": 16.13, "text": 65.90},
    "Performer": {"listops": 18.01, "text": 65.40},
}
"""Test accuracy in percent by model and task."""


def rows() -> list[list[str]]:
    """The table as text, its header first: the tasks for which there are numbers."""
    tasks = [task for task in TASKS if any(task in numbers for numbers in ACCURACIES.values())]
    return [
        ["Model", *(f"{TASKS[task].label} (%)" for task in tasks)],
        *(
            [model, *(f"{numbers[task]:.2f}" if task in numbers else "–" for task in tasks)]
            for model, numbers in ACCURACIES.items()
        ),
    ]
