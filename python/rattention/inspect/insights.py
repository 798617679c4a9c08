"""What the numbers mean: rules with thresholds that can be set, and the compression each suggests.

A rule looks at one statistic of the query row (`RowStatistics`): it fires for a head, a layer or the model
when the median over the samples, and over the heads and layers in question, exceeds the rule's threshold.
What a rule suggests is a hypothesis: attention weights are not importance, and a strategy must be validated
on the task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rattention._files import json_ready
from rattention.inspect.findings import Findings


@dataclass(frozen=True)
class Limits:
    """Finite numbers that statistics are compared with."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"threshold {field.name} must be finite, got {getattr(self, field.name)}")


@dataclass(frozen=True)
class Rules(Limits):
    """Where the rules begin to fire; each is a threshold that a statistic has to exceed."""

    recency_ratio: float = 2.0
    """Recency bias: recent/distant ratio above this."""
    entropy: float = 2.0
    """Broad attention: entropy above this many nats (e^2 is about 7 positions with equal weights)."""
    relative_entropy: float = 0.8
    """Broad attention for the length: entropy above this share of ln of the visible positions."""
    top_mass: float = 0.6
    """Sparse: more than this share of the mass on the top tenth of the positions."""
    clustering: float = 2.0
    """Clustered: runs of attended positions longer than by chance by more than this factor."""
    sink_mass: float = 0.3
    """Attention sink: more than this share of the mass on the first four positions."""


@dataclass(frozen=True)
class Rule:
    """One rule: what it looks at, what it says and what it suggests."""

    name: str
    threshold: str
    """The field of `Rules`."""
    statistic: str
    """The field of `RowStatistics`."""
    says: str
    unit: str
    """What the statistic is, in words."""
    strategy: str
    """A name in `rattention.compression.STRATEGIES`."""
    why: str


RULES = (
    Rule(
        "recency bias",
        "recency_ratio",
        "recent_distant_ratio",
        "recent positions get more attention than distant ones",
        "recent/distant ratio",
        "recency",
        "keep the newest positions",
    ),
    Rule(
        "broad attention",
        "entropy",
        "entropy",
        "attention is spread over several positions",
        "entropy in nats",
        "uniform",
        "keep positions at equal distances, because hardly any stands out",
    ),
    Rule(
        "broad for its length",
        "relative_entropy",
        "relative_entropy",
        "attention is nearly even over all that is visible",
        "entropy / ln n",
        "uniform",
        "keep positions at equal distances, because what is dropped hardly differs from what is kept",
    ),
    Rule(
        "sparse",
        "top_mass",
        "top_mass",
        "few positions carry most of the mass",
        "mass on the top tenth",
        "query",
        'keep the positions with most attention, from the query ("query") or from all rows ("received")',
    ),
    Rule(
        "clustered",
        "clustering",
        "clustering",
        "attended positions lie in groups",
        "run length against chance",
        "clusters",
        "replace each cluster of keys by its mean",
    ),
    Rule(
        "attention sink",
        "sink_mass",
        "sink_mass",
        "the first positions get much attention whatever they hold",
        "mass on the first four",
        "sinks",
        "whatever else is kept, keep the first positions",
    ),
)
"""In the order of the report."""


@dataclass(frozen=True)
class Insight:
    """What one rule found."""

    rule: str
    fired: bool
    """For the model: `value` exceeds `threshold`."""
    statistic: str
    value: float
    """The median over samples, layers and heads; NaN where nothing could be measured."""
    threshold: float
    layers: tuple[int, ...]
    """Those whose own median exceeds the threshold."""
    heads: tuple[tuple[int, int], ...]
    """``(layer, head)`` of those whose own median does."""
    of_heads: int
    """Heads measured."""
    text: str
    strategy: str
    """Which compression it suggests, a name in `rattention.compression.STRATEGIES`."""

    def as_data(self) -> dict[str, Any]:
        """For JSON; None where there is no number."""
        return json_ready(vars(self))


