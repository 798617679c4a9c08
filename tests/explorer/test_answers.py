"""The numbers on the page are those of the stored maps."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.compression import STRATEGIES
from rattention.explorer.labels import METRICS
from rattention.explorer.labels import STRATEGIES as LABELS
from rattention.explorer.passages import passages
from rattention.explorer.reading import MEASURED
from rattention.mechanisms.pooled_map import bin_edges

from tests.explorer import readings
from tests.explorer.readings import LENGTH

CHOICES = [(None, None), (0, None), (1, 2), (2, 1), (None, 1), (None, 3)]


def named(layer, head):
    return {"layer": "mean" if layer is None else str(layer), "head": "mean" if head is None else str(head)}


def pair(numbers):
    return ",".join(map(str, numbers))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("part", [(0, LENGTH), (7, 23), (60, 61)])
def test_reads_and_readers(choice, part):
    start, stop = part
    given = {**named(*choice), "start": str(start), "stop": str(stop)}
    reads, readers = (readings.explorer().ask(name, given)[name] for name in ("reads", "readers"))
    dense = readings.chosen(*choice)
    np.testing.assert_allclose(reads, dense[start:stop].mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(readers, dense[:, start:stop].sum(axis=1), atol=4e-6)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("shape", [(61, 61), (5, 9), (2000, 3)])
@pytest.mark.parametrize("part", [((0, 61), (0, 61)), ((10, 40), (3, 50))])
def test_map(choice, shape, part):
    given = {"rows": pair(part[0]), "keys": pair(part[1]), "shape": pair(shape)}
    answer = readings.explorer().ask("map", {**named(*choice), **given})
    (a, b), (c, d) = answer["rows"], answer["keys"]
    assert (a, b, c, d) == (*part[0], *part[1])
    dense = readings.chosen(*choice)[a:b, c:d]
    assert answer["weights"].shape == tuple(np.minimum(shape, dense.shape))
    edges = [bin_edges(*span, most) for span, most in zip(part, shape, strict=True)]
    sums = np.add.reduceat(dense, edges[0][:-1] - a, axis=0)
    means = np.add.reduceat(sums, edges[1][:-1] - c, axis=1) / (
        np.diff(edges[0])[:, None] * np.diff(edges[1])
    )
    np.testing.assert_allclose(answer["weights"], means, atol=2e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_overview(choice):
    readings.explorer().background.all_received()  # before they are there, means are of layers that are
    answer = readings.explorer().ask("overview", named(*choice))
    some = [0, 1, 2] if choice[0] is None else [choice[0]]
    expected, entropies = [], []
    for layer in some:
        each = readings.maps()[layer]
        if choice[1] is not None:
            each = each[choice[1] : choice[1] + 1]
        if not len(each):
            continue
        expected.append(each.mean(axis=0).sum(axis=0) / np.maximum(visible(layer).sum(axis=0), 1))
        logs = np.log(np.where(each > 0, each, 1))
        entropies.append((-each * logs).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(answer["received"], np.mean(expected, axis=0), atol=2e-6)
    assert answer["edges"].tolist() == list(range(LENGTH + 1))
    row = answer["curves"][MEASURED.index("entropy")]
    np.testing.assert_allclose(row, np.mean(entropies, axis=0), atol=2e-4)


def visible(layer):
    """Which keys a row may see, ``[rows, keys]``."""
    rows, keys = np.indices((LENGTH, LENGTH))
    return (keys <= rows, (keys <= rows) & (rows - keys <= 7), (keys != 5) & (rows >= 0))[layer]


def test_grid():
    values = readings.explorer().ask("grid")["values"]
    assert values.shape == (len(METRICS), 3, 4)
    assert tuple(METRICS) == MEASURED
    assert np.isnan(values[:, 2, 2:]).all()
    largest = values[MEASURED.index("max_weight")]
    for layer, dense in enumerate(readings.maps()):
        np.testing.assert_allclose(largest[layer, : len(dense)], dense.max(axis=2).mean(axis=1), atol=2e-6)


def test_window():
    """What lies farther away than a window's size."""
    answer = readings.explorer().ask("window")
    rows, keys = np.indices((LENGTH, LENGTH))
    for i, size in enumerate(answer["edges"]):
        for layer, dense in enumerate(readings.maps()):
            lost = np.where(abs(rows - keys) > size, dense, 0).sum(axis=2).mean()
            assert answer["lost"][layer, i] == pytest.approx(lost, abs=2e-6)
    assert answer["lost"][1, 3] == pytest.approx(0, abs=1e-6)  # its own window holds 7 keys back


@pytest.mark.parametrize("budget", ["0.1", "0.5", "1"])
def test_compression(budget):
    """Kept by at least half of the key/value heads; the shares are those of the newest row."""
    answer = readings.explorer().ask("compression", {"budget": budget})
    names = [strategy["name"] for strategy in answer["strategies"]]
    assert names == list(LABELS) == [n for n, s in STRATEGIES.items() if not s.replaces]
    count = max(1, int(float(budget) * LENGTH))
    newest = answer["kept"][names.index("recency")]
    assert newest.tolist() == [0] * (LENGTH - count) + [1] * count
    expected = [dense[:, -1, LENGTH - count :].sum(axis=1).mean() for dense in readings.maps()]
    held = answer["strategies"][names.index("recency")]["held"]
    assert held == pytest.approx(np.mean(expected), abs=1e-5)


def test_passages():
    units = np.array([0, 1, 9, 20, 48, LENGTH])
    found = passages(readings.reading(), units, {(0, 1), (1, None), (None, None), (None, 3)})
    for choice, told in found.items():
        dense = readings.chosen(*choice)
        rows = np.add.reduceat(dense, units[:-1], axis=0) / np.diff(units)[:, None]
        mass = np.add.reduceat(rows, units[:-1], axis=1)
        to, share = told.to
        np.testing.assert_allclose(share, np.take_along_axis(mass, to, axis=1), atol=3e-6)
        np.testing.assert_allclose(share[:, 0], mass.max(axis=1), atol=3e-6)
        by, given = told.by
        np.testing.assert_allclose(given, np.take_along_axis(mass.T, by, axis=1), atol=3e-6)
        np.testing.assert_allclose(given[:, 0], mass.T.max(axis=1), atol=3e-6)


@pytest.mark.parametrize(
    ("question", "params", "said"),
    [
        ("nothing", {}, "question must be one of document"),
        ("grid", {"layer": "0"}, "grid takes nothing; got layer"),
        ("overview", {"layer": "0"}, "overview takes layer, head; got layer"),
        ("overview", {"layer": "3", "head": "0"}, "layer must be a whole number from 0 to 2"),
        ("overview", {"layer": "2", "head": "2"}, "head must be a whole number from 0 to 1"),
        ("overview", {"layer": "-1", "head": "0"}, "layer must be"),
        ("overview", {"layer": "٣", "head": "0"}, "layer must be"),
        ("reads", {**named(0, 0), "start": "5", "stop": "5"}, "start < stop"),
        ("reads", {**named(0, 0), "start": "5", "stop": "62"}, "from 0 to 61"),
        ("map", {**named(0, 0), "rows": "0,9", "keys": "0", "shape": "4,4"}, "keys must be two numbers"),
        ("map", {**named(0, 0), "rows": "0,9", "keys": "0,9", "shape": "0,4"}, "shape must be"),
        ("compression", {"budget": "0"}, r"budget must be a number in \(0, 1\]"),
        ("compression", {"budget": "nan"}, "budget must be"),
    ],
)
def test_bad_questions(question, params, said):
    with pytest.raises(ValueError, match=said):
        readings.explorer().ask(question, params)
