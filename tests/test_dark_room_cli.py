"""rattention ad: what collect, train and evaluate print, which files they leave, and how they fail."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.extras import needs

needs("studies")

import torch
from rattention.cli import main
from rattention.studies.dark_room import HistoryTransformer, LearningHistories

from tests.histories import interrupt_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

ROOM = ("--size", "3", "--episode-steps", "4", "--episodes", "6", "--per-goal", "4", "--held-out", "2")
MODEL = ("--context", "8", "--dim", "16", "--heads", "2", "--depth", "2", "--batch", "4", "--every", "1")
COLLECT = ("collect", *ROOM, "--out", "run")
TRAIN = ("train", *MODEL, "--steps", "4", "--out", "run")
EVALUATE = ("evaluate", "--episodes", "3", "--out", "run")
TRAINED = {"dark_room.safetensors", "training.json", "training.pt", "tensorboard"}
EVALUATED = {"evaluation.json", "returns.png", "returns.svg"}


@pytest.fixture
def ad(capsys, tmp_path, monkeypatch):
    """Run ``rattention ad`` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        code = main(["ad", *argv])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Histories, and a model trained on them."""
    folder = tmp_path_factory.mktemp("ad")
    assert main(["ad", *COLLECT, "--out", str(folder)]) == 0
    assert main(["ad", *TRAIN, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """A copy of them in ``run``."""
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


def names(folder):
    return {path.name for path in folder.iterdir()}


class TestCollect:
    def test_text(self, ad, tmp_path):
        code, out, err = ad(*COLLECT)
        assert (code, names(tmp_path / "run")) == (0, {"histories.safetensors"}), err
        assert "36 histories of 6 episodes" in out
        assert "7 goals to train on and 2 held out" in out
        assert "Saved in run/histories.safetensors" in out

    def test_json(self, ad, tmp_path):
        code, out, _ = ad(*COLLECT, "--seed", "5", "--json")
        data = json.loads(out)
        histories = LearningHistories.load(tmp_path / data["path"])
        assert code == 0
        assert data["histories"] == len(histories.goals) == 36
        assert sorted(data["train_goals"] + data["held_out_goals"]) == list(range(9))
        assert data["configuration"]["seed"] == histories.collection.seed == 5
        assert data["returns"] == pytest.approx(histories.returns().mean(axis=0), abs=1e-4)

    def test_hard_room(self, ad):
        code, out, _ = ad("collect", *ROOM, "--hard", "--out", "run", "--json")
        room = json.loads(out)["configuration"]["room"]
        assert (code, room["size"], room["steps"]) == (0, 3, 4)
        assert max(json.loads(out)["returns"]) <= 1

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--episodes", "0"), "episodes must be >= 1"),
            (("--per-goal", "0"), "per_goal must be >= 1"),
            (("--held-out", "9"), "held_out"),
            (("--size", "0"), "size"),
            (("--epsilon", "2"), "epsilon"),
            (("--seed", "-1"), "seed"),
            (("--seed", "one"), "--seed must be a whole number, got 'one'"),
            (("--per-goal", "1e30"), "--per-goal must be a whole number"),
        ],
    )
    def test_bad_numbers(self, ad, tmp_path, options, said):
        code, out, err = ad(*COLLECT, *options)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
        assert not (tmp_path / "run" / "histories.safetensors").exists()

    def test_folder_that_is_a_file(self, ad, tmp_path):
        (tmp_path / "run").write_text("", "utf-8")
        code, out, err = ad(*COLLECT)
        assert (code, out) == (2, "")
        assert "run" in err


class TestTrain:
    def test_text(self, ad, run):
        (run / "training.pt").unlink()
        code, out, err = ad(*TRAIN)
        assert code == 0, err
        assert names(run) == {"histories.safetensors", *TRAINED}
        assert "4 steps" in out
        assert "rattention ad evaluate --out run" in out

    def test_json(self, ad, run):
        code, out, _ = ad(*TRAIN, "--seed", "3", "--json")
        data = json.loads(out)
        assert code == 0
        assert data["steps_done"] == 4
        assert data["training"]["seed"] == 3
        assert data["versions"]["torch"] == torch.__version__
        assert json.loads((run / "training.json").read_text("utf-8"))["curve"] == data["curve"]
        assert HistoryTransformer.load(run / "dark_room.safetensors").record["training"]["seed"] == 3

    @pytest.mark.parametrize(
        "pattern",
        ["sliding_window", "rattention", "gravitational", "multi_timescale", "gravitational_multi_timescale"],
    )
    def test_patterns(self, ad, run, pattern):
        code, _, err = ad(*TRAIN, "--steps", "1", "--pattern", pattern, "--window", "5")
        assert code == 0, err
        layers = HistoryTransformer.load(run / "dark_room.safetensors").encoder.attention_layers()
        assert layers[0].mechanism.name == pattern
        assert layers[0].window == (5 if pattern in ("sliding_window", "rattention") else None)

    def test_interrupted_and_resumed(self, ad, run, monkeypatch):
        """Ctrl-C leaves the step it was in; --resume ends where training without a break does."""
        whole = torch.load(run / "training.pt", weights_only=False)["step"]
        straight = HistoryTransformer.load(run / "dark_room.safetensors")
        for name in TRAINED - {"tensorboard"}:
            (run / name).unlink()
        with monkeypatch.context() as patch:
            interrupt_in_step(2, patch)
            code, out, err = ad(*TRAIN)
        assert (code, out) == (130, "")
        assert err.splitlines()[-1] == "rattention: interrupted"
        assert json.loads((run / "training.json").read_text("utf-8"))["steps_done"] == 2
        assert ad(*TRAIN)[0] == 2
        code, _, err = ad(*TRAIN, "--resume")
        assert code == 0, err
        assert torch.load(run / "training.pt", weights_only=False)["step"] == whole == 4
        resumed = HistoryTransformer.load(run / "dark_room.safetensors")
        for name, weight in straight.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), name

    def test_resumed_after_the_end(self, ad, run):
        code, out, err = ad(*TRAIN, "--resume")
        assert (code, out) == (2, "")
        assert err == (
            "rattention: the training in run is finished after 4 steps: give --steps above 4 to go on\n"
        )

    def test_resumed_after_the_end_with_more_steps(self, ad, run):
        code, _, err = ad(*TRAIN, "--steps", "6", "--resume")
        assert code == 0, err
        record = json.loads((run / "training.json").read_text("utf-8"))
        assert (record["steps_done"], record["training"]["steps"]) == (6, 6)

    def test_fewer_steps_than_the_training_has(self, ad, run, monkeypatch):
        for name in TRAINED - {"tensorboard"}:
            (run / name).unlink()
        with monkeypatch.context() as patch:
            interrupt_in_step(2, patch)
            ad(*TRAIN)
        code, out, err = ad(*TRAIN, "--steps", "3", "--resume")
        assert (code, out) == (2, "")
        assert "training.steps 4 instead of 3" in err

    def test_other_sizes_than_the_checkpoint(self, ad, run):
        code, out, err = ad(*TRAIN, "--dim", "32", "--steps", "5", "--resume")
        assert (code, out) == (2, "")
        assert "model.dim 16 instead of 32" in err

    def test_nothing_to_resume(self, ad, run):
        (run / "training.pt").unlink()
        (run / "training.json").unlink()
        code, out, err = ad(*TRAIN, "--resume")
        assert (code, out) == (2, "")
        assert "training.pt cannot be read" in err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--steps", "0"), "steps must be >= 1, got 0"),
            (("--batch", "-1"), "batch must be >= 1"),
            (("--learning-rate", "nan"), "learning_rate must be finite in float32, got nan"),
            (("--learning-rate", "0"), "learning_rate must be a number > 0"),
            (("--context", "0"), "context must be >= 1"),
            (("--context", "99"), "histories are too short"),
            (("--heads", "3"), "heads"),
            (("--pattern", "none"), "--pattern must be one of softmax"),
        ],
    )
    def test_bad_numbers(self, ad, run, options, said):
        before = (run / "dark_room.safetensors").read_bytes()
        code, out, err = ad(*TRAIN, *options)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
        assert (run / "dark_room.safetensors").read_bytes() == before

    def test_histories_that_are_none(self, ad, run):
        (run / "histories.safetensors").write_bytes(b"none")
        code, out, err = ad(*TRAIN)
        assert (code, out) == (2, "")
        assert "histories.safetensors" in err


class TestEvaluate:
    def test_text(self, ad, run):
        code, out, err = ad(*EVALUATE)
        assert code == 0, err
        assert names(run) == {"histories.safetensors", *TRAINED, *EVALUATED}
        assert (run / "returns.png").read_bytes().startswith(b"\x89PNG")
        assert "Returns of dark_room.safetensors without any change of weights" in out
        assert "The model has not learned to find goals" in out
        assert "Saved in run: evaluation.json, returns.png, returns.svg" in out

    def test_json(self, ad, run):
        code, out, _ = ad(*EVALUATE, "--goals", "0,8", "--seed", "4", "--temperature", "0.5", "--json")
        data = json.loads(out)
        assert code == 0
        assert data == json.loads((run / "evaluation.json").read_text("utf-8"))
        assert data["configuration"]["temperature"] == 0.5
        assert data["trained"]["steps_done"] == 4
        again = json.loads(
            ad(*EVALUATE, "--goals", "0,8", "--seed", "4", "--temperature", "0.5", "--json")[1]
        )
        assert {**again, "seconds": 0} == {**data, "seconds": 0}

    def test_the_shipped_model_where_there_is_none(self, ad, tmp_path):
        code, _, err = ad(*EVALUATE, "--episodes", "1", "--goals", "40")
        assert code == 0, err
        assert "this is the one that comes with the package" in err
        assert names(tmp_path / "run") == EVALUATED

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--model", "none.safetensors"), "there is no checkpoint none.safetensors: make one with"),
            (("--model", "run/histories.safetensors"), "has no configuration"),
            (("--episodes", "0"), "episodes must be >= 1, got 0"),
            (("--goals", "9"), "goals must be between 0 and 8"),
            (("--goals", "a,b"), "--goals"),
            (("--temperature", "-1"), "temperature must be a number >= 0"),
            (("--attempts", "0"), "attempts must be >= 1"),
        ],
    )
    def test_bad_input(self, ad, run, options, said):
        code, out, err = ad(*EVALUATE, *options)
        assert (code, out) == (2, "")
        assert said in err
        assert "Traceback" not in err
        assert not (EVALUATED & names(run))


def test_parts_are_listed(ad):
    code, out, _ = ad()
    assert code == 0
    assert all(f"  {name} " in out for name in ("collect", "train", "evaluate"))
    code, out, err = ad("teach")
    assert (code, out) == (2, "")
    assert "unknown command 'teach': there are collect, train, evaluate; see rattention ad --help" in err


def test_visualize_is_shown_with_the_file_that_training_writes() -> None:
    from rattention.cli.ad import FOLDER
    from rattention.cli.visualize import Visualize
    from rattention.studies.dark_room.training import MODEL

    named = [example.split()[1] for example in Visualize.EXAMPLES if example.startswith("--checkpoint")]
    assert named == [str(FOLDER / MODEL)]
