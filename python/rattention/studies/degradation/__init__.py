"""How attention changes as its context grows: the measurements behind ``rattention demo``, for Python.

A `Source` gives contexts of a length asked for: `TextSource` runs a pretrained model on the beginning of a
text, `SyntheticSource` draws seeded queries and keys. `measure` tells the whole story; its parts stand alone:
`measure_contexts`, `measure_window_cutoff` and `measure_recall`. No attention map is stored anywhere.
"""

from rattention.studies.degradation.contexts import ContextMetrics, measure_contexts
from rattention.studies.degradation.conversation import Conversation, read_turns
from rattention.studies.degradation.recall import Recall, RecallContext, RecallSource, measure_recall
from rattention.studies.degradation.sources import Context, Selection, Source, TextSource, default_text
from rattention.studies.degradation.story import Degradation, measure
from rattention.studies.degradation.summary import summarise
from rattention.studies.degradation.synthetic import SyntheticConversation, SyntheticSource
from rattention.studies.degradation.thresholds import Thresholds
from rattention.studies.degradation.window import WINDOWS, WindowCutoff, measure_window_cutoff

__all__ = [
    "WINDOWS",
    "Context",
    "ContextMetrics",
    "Conversation",
    "Degradation",
    "Recall",
    "RecallContext",
    "RecallSource",
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
