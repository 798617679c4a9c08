"""How attention changes as its context grows: the measurements behind ``rattention demo``, for Python.

A `Source` gives contexts of a length asked for: `TextSource` runs a pretrained model on the beginning of a
text, `SyntheticSource` draws seeded queries and keys. `measure` tells the whole story; its parts stand alone:
`measure_contexts`, `measure_window_cutoff` and `measure_recall`. No attention map is stored anywhere.
"""

from rattention.degradation.contexts import ContextMetrics, measure_contexts
from rattention.degradation.conversation import Conversation, read_turns
from rattention.degradation.recall import Recall, RecallContext, RecallSource, measure_recall
from rattention.degradation.sources import Context, Selection, Source, TextSource, default_text
from rattention.degradation.story import Degradation, measure
from rattention.degradation.summary import summarise
from rattention.degradation.synthetic import SyntheticConversation, SyntheticSource
from rattention.degradation.thresholds import Thresholds
from rattention.degradation.window import WINDOWS, WindowCutoff, measure_window_cutoff

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
