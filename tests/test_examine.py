"""Statistics of the microscope: each number by its definition, from maps that are stored for the purpose."""

from __future__ import annotations

import doctest
import importlib
from itertools import pairwise

import numpy as np
import pytest
from rattention.inspect import LayerAttention, Sample, examine
from rattention.inspect.statistics import (
    MapOptions,
    attended_positions,
    clustering,
    measure_layer,
    shown_cells,
    top_mass,
    visible_keys,
)
from rattention.mechanisms.masks import Masks, reference_visible
from rattention.mechanisms.pooled_map import bin_edges

from tests.bert_folder import write_folder
from tests.extras import needs
from tests.processes import run_python


def attention(length=40, heads=3, batch=1, seed=0, **options):
    rng = np.random.default_rng(seed)
    query, key = rng.standard_normal((2, batch, heads, length, 8), np.float32) * 1.5
    return LayerAttention(0, "layer", query, key, {"causal": True, **options})


MASKS = {
    "causal": {},
    "full": {"causal": False},
    "window": {"window": 7},
    "two-sided": {"causal": False, "window": (3, 9)},
    "padding": {"key_mask": np.arange(40)[None] >= 6},
    "padding at the end": {"causal": False, "key_mask": np.arange(40)[None] < 33},
    "segments": {"segment_ids": np.arange(40)[None] // 15},
    "dense": {"causal": False, "attn_mask": np.random.default_rng(1).random((1, 1, 40, 40)) < 0.5},
    "added": {"attn_mask": np.where(np.random.default_rng(2).random((40, 40)) < 0.5, -np.inf, 0.5)},
}


def visible_map(captured):
    batch, heads, rows, _ = captured.query.shape
    return reference_visible(Masks(**captured.options), batch, heads, rows, captured.key.shape[2])[0]


def of(name):
    options = dict(MASKS[name])
    if "attn_mask" in options and options["attn_mask"].dtype != bool:
        options["attn_mask"] = options["attn_mask"].astype(np.float32)
    return attention(**options)


@pytest.mark.parametrize("masks", MASKS)
def test_visible_keys_of_a_row(masks):
    captured = of(masks)
    for row in (0, 11, 39):
        np.testing.assert_array_equal(visible_keys(captured, row), visible_map(captured)[:, :, row])


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize(
    ("rows", "keys", "shape"), [((0, 40), (0, 40), (9, 7)), ((5, 31), (2, 39), (64, 64))]
)
def test_cells_that_show_something(masks, rows, keys, shape):
    captured = of(masks)
    weights = captured.map(shape, rows, keys)[0]
    seen = visible_map(captured)[0].any(axis=0)
    down, across = bin_edges(*rows, shape[0]), bin_edges(*keys, shape[1])
    expected = [[seen[a:b, c:d].any() for c, d in pairwise(across)] for a, b in pairwise(down)]
    np.testing.assert_array_equal(shown_cells(captured, weights, rows, keys), expected)


@pytest.mark.parametrize("masks", ["causal", "full", "window", "padding"])
@pytest.mark.parametrize("row", [-1, 20])
def test_statistics_of_the_query_row(masks, row):
    """By their definitions, in float64."""
    captured = of(masks)
    measured = measure_layer(captured, "sample", None, row, None)
    weights = captured.rows(range(40))[0].astype(np.float64)
    at = row % 40
    for head in range(3):
        seen = np.flatnonzero(visible_map(captured)[0, head, at])
        p = weights[head, at, seen]
        context = p[seen != at]
        found = {
            name: getattr(measured.query, name)[head] for name in ("context", "entropy", "relative_entropy")
        }
        entropy = -(p * np.log(p)).sum()
        assert found["context"] == len(context)
        np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-4)
        np.testing.assert_allclose(found["relative_entropy"], entropy / np.log(len(p)), rtol=1e-4)
        np.testing.assert_allclose(measured.query.context_mean[head], context.mean(), rtol=1e-4)
        np.testing.assert_allclose(measured.query.context_std[head], context.std(), rtol=1e-3)
        tenth = max(1, len(p) // 10)
        np.testing.assert_allclose(measured.query.top_mass[head], np.sort(p)[-tenth:].sum(), rtol=1e-5)
        fewest = 1 + np.flatnonzero(np.cumsum(np.sort(p)[::-1]) >= 0.9 * p.sum())[0]
        np.testing.assert_allclose(measured.query.needed_share[head], fewest / len(p))
        np.testing.assert_allclose(measured.query.sink_mass[head], weights[head, at, :4].sum(), rtol=1e-5)


def test_means_over_rows_and_what_is_received():
    captured = attention()
    measured = measure_layer(captured, "sample", [2, 0], -1, None)
    metrics = captured.metrics()
    assert measured.weights.shape == (2, 40)
    np.testing.assert_allclose(measured.mean["entropy"], metrics.entropy[0, [0, 2]].mean(axis=1), rtol=1e-6)
    ratios = metrics.recent_distant_ratio[0, [0, 2]].astype(np.float64)
    np.testing.assert_allclose(measured.mean["recent_distant_ratio"], np.nanmedian(ratios, axis=1))
    np.testing.assert_array_equal(measured.received, metrics.received[0, [0, 2]])


def test_means_leave_out_rows_that_see_nothing():
    masked = attention(key_mask=np.arange(40)[None] >= 3)  # causal rows 0 to 2 see no key
    metrics = masked.metrics()
    assert metrics.empty_rows[0].sum(axis=1).tolist() == [3] * metrics.entropy.shape[1]
    measured = measure_layer(masked, "sample", [0], -1, None)
    np.testing.assert_allclose(measured.mean["entropy"], metrics.entropy[0, :1, 3:].mean(axis=1), rtol=1e-6)


def test_top_mass_and_attended_positions():
    weights = np.array([0.41, 0.0, 0.04, 0.5, 0.05, 0.9], np.float32)
    visible = np.array([True, True, True, True, True, False])
    assert top_mass(weights, visible) == pytest.approx(0.5)
    np.testing.assert_array_equal(attended_positions(weights, visible), [0, 3])
    assert len(attended_positions(weights, np.zeros(6, bool))) == 0


@pytest.mark.parametrize(
    ("attended", "visible", "expected"),
    [
        ([0, 1, 2, 10, 11, 12], 20, 3 / (20 / 15)),
        ([0, 2, 4], 20, 1 / (20 / 18)),
        ([3, 4, 5], 20, np.nan),
        ([], 20, np.nan),
    ],
)
def test_clustering(attended, visible, expected):
    assert clustering(np.array(attended, np.int64), visible) == pytest.approx(expected, nan_ok=True)


def test_clustering_of_chance_is_one():
    rng = np.random.default_rng(0)
    found = [clustering(np.sort(rng.choice(400, 120, replace=False)), 400) for _ in range(300)]
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_pooled_map_and_zoom():
    captured = attention(heads=2)
    options = MapOptions((8, 8), rows=(-16, None), keys=(4, -4))
    picture = measure_layer(captured, "sample", [1], -1, options).map
    assert (picture.rows, picture.keys, picture.weights.shape) == ((24, 40), (4, 36), (1, 8, 8))
    np.testing.assert_array_equal(picture.weights, captured.map((8, 8), (24, 40), (4, 36))[0, [1]])


@pytest.mark.parametrize("span", [(0, 41), (5, 5), (-41, None), (30, 20), (40, None)])
@pytest.mark.parametrize("side", ["rows", "keys"])
def test_zoom_outside_the_sequence(side, span):
    with pytest.raises(ValueError, match=f"{side} .* does not lie within the 40 positions of sample"):
        measure_layer(attention(), "sample", None, -1, MapOptions(**{side: span}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": [3]}, r"heads must be numbers from 0 to 2, got \[3\]"),
        ({"heads": []}, "heads must be numbers"),
        ({"row": 40}, "row must be between -40 and 39"),
        ({"row": -41}, "row must be between"),
    ],
)
def test_heads_and_rows_that_are_not_there(options, message):
    arguments = {"heads": None, "row": -1, "maps": None} | options
    with pytest.raises(ValueError, match=message):
        measure_layer(attention(), "sample", **arguments)


def test_several_sequences_in_a_sample():
    with pytest.raises(ValueError, match="one sequence, got a batch of 2"):
        measure_layer(attention(batch=2), "sample", None, -1, None)


def test_weights_that_are_nan():
    captured = attention()
    captured.query[0, 1, 30] = np.nan
    with pytest.raises(ValueError, match=r"layer 0 \(layer\) attends with NaN in this one"):
        measure_layer(captured, "this one", None, -1, None)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    needs("models")
    from rattention.models import Bert

    return Bert.from_pretrained(write_folder(tmp_path_factory.mktemp("bert")))


def samples(lengths=(12, 30)):
    return [Sample(f"sample {n}", (np.arange(n)[None] % 20,)) for n in lengths]


def test_findings(bert):
    findings = examine(bert, samples())
    assert findings.layers == (0, 1)
    assert findings.entropy.shape == (2, 2, 3)
    assert [s.sequence_length for s in findings.samples] == [12, 30]
    assert [s.context_tokens for s in findings.samples] == [11, 29]
    values = findings.context_mean
    np.testing.assert_allclose(findings.per_layer("context_mean"), np.median(values, axis=(0, 2)))
    np.testing.assert_allclose(findings.per_head("context_mean"), np.median(values, axis=0))
    with pytest.raises(AttributeError, match="perplexity is no statistic; there are context_mean"):
        findings.perplexity  # noqa: B018
    assert "samples=2, layers=(0, 1)" in repr(findings)
    assert findings.overall("context_mean") == pytest.approx(np.median(values))
    table = findings.table()
    assert len(table) == 2 * 2 * 3
    row = next(r for r in table if (r["sample"], r["layer"], r["head"]) == ("sample 30", 1, 2))
    assert row["context_mean"] == values[1, 1, 2]
    assert row["rows_entropy"] == findings.samples[1].layers[1].mean["entropy"][2]
    assert findings.sample_table()[0]["context_mean"] == pytest.approx(np.median(values[0]))


def test_chosen_layers_and_heads(bert):
    full, some = examine(bert, samples()), examine(bert, samples(), layers=[1], heads=[2, 0])
    assert (some.layers, some.head_numbers(2)) == ((1,), (0, 2))
    np.testing.assert_array_equal(some.entropy, full.entropy[:, 1:, [0, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2]}, r"layers must be numbers from 0 to 1, got \[2\]"),
        ({"heads": [3]}, "heads must be numbers from 0 to 2"),
        ({"row": 12}, "row must be between -12 and 11 in sample 12"),
    ],
)
def test_what_does_not_exist(bert, options, message):
    with pytest.raises(ValueError, match=message):
        examine(bert, samples(), **options)
    assert not any(layer.attention_hook for layer in bert.attention_layers().values())


