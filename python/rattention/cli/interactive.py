"""``rattention demo --interactive``: a conversation typed turn by turn, measured after each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rattention._metrics import MetricOptions
from rattention.cli.demo import contexts_table
from rattention.cli.text import Style, note, paragraph
from rattention.studies.degradation import Conversation, Selection, TextSource, measure_recall
from rattention.studies.degradation.contexts import context_data, measure_context
from rattention.studies.degradation.sources import is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rattention.cli.demo import Demo
    from rattention.models import Bert
    from rattention.studies.degradation import ContextMetrics, Recall

HELP = """
Type a conversation, one turn a line. Begin with a fact, such as "The key is under the blue stone.", talk
about other things, and ask for the fact in a turn that ends with a question mark: "Where is the key?". After
each turn you see the metrics of the whole conversation, and after a question how much of its attention goes
to the first turn. "help" shows this again; "quit" or Ctrl-D ends.
"""


def converse(options: Demo, model: Bert) -> int:
    """Read turns until "quit" or the end of the input; print the metrics of the context after each."""
    selection = Selection.of(model.config, options.layer, options.head)
    metrics, turns = MetricOptions(), list[str]()
    measured: list[ContextMetrics] = []
    recalls: list[Recall | None] = []
    print(paragraph(" ".join(HELP.split())), file=sys.stderr)
    for typed in _turns():
        turn = _fitting(model, turns, typed)
        if not turn:
            positions = model.config.max_positions
            note(f"the model's {positions} positions are full: this turn is left out; quit and begin again")
            continue
        turns.append(turn)
        context = TextSource(model, " ".join(turns)).context(model.config.max_positions)
        previous = measured[-1].retention if measured else None
        measured.append(measure_context(context, context.sequence_length, selection, metrics, previous))
        recalls.append(_recall(model, turns, selection))
        if not options.json:
            _show(options, measured[-1], recalls[-1], metrics)
    if options.json:
        contexts = [
            context_data(c, options.thresholds) | {"recall": r and {"mean_mass": r.mean_mass, "rank": r.rank}}
            for c, r in zip(measured, recalls, strict=True)
        ]
        options.show({"model": model.name, "contexts": contexts}, lambda style: "")
    return 0


def _show(options: Demo, context: ContextMetrics, recall: Recall | None, metrics: MetricOptions) -> None:
    print(contexts_table([context], options.thresholds, metrics.long_range_distance, Style.of()))
    if recall:
        print(paragraph(_verdict(recall), "  ", first="  "))
    sys.stdout.flush()


def _recall(model: Bert, turns: list[str], selection: Selection) -> Recall | None:
    """How the last turn, where it is a question, looks at the first."""
    if len(turns) < 2 or not turns[-1].endswith("?"):
        return None
    return measure_recall(Conversation(model, turns), [model.config.max_positions], selection=selection)[0]


def _verdict(recall: Recall) -> str:
    found = "finds" if recall.mean_mass > recall.even_mass else "does not find"
    return (
        f"The question {found} the first turn: it gives it {recall.mean_mass:.1%} of its attention (even "
        f"share: {recall.even_mass:.1%}); its most attended token ranks {recall.rank} of {recall.candidates}."
    )


def _fitting(model: Bert, turns: list[str], turn: str) -> str:
    """As many words of a turn as the positions hold after the turns before; a note where it is cut."""
    words = turn.split()

    def fits(count: int) -> bool:
        text = " ".join([*turns, *words[:count]])
        return is_whole(model.encode([text], max_length=model.config.max_positions), text)

    kept = next((count for count in range(len(words), 0, -1) if fits(count)), 0)
    if 0 < kept < len(words):
        note(f"the model has {model.config.max_positions} positions: only the first {kept} words fit")
    return " ".join(words[:kept])


def _turns() -> Iterator[str]:
    """Lines that are neither empty nor a command. The prompt goes to stderr: stdout holds results alone."""
    number, terminal = 1, sys.stdin.isatty()
    while True:
        if terminal:
            print(f"turn {number}> ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline()
        if terminal and not typed:
            print(file=sys.stderr)  # Ctrl-D leaves the cursor after the prompt
        line = typed.strip()
        if not typed or line.lower() in ("quit", "exit"):
            return
        if line.lower() in ("help", "?"):
            print(paragraph(" ".join(HELP.split())), file=sys.stderr)
        elif not line:
            note('an empty line is no turn: type something, or "quit" to end')
        else:
            yield line
            number += 1
