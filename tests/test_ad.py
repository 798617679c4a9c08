"""The transformer that learns from histories: its inputs, training, files, and acting with fixed weights."""

# ruff: noqa: E402
from __future__ import annotations

import doctest
import os
import signal
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'ad'")
pytest.importorskip("gymnasium", reason="needs the extra 'ad'")
pytest.importorskip("tensorboard", reason="needs the extra 'ad'")

import rattention.ad as ad
from rattention.ad import (
    Collection,
    History,
    HistoryTransformer,
    QLearning,
    Room,
    Training,
    collect,
    compare,
    evaluate,
    example_checkpoint,
    train,
    training,
)
from rattention.ad.windows import WindowSampler
from rattention.models.errors import WeightsError
from rattention.nn import rattention_pattern

SMALL = Collection(Room(size=3, steps=4), QLearning(episodes=6), per_goal=4, held_out=2)
SIZES = {"context": 8, "dim": 16, "heads": 2, "depth": 2}
QUICK = Training(steps=8, batch=4, every=1, warmup=2, log_every=3, checkpoint_every=4)
PATTERNS = {
    "softmax": [{"mechanism": "softmax", "rope_theta": 100.0}],
    "rattention": rattention_pattern(window=4),
    "gravitational": [{"mechanism": "gravitational"}],
}


