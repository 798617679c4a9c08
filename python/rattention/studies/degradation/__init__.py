"""How attention changes as its context grows: the measurements behind ``rattention demo``, for Python.

A `Source` gives contexts of a length asked for: `TextSource` runs a pretrained model on the beginning of a
text, `SyntheticSource` gives seeded queries and keys. `measure` takes all measurements; each can also be
taken alone: `measure_contexts`, `measure_window_cutoff` and `measure_recall`. No attention map is stored
anywhere. `rattention.studies.degradation.figures` draws them.
"""

from rattention.studies.degradation.contexts import (
    WINDOWS,
    ContextMetrics,
    Degradation,
    Recall,
    Thresholds,
    WindowCutoff,
    measure,
    measure_contexts,
    measure_recall,
    measure_window_cutoff,
)
from rattention.studies.degradation.sources import (
    Context,
    Conversation,
    Selection,
    Source,
    SyntheticConversation,
    SyntheticSource,
    TextSource,
    default_text,
    read_turns,
)
from rattention.studies.degradation.story import summarise

__all__ = [
    "WINDOWS",
    "Context",
    "ContextMetrics",
    "Conversation",
    "Degradation",
    "Recall",
    "Selection",
    "Source",
    "SyntheticConversation",
    "SyntheticSource",
    "TextSource",
    "Thresholds",
    "WindowCutoff",
    "default_text",
    "measure",
    "measure_contexts",
    "measure_recall",
    "measure_window_cutoff",
    "read_turns",
    "summarise",
]
