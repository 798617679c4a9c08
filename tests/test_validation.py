"""rattention compress and rattention.studies.compression: what compressed runs are compared by."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import rattention as ra
import torch
from rattention.cli.compress import validation_text
from rattention.cli.text import Style
from rattention.compression import STRATEGIES, Clusters, Recency, TopK
from rattention.hf import convert
from rattention.models import Bert
from rattention.nn import rattention_pattern
from rattention.studies.compression import Measured, Trial, Validation, validate
from rattention.studies.compression.history import observed_past
from rattention.studies.compression.language import Continuation
from rattention.studies.compression.results import Constant
from rattention.studies.compression.sentences import Sentences
from rattention.studies.kit.intervals import interval

from tests.bert_folder import write_folder
from tests.compressed_models import WORDS, native
from tests.hf_models import build

pytestmark = pytest.mark.usefixtures("one_thread")


def ids(vocabulary=60, length=300):
    return np.random.default_rng(0).integers(5, vocabulary, length)


def language(model, **sizes):
    return Continuation(model, ids(), **({"prefix": 24, "continuation": 6, "batch": 2} | sizes))


MODELS = {"nn": native, "llama": lambda: build("llama"), "gpt2": lambda: build("gpt2")}


@pytest.mark.parametrize("name", MODELS)
def test_perplexity_is_that_of_the_text(name):
    """Against one pass over the pieces that the seed draws."""
    model = MODELS[name]()
    task = language(model)
    full = task.full(3)
    starts = np.random.default_rng(3).integers(0, 300 - 30 + 1, 2)
    pieces = torch.from_numpy(np.stack([ids()[at : at + 30] for at in starts]))
    with torch.no_grad():
        logits = model(pieces)
    logits = getattr(logits, "logits", logits)[:, 24:-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), pieces[:, 25:].flatten())
    assert full.quality == pytest.approx(float(loss.exp()), rel=1e-4)
    one = full.nbytes / (2 * 29)
    assert one == task.reader.token_nbytes()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_whole_budget_is_the_full_model(name, strategy):
    task = language(MODELS[name]())
    full = task.full(0)
    ours = task.compressed(STRATEGIES[strategy], 1.0)
    assert ours.quality == pytest.approx(full.quality, rel=1e-5)
    assert ours.mass == 1
    assert ours.against_full["kl"] == pytest.approx(0, abs=1e-8)
    assert ours.against_full["top1_agreement"] == 1
    assert ours.against_full["output_error"] == pytest.approx(0, abs=1e-5)


def test_differences_between_logits():
    """By their definitions, of a model compressed to very little."""
    model = native()
    task = language(model)
    task.full(1)
    ours = task.compressed(STRATEGIES["recency"], 2)
    pieces = task._pieces
    with torch.no_grad():
        full = model(pieces)[:, 24:-1].double()
        with ra.compress(model, "recency", 2):
            cache = model.new_cache(2)
            model(pieces[:, :24], cache=cache)
            got = torch.cat([model(pieces[:, i : i + 1], cache=cache) for i in range(24, 29)], 1).double()
    p, q = full.softmax(-1).numpy(), got.softmax(-1).numpy()
    assert ours.against_full["kl"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    assert ours.against_full["kl"] > 1e-4
    agree = (p.argmax(-1) == q.argmax(-1)).mean()
    assert ours.against_full["top1_agreement"] == pytest.approx(agree)
    error = np.linalg.norm((got - full).numpy()) / np.linalg.norm(full.numpy())
    assert ours.against_full["output_error"] == pytest.approx(error, rel=1e-4)
    assert 0 < ours.mass < 1


def test_layers_of_constant_size():
    """Of models with RAttention: bytes held against those that keys and values of all tokens would take."""
    task = language(native(rattention_pattern(window=4)))
    full = task.full(0)
    constant = task.constant()
    assert constant.label == "RAttention, window 4 + state"
    assert constant.nbytes == full.nbytes
    assert constant.full_nbytes == 4 * 2 * 32 * 4 * 2 * 29
    model = build("llama")
    convert(model, 4, layers=[0])
    converted = language(model)
    held = converted.full(0).nbytes
    assert converted.constant().nbytes == held
    assert language(native()).constant() is None
    assert validate(task, ["recency"], [4], [0]).constant == constant


class Known:
    """A task whose results are given; `seconds` of its full and compressed runs one after the other, the last
    of them again and again."""

    name, quality, higher_is_better, strategies = "known", "score", True, ("recency", "uniform", "received")

    def __init__(self, higher=True, full=(2.0,), compressed=(1.0,)):
        self.higher_is_better = higher
        self.calls = []
        self.seconds = {"full": list(full), "compressed": list(compressed)}

    def taken(self, what):
        return self.seconds[what].pop(0) if len(self.seconds[what]) > 1 else self.seconds[what][0]

    def full(self, seed):
        self.calls.append(("full", seed))
        self.seed = seed
        return Measured(10.0 + seed, self.taken("full"), nbytes=100)

    def compressed(self, strategy, budget):
        self.calls.append((strategy, budget))
        quality = (10.0 + self.seed) * (0.5 if strategy is STRATEGIES["recency"] else 0.97)
        return Measured(quality, self.taken("compressed"), 0.25, 25, 0.8, {"kl": 0.1 * (self.seed + 1)})

    def constant(self):
        return None


def test_full_and_compressed_runs_take_turns():
    """A full run before every strategy, and a first of each that does not count."""
    task = Known()
    measured = validate(task, ["recency", "uniform"], [0.25, 8], [4, 9])
    recency, uniform = STRATEGIES["recency"], STRATEGIES["uniform"]
    first = [("full", 4), (recency, 0.25), ("full", 4), (recency, 0.25), (recency, 8)]
    second = [("full", 4), (uniform, 0.25), ("full", 4), (uniform, 0.25), (uniform, 8)]
    then = [("full", 9), (recency, 0.25), (recency, 8), ("full", 9), (uniform, 0.25), (uniform, 8)]
    assert task.calls == first + second + then
    assert measured.seeds == (4, 9)
    assert len(measured.trials) == 8
    assert [cell.turns for cell in measured.cells()] == [2] * 4


def test_short_runs_are_repeated():
    task = Known(full=[0.5], compressed=[0.2])
    measured = validate(task, ["recency"], [0.5], [0, 1])
    assert len(measured.trials[0].turns) == 3  # 2.1 seconds
    assert len(validate(Known(full=[0.01], compressed=[0.01]), ["recency"], [0.5], [0]).trials[0].turns) == 5


def test_the_first_runs_do_not_count():
    """Neither of the full model nor of a strategy: what is made once is no part of what compression costs."""
    cell = validate(Known(full=[99, 2], compressed=[50, 1]), ["recency"], [0.5], [0, 1]).cells()[0]
    assert (cell.numbers["speed_up"].median, cell.numbers["speed_up"].high) == (2, 2)
    assert cell.numbers["seconds"].high == 1


def test_one_disturbed_run_does_not_move_the_speed_up():
    """Quartiles and median of the ratios 20, 2, 2 and 1."""
    task = Known(full=[2, 20, 2, 2, 2], compressed=[1, 1, 1, 1, 2])
    cell = validate(task, ["recency"], [0.5], [0, 1, 2, 3]).cells()[0]
    speed = cell.numbers["speed_up"]
    assert (speed.low, speed.median, speed.high) == (1.75, 2, 6.5)
    assert (
        cell.pace()
        == "faster: 2.00 times as fast as uncompressed (median of 4 turns, quartiles 1.75 and 6.50)"
    )


def test_slower_is_said_in_words():
    slow = validate(Known(full=[2], compressed=[8]), ["recency"], [0.5], [0])
    assert slow.verdict(0.5).endswith(
        "Including the time to choose, it is slower: 0.25 times as fast as uncompressed (median of 1 turn, "
        "quartiles 0.25 and 0.25)"
    )
    unsure = validate(Known(full=[2], compressed=[9, 1, 4]), ["recency"], [0.5], [0, 1])
    assert "neither clearly faster nor slower: 1.25 times" in unsure.verdict(0.5)
    table = validation_text(slow, "v", [], Style.of())
    assert re.search(r"recency +0\.5 .* 0\.25 slower +12\.5%", table)
    assert "slower" not in validation_text(unsure, "v", [], Style.of())


@dataclasses.dataclass(frozen=True)
class Slow(Recency):
    """The newest tokens, after a while."""

    def keep(self, past, count):
        time.sleep(0.2)
        return super().keep(past, count)


def slow_tasks(folder):
    yield Sentences(Bert.from_pretrained(folder), WORDS, length=20, batch=1)
    yield language(native())
    from rattention.studies.compression.rooms import Rooms
    from rattention.studies.dark_room import HistoryTransformer

    yield Rooms(HistoryTransformer(81, 5, 30, dim=16, heads=2, depth=1).eval(), [3, 60], episodes=3)


def test_the_time_to_choose_counts(folder, monkeypatch):
    """In every task: the same choice, made slowly, makes the model slower."""
    monkeypatch.setitem(STRATEGIES, "recency", Slow())
    for task in slow_tasks(folder):
        cell = validate(task, ["recency"], [0.5], [0]).cells()[0]
        assert cell.numbers["seconds"].low >= 0.2, task.name
        assert cell.numbers["speed_up"].median < 1, task.name
        assert cell.numbers["compressing"].median > 1, task.name


def test_validations_as_data():
    """All of it comes back; without times these are not among the numbers."""
    measured = validate(Known(full=[0.5], compressed=[0.2]), ["recency", "uniform"], [0.5, 8], [0, 1])
    data = json.loads(json.dumps(measured.as_data(), allow_nan=False))
    again = Validation.from_data(data)
    assert again.as_data() == data
    assert again.cells() == measured.cells()
    for trial in data["trials"]:
        del trial["turns"], trial["full"]["seconds"], trial["compressed"]["seconds"]
    untimed = Validation.from_data(data)
    assert set(measured.cells()[0].numbers) - set(untimed.cells()[0].numbers) == {
        "seconds",
        "speed_up",
        "compressing",
    }
    assert untimed.best(0.5).numbers["share"] == measured.best(0.5).numbers["share"]
    assert "time" not in untimed.verdict(0.5)


def test_numbers_of_a_cell():
    cell = validate(Known(), ["recency"], [0.5], [0, 1, 2]).cells()[0]
    assert cell.seeds == 3
    assert cell.numbers["share"].mean == pytest.approx(0.5)
    assert cell.numbers["share"].low == pytest.approx(0.5)  # paired: the seeds' own qualities do not count
    assert cell.numbers["quality"].mean == pytest.approx(5.5)
    assert cell.numbers["speed_up"].median == 2
    assert cell.numbers["compressing"].median == 0.125
    assert cell.numbers["bytes_share"].mean == 0.25
    kl = cell.numbers["kl"]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert (kl.mean, kl.low, kl.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_lower_is_better():
    cells = validate(Known(higher=False), None, [0.5], [0]).cells()
    assert [cell.numbers["share"].mean for cell in cells] == pytest.approx([2, 1 / 0.97, 1 / 0.97])


def test_one_seed_has_no_interval():
    only = interval([3.0])
    assert only.mean == 3
    assert math.isnan(only.low)
    data = validate(Known(), ["recency"], [0.5], [0]).as_data()
    assert data["cells"][0]["share"] == {"mean": 0.5, "low": None, "high": None}
    json.dumps(data, allow_nan=False)


def test_the_verdict():
    measured = validate(Known(), ["recency", "uniform"], [0.5], [0, 1])
    assert measured.best(0.5).strategy == "uniform"
    assert "'uniform' keeps 97.0% (95% interval 97.0% to 97.0%)" in measured.verdict(0.5)
    assert "at least 95%" in measured.verdict(0.5)
    poor = validate(Known(), ["recency"], [0.5], [0, 1]).verdict(0.5)
    assert "less than 95% although it keeps 80% of the query's attention" in poor
    with pytest.raises(ValueError, match=r"budget 0\.25 was not measured"):
        measured.best(0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["best"],), "strategies must be some of recency, uniform, received; got best"),
        (([],), "strategies must be some of"),
        ((None, [0.5, 1.5]), "got 1.5"),
        ((None, []), "must not be empty"),
        ((None, [0.5], []), "must not be empty"),
    ],
)
def test_impossible_validations(arguments, message):
    with pytest.raises(ValueError, match=message):
        validate(Known(), *arguments)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"prefix": 290, "continuation": 20}, "300 tokens, fewer than prefix and continuation together, 310"),
        ({"continuation": 1}, "continuation >= 2"),
        ({"batch": 0}, "batch must be >= 1"),
    ],
)
def test_impossible_continuations(sizes, message):
    with pytest.raises(ValueError, match=message):
        language(native(), **sizes)
    with pytest.raises(TypeError, match="got Linear"):
        Continuation(torch.nn.Linear(2, 2), ids())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    write_folder(folder)
    return folder


def test_tokens_of_a_bert(folder):
    """Chosen by the mean over layers and heads of what [CLS] attends to, against its stored metrics."""
    model = Bert.from_pretrained(folder)
    task = Sentences(model, WORDS, length=20, batch=3)
    assert task.full(0).quality == 1
    whole = task.compressed(STRATEGIES["received"], 1.0)
    assert whole.quality == pytest.approx(1, abs=1e-6)
    assert whole.mass == pytest.approx(1, abs=1e-5)
    half = task.compressed(STRATEGIES["query"], 0.5)
    assert half.quality < 1
    assert half.nbytes < task.full(0).nbytes
    framed = task._framed(task._pieces)
    assert framed.shape == (3, 22)
    with ra.capture(model) as seen:
        model(framed)
    expected = np.mean([layer.rows([0])[:, :, 0, 1:-1].mean(axis=1) for layer in seen], axis=0)
    got = observed_past(model, task._whole, (3, 20), TopK("query"), first=1, query_row=0).attention("query")
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    received = observed_past(model, task._whole, (3, 20), TopK(), first=1).attention("received")
    slow = [
        layer.received.mean(axis=1)[:, 1:-1] for layer in model(framed, metrics=ra.MetricOptions()).metrics
    ]
    np.testing.assert_allclose(received, np.mean(slow, axis=0), rtol=1e-4)
    keys = observed_past(model, task._whole, (3, 20), Clusters(by="representative"), first=1).key
    assert keys.shape == (3, 20, model.config.layers * model.config.hidden_size)


def measured_for_figures():
    trials = []
    for seed in range(3):
        full = Measured(10.0 + seed, 1.0, nbytes=100)
        for place, name in enumerate(STRATEGIES):
            for budget in (0.25, 0.5):
                ours = Measured((8 + place / 9 + budget + seed), 0.5, 0.1, 50, 0.5, {"kl": 0.1 * seed})
                trials.append(Trial(name, budget, seed, ((full, ours),)))
    return Validation("known", "score", True, tuple(trials), Constant("RAttention", 30, 100))


def test_the_figure_shows_every_strategy_and_budget():
    from rattention.studies.compression import compression_figure, plot_budgets

    measured = measured_for_figures()
    ax = plot_budgets(measured)
    lines = [c for c in ax.containers if len(c.lines[0].get_xdata()) == 2]
    assert len(lines) == len(STRATEGIES)
    for line, cell in zip(lines, measured.cells()[1::2], strict=True):
        assert line.lines[0].get_ydata()[1] == pytest.approx(cell.numbers["share"].mean)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(names) == sorted([*STRATEGIES, "RAttention:\n30% of the bytes"])
    assert ax.get_xlabel() == "Budget (share of the tokens)"
    figure = compression_figure(measured, title="t")
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "Share of the full quality",
        "Attention mass kept",
        "KL from the full predictions (nats)",
        "Speed-up (times, median and quartiles)",
    ]
    figure.draw_without_rendering()
    for ax in figure.axes[1:]:
        tops = [max(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) == 2]
        room = ax.transData.transform([(1, ax.get_ylim()[1]), (1, max(tops))])[:, 1]
        assert room[0] - room[1] >= 4.5 / 2 / 72 * figure.dpi, ax.get_ylabel()  # half a marker
    again = plot_budgets(measured, "kl", ax=figure.axes[0])
    assert again is figure.axes[0]
    with pytest.raises(ValueError, match="got 'entropy'"):
        plot_budgets(measured, "entropy")