def test_no_samples(bert):
    with pytest.raises(ValueError, match="at least one sample"):
        examine(bert, [])


def test_layers_of_different_numbers_of_heads():
    needs("torch")
    import torch
    from rattention.nn import LanguageModel, MultiTimescale

    pattern = ["softmax", MultiTimescale(timescales=[3.0, 9.0])]
    torch.manual_seed(0)
    model = LanguageModel(20, dim=16, heads=2, depth=2, pattern=pattern)
    findings = examine(model, [Sample("numbers", (torch.arange(15)[None],))])
    entropy = findings.entropy
    assert entropy.shape == (1, 2, 4)
    np.testing.assert_array_equal(np.isnan(entropy[0]), [[False, False, True, True], 4 * [False]])
    assert np.isfinite(findings.per_layer("entropy")).all()
    assert len(findings.table()) == 6


def test_a_model_in_training_is_left_so():
    needs("torch")
    import torch
    from rattention.nn import LanguageModel

    torch.manual_seed(0)
    model = LanguageModel(20, dim=16, heads=2, depth=1, dropout=0.5)
    sample = Sample("numbers", (torch.arange(15)[None],))
    first, second = (examine(model, [sample]).entropy for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training


def test_import_needs_numpy_alone():
    run_python(
        "import sys, rattention.inspect;"
        "assert not {'torch', 'transformers', 'matplotlib', 'pandas'} & {*sys.modules}"
    )


def test_memory_of_a_long_context():
    """One head's map of 8 k positions would take 256 MiB."""
    needs("torch")
    code = """
        import torch
        from rattention.inspect import Sample
        from rattention.inspect.statistics import MapOptions, examine_sample
        from rattention.nn import SelfAttention
        from tests.processes import peak_beyond
        layer = SelfAttention(32, heads=2, causal=True)
        sample, small = (Sample("x", (torch.randn(1, n, 32),)) for n in (8192, 64))
        examine_sample(layer, small, maps=MapOptions())
        print(peak_beyond(lambda: examine_sample(layer, sample, maps=MapOptions()), 0) / 2**20)
    """
    assert float(run_python(code)) < 64


def test_examples():
    needs("torch")
    assert doctest.testmod(importlib.import_module("rattention.inspect.findings")).failed == 0