@pytest.fixture(autouse=True)
def one_thread():
    """Models of this size are faster alone, and a busy machine makes threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def histories():
    return collect(SMALL)


def small_model(**options):
    torch.manual_seed(0)
    return HistoryTransformer(9, 5, **(SIZES | {"columns": 3} | options)).eval()


def random_history(length, batch=2, states=9):
    generator = np.random.default_rng(0)
    whole = [generator.integers(n, size=(batch, length)) for n in (states, 5, 2, states)]
    return History(whole[0], whole[1], whole[2].astype(np.float32), whole[3])


def tensors(history):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in history.arrays()]


class TestModel:
    @pytest.mark.parametrize("length", [0, 1, 8])
    @pytest.mark.parametrize("columns", [None, 3])
    def test_logits(self, length, columns):
        model = small_model(columns=columns)
        logits = model(*tensors(random_history(length)), torch.tensor([4, 7]))
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()

    def test_every_input_counts(self):
        model, history, query = small_model(), random_history(5), torch.tensor([4, 7])
        before = model(*tensors(history), query)
        assert (model(*tensors(history), torch.tensor([5, 7]))[0] != before[0]).any()
        for i in range(4):
            changed = tensors(history)
            changed[i][0, 2] = (changed[i][0, 2] + 1) % 3
            after = model(*changed, query)
            assert (after[0] != before[0]).any()
            assert torch.equal(after[1], before[1])

    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("length", [0, 3, 8])
    def test_training_sees_what_evaluation_sees(self, pattern, length):
        """The query of a window has the logits of the transitions before it, whatever lies behind."""
        model = small_model(pattern=PATTERNS[pattern])
        history = random_history(9)
        states, *others = tensors(history)
        whole = model.predict(states, *others, torch.full((2,), length))
        alone = model(*(tensor[:, :length] for tensor in (states, *others)), states[:, length])
        torch.testing.assert_close(whole[:, length], alone, rtol=1e-4, atol=1e-5)

    def test_layers_are_those_of_the_pattern(self):
        model = small_model(pattern=PATTERNS["rattention"], depth=4)
        layers = model.encoder.attention_layers()
        assert [layer.mechanism for layer in layers] == ["rattention"] * 3 + ["softmax"]
        assert all(layer.causal for layer in layers)

    def test_places_share_rows_and_columns(self):
        embedded = small_model().place(torch.arange(9)).detach()
        torch.testing.assert_close(embedded[4] - embedded[1], embedded[5] - embedded[2])
        apart = small_model(columns=None).place(torch.arange(9)).detach()
        assert not torch.allclose(apart[4] - apart[1], apart[5] - apart[2])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda h, q: (*h[:3], h[3][:, 1:], q), "alike"),
            (lambda h, q: (*h, q[:1]), r"query_state \[batch\]"),
            (lambda h, q: (h[0] + 9, *h[1:], q), "states must be between 0 and 8"),
            (lambda h, q: (h[0], h[1] - 9, *h[2:], q), "actions must be between 0 and 4"),
            (lambda h, q: (*h, q + 9), "query_state must be between 0 and 8"),
            (lambda h, q: (*(torch.cat([t, t], dim=1) for t in h), q), "8 transitions at most, got 10"),
        ],
    )
    def test_wrong_inputs(self, change, said):
        with pytest.raises(ValueError, match=said):
            small_model()(*change(tensors(random_history(5)), torch.tensor([4, 7])))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"context": 0}, "context must be >= 1"),
            ({"columns": 4}, "columns must divide"),
            ({"heads": 3}, "heads"),
        ],
    )
    def test_wrong_sizes(self, options, said):
        with pytest.raises(ValueError, match=said):
            small_model(**options)


class TestFiles:
    def test_round_trip(self, tmp_path):
        model = small_model(pattern=PATTERNS["rattention"])
        model.record = {"seed": 3}
        model.save(tmp_path / "m.safetensors")
        loaded = HistoryTransformer.load(tmp_path / "m.safetensors")
        assert loaded.config == model.config
        assert loaded.record == {"seed": 3}
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, loaded.state_dict()[name])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda model: model.head.weight.data.fill_(float("nan")), "NaN or infinity in head.weight"),
            (lambda model: model.config.update(dim=32), "does not fit the model it describes"),
            (lambda model: model.config.update(depth=3), "does not fit"),
            (lambda model: model.config.update(colour="red"), "does not fit"),
        ],
    )
    def test_other_weights(self, tmp_path, change, said):
        model = small_model()
        change(model)
        model.save(tmp_path / "m.safetensors")
        with pytest.raises(WeightsError, match=said):
            HistoryTransformer.load(tmp_path / "m.safetensors")

    def test_no_file(self, tmp_path):
        with pytest.raises(WeightsError, match=r"none\.safetensors cannot be read"):
            HistoryTransformer.load(tmp_path / "none.safetensors")


class TestWindows:
    def test_windows_are_stretches_of_one_history(self, histories):
        """Kept episodes are whole but for the first, in order and evenly apart."""
        steps, every = SMALL.room.steps, 2
        marked = replace(histories, history=self.numbered(histories))
        windows = WindowSampler(marked, 5, every).draw(400, np.random.default_rng(0))
        agents, times = np.divmod(windows.history.states, 1000)
        assert (agents == agents[:, :1]).all()
        assert (times % steps == (times[:, :1] + np.arange(6)) % steps).all()
        episodes = times // steps
        gaps = np.diff(episodes, axis=1)
        ends = times[:, 1:] % steps == 0
        assert (gaps[~ends] == 0).all()
        assert set(np.unique(gaps[ends])) == {1, 2}
        assert all(len(np.unique(gap[end])) == 1 for gap, end in zip(gaps, ends, strict=True))
        assert len(np.unique(agents)) > 20
        assert episodes.max() == 5

    def test_queries(self, histories):
        """As many at the end of a full context as elsewhere, as many where an episode begins."""
        marked = replace(histories, history=self.numbered(histories))
        windows = WindowSampler(marked, 7, 1).draw(4000, np.random.default_rng(0))
        times = windows.history.states % 1000
        full, begins = windows.lengths == 7, times[:, 0] % 4 == 0
        assert set(windows.lengths) == set(range(8))
        assert full.mean() == pytest.approx(0.5 + 0.25 / 8, abs=0.03)
        assert set(times[full, 0] % 4) == set(range(4))
        assert begins[~full].all()
        queries = times[np.arange(4000), windows.lengths] % 4
        assert (queries == 0).mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.03)
        for length, counted, row in zip(windows.lengths, windows.counted, times, strict=True):
            assert counted.nonzero()[0].tolist() == [i for i in range(length) if row[i] % 4 != 3]

    def test_too_short_histories(self, histories):
        with pytest.raises(ValueError, match="histories are too short: of 6 episodes 3 are left"):
            WindowSampler(histories, 10, 2)

    @staticmethod
    def numbered(histories):
        count, length = histories.history.states.shape
        numbers = 1000 * np.arange(count)[:, None] + np.arange(length)
        return replace(histories.history, states=numbers)


class TestTraining:
    def test_losses_fall(self, histories, tmp_path):
        torch.manual_seed(3)
        state = torch.get_rng_state()
        model = train(histories, tmp_path, replace(QUICK, steps=180, batch=16, log_every=30), sizes=SIZES)
        assert torch.equal(torch.get_rng_state(), state)
        curve = training.read_record(tmp_path)["curve"]
        assert [point["step"] for point in curve] == [30, 60, 90, 120, 150, 180]
        chance = np.log(5)
        assert curve[-1]["transition_loss"] < 0.9 * chance
        assert curve[-1]["held_out_transition_loss"] < 0.9 * chance
        assert model.record["training"]["steps"] == model.record["steps_done"] == 180
        assert list((tmp_path / "tensorboard").iterdir())
        loaded = HistoryTransformer.load(tmp_path / "dark_room.safetensors")
        assert torch.equal(loaded.head.weight, model.head.weight)
        assert loaded.record == model.record

    @pytest.mark.parametrize("dropout", [0.0, 0.2])
    def test_resumed_is_uninterrupted(self, histories, tmp_path, monkeypatch, dropout):
        """Stopped by Ctrl-C within step 5 of 8, and taken up again: the same bits."""
        sizes = SIZES | {"dropout": dropout}
        straight = train(histories, tmp_path / "straight", QUICK, sizes=sizes)
        with monkeypatch.context() as patch:
            interrupt_in_step(5, patch)
            with pytest.raises(KeyboardInterrupt):
                train(histories, tmp_path / "broken", QUICK, sizes=sizes)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert training.read_record(tmp_path / "broken")["steps_done"] == 5
        HistoryTransformer.load(tmp_path / "broken" / "dark_room.safetensors")
        resumed = train(histories, tmp_path / "broken", QUICK, sizes=sizes, resume=True)
        for name, weight in straight.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), name
        curves = [training.read_record(tmp_path / name)["curve"] for name in ("straight", "broken")]
        assert curves[0] == curves[1]

    def test_same_seed_same_weights(self, histories, tmp_path):
        models = [
            train(histories, tmp_path / str(i), replace(QUICK, seed=seed), sizes=SIZES)
            for i, seed in enumerate((0, 0, 1))
        ]
        assert torch.equal(models[0].head.weight, models[1].head.weight)
        assert not torch.equal(models[0].head.weight, models[2].head.weight)

    def test_held_out_goals_are_not_trained_on(self, histories, tmp_path):
        """Other actions in their histories change no weight."""
        held_out = np.isin(histories.goals, SMALL.split()[1])
        actions = np.where(held_out[:, None], 0, histories.history.actions)
        changed = replace(histories, history=replace(histories.history, actions=actions))
        models = [train(h, tmp_path / str(i), QUICK, sizes=SIZES) for i, h in enumerate((histories, changed))]
        assert torch.equal(models[0].head.weight, models[1].head.weight)

    def test_unfinished_trainings_are_not_lost(self, histories, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            interrupt_in_step(2, patch)
            with pytest.raises(KeyboardInterrupt):
                train(histories, tmp_path, QUICK, sizes=SIZES)
        with pytest.raises(ValueError, match="after 2 of 8 steps: resume it"):
            train(histories, tmp_path, QUICK, sizes=SIZES)
        with pytest.raises(ValueError, match="training batch 4 instead of 8"):
            train(histories, tmp_path, replace(QUICK, batch=8), sizes=SIZES, resume=True)
        with pytest.raises(ValueError, match="model dim 16 instead of 32"):
            train(histories, tmp_path, QUICK, sizes=SIZES | {"dim": 32}, resume=True)

    @pytest.mark.parametrize("content", [None, b"", b"no checkpoint", "other"])
    def test_nothing_to_resume(self, histories, tmp_path, content):
        if content == "other":
            torch.save({"step": 3}, tmp_path / "training.pt")
        elif content is not None:
            (tmp_path / "training.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"training\.pt cannot be read"):
            train(histories, tmp_path, QUICK, sizes=SIZES, resume=True)

    def test_a_loss_that_is_no_number_stops(self, histories, tmp_path):
        """The checkpoint before it stays as it was."""
        train(histories, tmp_path / "good", replace(QUICK, steps=4), sizes=SIZES)
        with pytest.raises(
            FloatingPointError, match=r"loss became (nan|inf) in step \d+: lower the learning rate"
        ):
            train(
                histories,
                tmp_path / "bad",
                replace(QUICK, learning_rate=1e30, clip=1e30, warmup=0),
                sizes=SIZES,
            )
        HistoryTransformer.load(tmp_path / "good" / "dark_room.safetensors")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"steps": 0}, "steps must be >= 1, got 0"),
            ({"batch": -1}, "batch must be >= 1"),
            ({"learning_rate": 0.0}, "learning_rate must be a number > 0"),
            ({"learning_rate": float("nan")}, "learning_rate must be a number > 0, got nan"),
            ({"weight_decay": -1.0}, "weight_decay must be a number >= 0"),
        ],
    )
    def test_wrong_options(self, options, said):
        with pytest.raises(ValueError, match=said):
            Training(**options)

    def test_unwritable_folder(self, histories, tmp_path):
        (tmp_path / "taken").write_text("", "utf-8")
        with pytest.raises(OSError, match="cannot write there"):
            train(histories, tmp_path / "taken", QUICK, sizes=SIZES)

    def test_trains_in_a_thread(self, histories, tmp_path):
        """Where signals are not heard."""
        models = []
        worker = threading.Thread(
            target=lambda: models.append(train(histories, tmp_path, QUICK, sizes=SIZES))
        )
        worker.start()
        worker.join()
        assert len(models) == 1

    def test_rate(self):
        schedule = Training(steps=110, warmup=10, learning_rate=1.0)
        rates = [schedule.rate_at(step) for step in range(110)]
        assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
        assert all(a >= b for a, b in pairwise(rates[10:]))
        assert rates[60] == pytest.approx(0.05 + 0.95 / 2)
        assert rates[-1] == pytest.approx(0.05, abs=1e-3)


def interrupt_in_step(step, patch):
    """Ctrl-C while a step computes its losses."""
    count = iter(range(1, 1000))
    losses = training.losses

    def pressed(model, windows):
        if model.training and next(count) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(model, windows)

    patch.setattr(training, "losses", pressed)


class TestEvaluation:
    def test_returns(self):
        model = small_model()
        returns = evaluate(model, [0, 4, 4], 3, room=SMALL.room)
        assert returns.shape == (3, 3)
        assert ((returns >= 0) & (returns <= 4)).all()

    def test_what_the_model_is_shown(self):
        """The history so far, across episodes, at most a context; the model trains on afterwards."""
        model = small_model().train()
        seen = watch(model)
        evaluate(model, [0, 4], 4, room=SMALL.room, seed=2)
        assert [h.shape[1] for h, *_ in seen] == [min(i, 8) for i in range(16)]
        for i, (states, _, _, reached, query) in enumerate(seen):
            if i % 4 == 0:
                assert query.tolist() == [4, 4]
            else:
                assert torch.equal(reached[:, -1], query)
            if i > 8:
                assert torch.equal(states[:, :-1], seen[i - 1][0][:, 1:])
        assert model.training

    def test_seeds_and_temperature(self):
        model = small_model()

        def acted(seed, temperature=1.0):
            seen = watch(model)
            evaluate(model, [0] * 8, 2, room=SMALL.room, seed=seed, temperature=temperature)
            return torch.cat([query for *_, query in seen])

        assert torch.equal(acted(1), acted(1))
        assert not torch.equal(acted(1), acted(2))
        assert torch.equal(acted(1, 0), acted(2, 0))

    def test_actions_follow_the_logits(self):
        """A model that always answers the same: shares of actions are those of its softmax."""
        model = small_model(context=1)
        logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -30.0])
        seen = watch(model, logits)
        evaluate(model, [0] * 500, 1, room=Room(size=3, steps=8), seed=3, temperature=2.0)
        actions = torch.cat([actions[:, -1] for _, actions, *_ in seen[1:]])
        shares = torch.bincount(actions, minlength=5) / len(actions)
        torch.testing.assert_close(shares, (logits / 2).softmax(0), atol=0.03, rtol=0)

    @pytest.mark.parametrize("forget", [False, True])
    def test_compress(self, forget):
        """The model sees what compress returns, which is given everything, or what it kept itself."""
        model, given = small_model(), []

        def newest(history):
            given.append(len(history))
            return history.last(3)

        seen = watch(model)
        evaluate(model, [0, 4], 3, room=SMALL.room, compress=newest, forget=forget)
        assert [h.shape[1] for h, *_ in seen] == [min(i, 3) for i in range(12)]
        assert given == [min(i, 4 if forget else 8) for i in range(12)]

    def test_compress_that_keeps_all_changes_nothing(self):
        model = small_model()
        plain, kept = (evaluate(model, [0, 4], 4, room=SMALL.room, compress=c) for c in (None, lambda h: h))
        np.testing.assert_array_equal(plain, kept)

    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"episodes": 0}, ValueError, "episodes must be >= 1, got 0"),
            ({"goals": [9]}, ValueError, "goals must be between 0 and 8"),
            ({"goals": []}, ValueError, "at least one"),
            ({"room": Room()}, ValueError, "knows 9 states, a room of side 9 has 81"),
            ({"temperature": -1.0}, ValueError, "temperature must be a number >= 0"),
            ({"compress": lambda h: h.states}, TypeError, "compress must return a History, got ndarray"),
            ({"compress": lambda h: History.empty(7)}, ValueError, "compress must keep the batch of 1"),
        ],
    )
    def test_mistakes(self, options, error, said):
        arguments = {"goals": [3], "episodes": 1, "room": SMALL.room} | options
        with pytest.raises(error, match=said):
            evaluate(small_model(), **arguments)

    def test_random_starts(self):
        seen = watch(model := small_model())
        evaluate(model, [0] * 50, 1, room=Room(size=3, steps=4, random_start=True))
        assert len(seen[0][-1].unique()) == 9


def watch(model, logits=None):
    """A list that fills with what the model is called with."""
    seen = []

    def forward(*arguments):
        seen.append(arguments)
        answer = HistoryTransformer.forward(model, *arguments)
        return answer if logits is None else logits.expand_as(answer)

    model.forward = forward
    return seen


class TestComparison:
    def test_everything_is_of_the_same_goals(self, histories, tmp_path):
        model = train(histories, tmp_path, replace(QUICK, steps=2), sizes=SIZES)
        result = compare(model, episodes=3, attempts=2)
        held_out = SMALL.split()[1]
        assert result.goals.tolist() == held_out.tolist()
        assert result.returns.shape == (2, 3)
        assert result.source.shape == (2, 6)
        np.testing.assert_array_equal(result.oracle, ad.oracle_returns(held_out, SMALL.room))
        np.testing.assert_array_equal(result.random, ad.random_returns(held_out, SMALL.room))
        both = evaluate(model, np.repeat(held_out, 2), 3, room=SMALL.room)
        np.testing.assert_array_equal(result.returns, both.reshape(2, 2, 3).mean(axis=1))
        data = result.as_data()
        assert data["mean"]["last_episodes"] == pytest.approx(result.returns.mean(), abs=1e-4)

    def test_figure(self, histories, tmp_path):
        pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
        from rattention.ad.figures import plot_goals, plot_returns, returns_figure

        model = train(histories, tmp_path, replace(QUICK, steps=2), sizes=SIZES)
        result = compare(model, [0, 4, 8], 5)
        lines = [np.asarray(line.get_ydata(), float).tolist() for line in plot_returns(result).get_lines()]
        assert result.returns.mean(axis=0).tolist() in lines
        assert result.source.mean(axis=0)[:5].tolist() in lines
        drawn = [np.asarray(line.get_ydata(), float).tolist() for line in plot_goals(result).get_lines()]
        assert sorted(result.last().tolist()) in [sorted(line) for line in drawn]
        assert len(returns_figure(result, title="Title").axes) == 2


class TestExample:
    @pytest.fixture
    def model(self):
        return HistoryTransformer.load(example_checkpoint())

    def test_file(self, model):
        assert example_checkpoint().stat().st_size < 1_500_000
        assert {"collection", "training", "model", "hardware"} <= set(model.record)
        assert model.record["steps_done"] == model.record["training"]["steps"]
        assert model.record["model"] == model.config

    def test_it_learns_in_context(self, model):
        """Goals it was not trained on, weights unchanged: late episodes give far more than early ones."""
        weights = [weight.clone() for weight in model.state_dict().values()]
        goals = Collection.of(model.record["collection"]).split()[1]
        near = goals[np.argsort(-ad.oracle_returns(goals))[:8]]
        returns = evaluate(model, near, 16, seed=1)
        assert returns[:, -4:].mean() > 2.5 * returns[:, :2].mean() + 2
        assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


@pytest.mark.parametrize("module", ["__init__", "environment", "model", "rooms"])
def test_documentation_is_right(module):
    name = "rattention.ad" if module == "__init__" else f"rattention.ad.{module}"
    result = doctest.testmod(__import__(name, fromlist=["_"]), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
