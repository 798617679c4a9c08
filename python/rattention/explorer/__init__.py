"""The explorer: walk through what a model attends to in a long document, in a browser or a notebook.

`explore` lets a model read a text once and keeps queries, keys and one logarithm per row; parts of maps are
computed when they are looked at, so that nothing of size n x n is ever stored.
"""

from __future__ import annotations

from rattention.explorer.document import Document
from rattention.explorer.exploration import Exploration, explore
from rattention.explorer.reading import Reading, read

__all__ = ["Document", "Exploration", "Reading", "explore", "read"]
