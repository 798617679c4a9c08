"""``rattention demo --interactive``: a conversation typed turn by turn, measured after each."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rattention._metrics import MetricOptions
from rattention.cli.report import contexts_table
from rattention.cli.subject import load
from rattention.cli.terminal import Style, note
from rattention.studies.degradation import Selection, TextSource
from rattention.studies.degradation.contexts import ContextMetrics, measure_context
from rattention.studies.degradation.conversation import is_whole
from rattention.studies.degradation.story import context_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rattention.studies.degradation import Thresholds


def run(
    model: str | None,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    thresholds: Thresholds,
    *,
    as_json: bool,
    simple: bool,
) -> int:
    """Read turns until an empty line or the end of the input; print the context's metrics after each."""
    if simple:
        raise ValueError("--interactive needs a model to read what is typed; leave out --simple")
    bert = load(model)
    selection = Selection.of(bert.config, layers, heads)
    positions = bert.config.max_positions
    note(f"{bert.name} reads up to {positions} tokens; an empty line ends the conversation")
    text, measured = "", list[ContextMetrics]()
    for turn in _turns():
        longer = f"{text} {turn}".strip()
        if not is_whole(bert.encode([longer], max_length=positions), longer):
            note(f"the model's {positions} positions are full: this turn is left out; a shorter one may fit")
            continue
        text = longer
        context = TextSource(bert, text).context(positions)
        previous = measured[-1].retention if measured else None
        measured.append(
            measure_context(context, context.sequence_length, selection, MetricOptions(), previous)
        )
        if not as_json:
            print(contexts_table(measured, thresholds, Style.of()), flush=True)
    if as_json:
        print(json.dumps({"model": bert.name, "contexts": [context_data(c, thresholds) for c in measured]}))
    return 0


def _turns() -> Iterator[str]:
    """Lines with something in them; the prompt goes to stderr, so that stdout holds results alone."""
    number = 1
    while True:
        if sys.stdin.isatty():
            print(f"turn {number}> ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline()
        if sys.stdin.isatty() and not typed:
            print(file=sys.stderr)  # Ctrl-D leaves the cursor behind the prompt
        line = typed.strip()
        if not line:
            return
        yield line
        number += 1
