"""Rules of the microscope: each fires above its threshold and not at it, and says so."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from rattention.compression import STRATEGIES
from rattention.inspect import Findings, Rules, advise
from rattention.inspect.insights import RULES, TOGETHER
from rattention.inspect.statistics import STATISTICS, LayerMeasure, RowStatistics, SampleMeasure

QUIET = {
    "context_mean": 0.01,
    "context_std": 0.01,
    "entropy": 1.0,
    "relative_entropy": 0.3,
    "recent_distant_ratio": 1.0,
    "top_mass": 0.2,
    "needed_share": 0.5,
    "clustering": 1.0,
    "sink_mass": 0.05,
}
"""A head about which no rule says anything."""


def layer(number, heads=2, **changes):
    values = {name: np.broadcast_to(np.asarray(v, float), heads) for name, v in (QUIET | changes).items()}
    statistics = RowStatistics(context=np.full(heads, 19), **values)
    row = np.full((heads, 20), 0.05, np.float32)
    return LayerMeasure(number, statistics, {}, row, row, None)


def findings(*layers, samples=1):
    return Findings(tuple(SampleMeasure(f"sample {i}", (), layers) for i in range(samples)))


def fired(found, rules=None):
    return {insight.rule for insight in advise(found, rules).insights if insight.fired}


def test_every_threshold_has_a_rule():
    assert [rule.threshold for rule in RULES] == [field.name for field in fields(Rules)]
    assert {rule.statistic for rule in RULES} <= set(STATISTICS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_fires_above_its_threshold_alone(rule):
    threshold = getattr(Rules(), rule.threshold)
    above = np.nextafter(threshold, np.inf)
    assert fired(findings(layer(0, **{rule.statistic: threshold}))) == set()
    assert fired(findings(layer(0, **{rule.statistic: above}))) == {rule.name}
    other = Rules(**{rule.threshold: 2 * threshold})
    assert fired(findings(layer(0, **{rule.statistic: above})), other) == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_nothing_fires_where_nothing_can_be_measured(rule):
    found = advise(findings(layer(0, **{rule.statistic: np.nan})))
    insight = next(i for i in found.insights if i.rule == rule.name)
    assert not insight.fired
    assert "cannot be measured" in insight.text
    assert insight.as_data()["value"] is None


def test_an_infinite_ratio_is_recency_bias():
    assert fired(findings(layer(0, recent_distant_ratio=np.inf))) == {"recency bias"}


def test_where_it_fired():
    """Layers and heads by their own medians, the model by the median of all."""
    found = findings(
        layer(0),
        layer(1, recent_distant_ratio=[5.0, 1.0]),
        layer(3, recent_distant_ratio=[1.0, 1.5]),
        samples=3,
    )
    insight = advise(found).insights[0]
    assert (insight.fired, insight.value) == (False, 1.0)
    assert (insight.layers, insight.heads, insight.of_heads) == ((1,), ((1, 0),), 6)
    assert "recent/distant ratio 1.00, not > 2; above it: layers 1; 1 of 6 heads" in insight.text
    most = advise(findings(layer(1, recent_distant_ratio=[5.0, 3.0]), layer(3, recent_distant_ratio=2.5)))
    text = most.insights[0].text
    assert "recent/distant ratio 2.75 > 2; above it: layers 1, 3; 4 of 4 heads" in text
    assert most.lines()[-1].startswith("Try recency first: recent positions")
    assert most.alternatives == ()


def test_both_rules_of_broad_attention_say_which_they_are():
    both = advise(findings(layer(0, entropy=4.0, relative_entropy=0.9)))
    texts = [i.text for i in both.insights if i.fired]
    assert ["entropy in nats 4.00 > 2" in texts[0], "entropy / ln n 0.90 > 0.8" in texts[1]] == [True, True]


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, "recency"),
        ({"recent_distant_ratio": 9}, "recency"),
        ({"recent_distant_ratio": 9, "top_mass": 0.9}, "recent+query"),
        ({"recent_distant_ratio": 9, "clustering": 4}, "recent+clusters"),
        ({"recent_distant_ratio": 9, "sink_mass": 0.5}, "sinks"),
        ({"top_mass": 0.9}, "query"),
        ({"clustering": 4}, "clusters"),
        ({"sink_mass": 0.5}, "sinks"),
        ({"entropy": 4}, "uniform"),
        ({"entropy": 4, "relative_entropy": 0.95}, "uniform"),
    ],
)
def test_strategies(changes, strategy):
    advice = advise(findings(layer(0, **changes)))
    assert advice.strategy == strategy
    assert "alidate" in advice.reason


def test_one_piece_of_advice_and_its_alternatives():
    """Rules that contradict each other do not each say what to do."""
    advice = advise(findings(layer(0, entropy=4.0, relative_entropy=0.9, top_mass=0.9, sink_mass=0.5)))
    assert (advice.strategy, advice.alternatives) == ("query", ("uniform", "sinks"))
    assert sum("Try " in line for line in advice.lines()) == 1
    assert not any(name in " ".join(advice.lines()[:-1]) for name in ("uniform", "query"))
    assert "Alternatives: uniform (keep positions at equal distances" in advice.reason
    assert advice.as_data()["alternatives"] == ["uniform", "sinks"]


def test_strategies_exist():
    named = {rule.strategy for rule in RULES} | {strategy for _, strategy, _ in TOGETHER}
    assert named <= set(STRATEGIES)


def test_layers_by_compressibility():
    found = findings(layer(0, needed_share=0.6), layer(2, needed_share=0.1), layer(5, needed_share=np.nan))
    assert advise(found).compressible == (2, 0, 5)


def test_strategies_of_layers():
    found = findings(layer(0, entropy=3.0), layer(4, top_mass=0.9), layer(5))
    advice = advise(found)
    assert advice.by_layer == {0: "uniform", 4: "query", 5: "recency"}


def test_advice_as_data():
    data = advise(findings(layer(0, top_mass=0.9))).as_data()
    json.dumps(data, allow_nan=False)
    assert [i["rule"] for i in data["insights"] if i["fired"]] == ["sparse"]
    assert data["layers_by_compressibility"] == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_thresholds_must_be_numbers(value):
    with pytest.raises(ValueError, match="threshold entropy must be finite"):
        Rules(entropy=value)
