"""Every strategy by name; the command line, the validation and the tests go through this table.

Some are training-free methods of the literature, with differences:

- ``"sinks"``: StreamingLLM (arXiv 2309.17453, section 3.2), the first 4 tokens and the newest ones. There
  positions are counted within the cache; here tokens keep their true positions.
- ``"query"``: TOVA (arXiv 2401.06104), the tokens with most attention from the newest query. There the mean
  over heads decides for all heads of a layer; here each key/value head chooses for itself.
- ``"recent+received"``: H2O (arXiv 2306.14048), half of the budget for the newest tokens, half for those with
  most attention from all queries. There attention is summed, which favours old tokens; here it is the mean
  over the queries that may see a token. Where generation cuts, the queries since the last cut decide, at most
  64, much as the observation window of SnapKV (arXiv 2404.14469), which compresses prompts alone and also
  smooths over neighbouring tokens.
"""

from __future__ import annotations

from typing import Any

from rattention.compression.clusters import Clusters
from rattention.compression.strategies import SINKS, Recency, Strategy, TopK, Uniform

STRATEGIES: dict[str, Strategy] = {
    "recency": Recency(),
    "sinks": Recency(sinks=SINKS),
    "uniform": Uniform(),
    "received": TopK(by="received"),
    "query": TopK(by="query"),
    "clusters": Clusters(),
    "representatives": Clusters(by="representative"),
    "recent+received": Recency() + TopK(by="received"),
    "recent+query": Recency() + TopK(by="query"),
    "recent+clusters": Recency() + Clusters(),
}
"""Strategies with their usual settings."""


def require_strategy(strategy: Any) -> Strategy:
    """`strategy`, or that of a name in `STRATEGIES`; ValueError for other names, TypeError for others."""
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a Strategy or a name, got {type(strategy).__name__}")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    return STRATEGIES[strategy]