@dataclass(frozen=True)
class Advice:
    """All rules, and what they suggest together."""

    insights: tuple[Insight, ...]
    strategy: str
    """A name in `rattention.compression.STRATEGIES`."""
    reason: str
    compressible: tuple[int, ...]
    """Layers, those first in which the fewest positions hold 90 % of the attention."""
    by_layer: dict[int, str]
    """The same as `strategy` for each layer alone, from the rules that fired in it."""
    alternatives: tuple[str, ...] = ()
    """What other rules that fired suggest, in the order of `RULES`."""

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "insights": [insight.as_data() for insight in self.insights],
            "strategy": self.strategy,
            "alternatives": list(self.alternatives),
            "reason": self.reason,
            "layers_by_compressibility": list(self.compressible),
            "strategy_by_layer": {str(layer): strategy for layer, strategy in self.by_layer.items()},
        }

    def lines(self) -> list[str]:
        """What each rule found, then one piece of advice and its alternatives."""
        return [insight.text for insight in self.insights] + [self.reason]


def advise(findings: Findings, rules: Rules | None = None) -> Advice:
    """Apply the rules, with the default thresholds where none are given."""
    thresholds = Rules() if rules is None else rules
    insights = tuple(_insight(rule, findings, getattr(thresholds, rule.threshold)) for rule in RULES)
    fired = {insight.rule for insight in insights if insight.fired}
    strategy, reason = _together(fired)
    other = {rule.strategy: rule.why for rule in RULES if rule.name in fired and rule.strategy != strategy}
    if other:
        reason += f" Alternatives: {'; '.join(f'{name} ({why})' for name, why in other.items())}."
    needed = findings.per_layer("needed_share")
    order = np.argsort(np.where(np.isnan(needed), np.inf, needed), kind="stable")
    by_layer = {
        layer: _together({insight.rule for insight in insights if layer in insight.layers})[0]
        for layer in findings.layers
    }
    layers = tuple(findings.layers[i] for i in order)
    return Advice(insights, strategy, reason, layers, by_layer, tuple(other))


def _insight(rule: Rule, findings: Findings, threshold: float) -> Insight:
    """The number, the rule and where it holds, also in words."""
    value, per_head = findings.overall(rule.statistic), findings.per_head(rule.statistic)
    fires = zip(findings.layers, findings.per_layer(rule.statistic) > threshold, strict=True)
    layers = tuple(number for number, above in fires if above)
    numbers = findings.head_numbers(per_head.shape[1])
    above = zip(*np.nonzero(per_head > threshold), strict=True)
    heads = tuple((findings.layers[i], numbers[h]) for i, h in above)
    of_heads = int((~np.isnan(findings.per_head("entropy"))).sum())
    shown = "cannot be measured" if math.isnan(value) else f"{value:,.2f}"
    where = f"layers {', '.join(map(str, layers))}; " if layers else ""
    where += f"{len(heads)} of {of_heads} heads"
    fired = value > threshold
    says, sign = (rule.says, " >") if fired else ("no", ", not >")
    text = f"{rule.name}: {says} ({rule.unit} {shown}{sign} {threshold:g}; above it: {where})."
    return Insight(
        rule.name, fired, rule.statistic, value, threshold, layers, heads, of_heads, text, rule.strategy
    )


TOGETHER = (
    ({"recency bias", "sparse"}, "recent+query", "recent positions matter, and a few distant ones stand out"),
    ({"recency bias", "clustered"}, "recent+clusters", "recent positions matter, distant ones lie in groups"),
    ({"recency bias", "attention sink"}, "sinks", "recent positions matter, and the first ones"),
    ({"sparse"}, "query", "few positions carry most of the attention"),
    ({"recency bias"}, "recency", "recent positions carry most of the attention"),
    ({"clustered"}, "clusters", "attended positions lie in groups"),
    ({"attention sink"}, "sinks", "the first positions carry much of the attention"),
    ({"broad for its length"}, "uniform", "attention is nearly even"),
    ({"broad attention"}, "uniform", "attention is spread, and nothing stands out"),
)
"""Rules that fired together, and the strategy for them; the first that fits is taken."""


def _together(fired: set[str]) -> tuple[str, str]:
    for rules, strategy, reason in TOGETHER:
        if rules <= fired:
            return strategy, f"Try {strategy} first: {reason}. Validate it before you rely on it."
    return "recency", "No rule fired: nothing stands out; recency is the cheapest to try. Validate it."
