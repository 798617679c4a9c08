"""Training on histories: windows of them, losses, checkpoints, and going on after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.models.folder import WeightsError
from rattention.studies.dark_room import HistoryTransformer, Training, collect, train, training
from rattention.studies.dark_room.histories import WindowSampler

from tests.histories import QUICK, SIZES, SMALL, interrupt_in_step

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def histories():
    return collect(SMALL)


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
        """Those of seven goals; of the two held out, whose loss rises again as the few are learned by heart,
        actions are told far more often than by chance."""
        torch.manual_seed(3)
        state = torch.get_rng_state()
        model = train(histories, tmp_path, replace(QUICK, steps=180, batch=16, log_every=10), sizes=SIZES)
        assert torch.equal(torch.get_rng_state(), state)
        curve = training.read_record(tmp_path)["curve"]
        assert [point["step"] for point in curve] == [*range(10, 190, 10)]
        late = {name: np.mean([point[name] for point in curve[-6:]]) for name in curve[0]}
        assert late["transition_loss"] < 0.9 * np.log(5)
        assert late["held_out_transition_accuracy"] > 1.5 / 5
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
        with pytest.raises(ValueError, match=r"training\.batch 4 instead of 8"):
            train(histories, tmp_path, replace(QUICK, batch=8), sizes=SIZES, resume=True)
        with pytest.raises(ValueError, match=r"model\.dim 16 instead of 32"):
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
            ({"learning_rate": float("nan")}, "learning_rate must be finite in float32, got nan"),
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
