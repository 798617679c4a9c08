"""Settings of a comparison: presets, YAML, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lra import MECHANISMS, PRESETS, ListOps, ModelSize, Study, Training

from tests.lra_runs import STUDY

pytestmark = pytest.mark.usefixtures("one_thread")


class TestSettings:
    @pytest.mark.parametrize(
        "study", [STUDY, *PRESETS.values(), replace(STUDY, task_training={"text": Training()})]
    )
    def test_round_trip(self, study, tmp_path):
        study.save(tmp_path / "study.yaml")
        assert Study.load(tmp_path / "study.yaml") == study

    def test_what_is_not_said_has_its_default(self, tmp_path):
        (tmp_path / "s.yaml").write_text("training: {epochs: 3, learning_rate: 1e-3}\nseeds: [5]\n", "utf-8")
        study = Study.load(tmp_path / "s.yaml")
        assert study == Study(seeds=(5,), training=Training(epochs=3, learning_rate=1e-3))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("colour: red", "unknown key colour; there are tasks, mechanisms, seeds, model"),
            ("model: {widht: 3}", "model: unknown key widht; there are dim, heads"),
            ("model: {dim: wide}", "model: dim must be a whole number, got 'wide'"),
            ("model: {dim: 1.5}", "dim must be a whole number, got 1.5"),
            ("model: {dropout: yes}", "dropout must be a number, got True"),
            (
                "model: {positions: rotary}",
                "positions must be one of sinusoidal, learned, none, got 'rotary'",
            ),
            ("model: {match_parameters: 1}", "match_parameters must be true or false, got 1"),
            ("model: {timescales: 4.0}", "timescales must be a list, got 4.0"),
            ("model: {timescales: [4.0, far]}", r"timescales\[1\] must be a number, got 'far'"),
            ("model: 3", "model must be settings by name, got 3"),
            ("training: {epochs: 0}", "epochs must be >= 1, got 0"),
            ("training: {learning_rate: fast}", "learning_rate must be a number, got 'fast'"),
            ("tasks: [listops, pictures]", "unknown task 'pictures': there are listops, text"),
            ("mechanisms: [linear]", "unknown mechanism 'linear': there are softmax"),
            ("mechanisms: []", "mechanisms must have at least one"),
            ("seeds: [-1]", "seeds must be between 0 and 4294967295, got -1"),
            ("seeds: [0, 4294967296]", "seeds must be between 0 and 4294967295, got 4294967296"),
            (f"seeds: [{2**64}]", "seeds must be between 0 and 4294967295"),
            ("seeds: 3", "seeds must be a list, got 3"),
            (f"training: {{learning_rate: 1{'0' * 400}}}", "learning_rate must be finite in float32"),
            (f"training: {{epochs: 1{'0' * 5000}}}", "cannot be read as YAML: Exceeds the limit"),
            (f"model: {'[' * 20_000}{']' * 20_000}", "cannot be read as YAML: it is nested too deeply"),
            ("model: {dim: [" + "[1, 1, 1, 1], " * 100 + "]}", r"dim must be .*, got \[\[1, .*\.\.\.\]$"),
            ("a" * (2**24 + 1), "is too long: at most 16777216 bytes are read"),
            ("created: 2026-99-99", "cannot be read as YAML"),
            ("data: {text: {length: long}}", "data: text: length must be"),
            ("data: {pictures: {}}", "data: unknown task 'pictures': there are listops, text"),
            ("data: {text: 3}", "data: text must hold settings by name, got int"),
            ("data: [text]", "data must hold settings by name, got list"),
            ("task_training: {text: {epochs: many}}", "task_training: text: epochs must be"),
            ("task_training: {pictures: {}}", "task_training: unknown task 'pictures'"),
            ("- listops", "must hold settings by name, got list"),
            ("model: {dim", "cannot be read as YAML"),
        ],
        ids=lambda text: text[:40],
    )
    def test_mistakes_are_named(self, tmp_path, text, said):
        (tmp_path / "s.yaml").write_text(text, "utf-8")
        with pytest.raises(ValueError, match=rf"s\.yaml.*{said}"):
            Study.load(tmp_path / "s.yaml")

    def test_no_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"none\.yaml cannot be read"):
            Study.load(tmp_path / "none.yaml")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"batch": 0}, "batch must be >= 1"),
            ({"patience": 0}, "patience must be >= 1"),
            ({"learning_rate": 0.0}, "learning_rate must be a number > 0"),
            ({"clip": float("inf")}, "clip must be"),
            ({"weight_decay": -1.0}, "weight_decay must be a number >= 0"),
            ({"warmup_steps": -1}, "warmup_steps must be >= 0"),
            ({"schedule": "steps"}, "unknown schedule 'steps': there are constant, linear, cosine"),
        ],
    )
    def test_wrong_training(self, options, said):
        with pytest.raises(ValueError, match=said):
            Training(**options)

    def test_runs_of_a_seed_come_first(self):
        names = [run.name for run in replace(STUDY, seeds=(0, 1), tasks=("listops", "text")).runs()]
        assert names[:4] == [f"{t}-{m}-0" for t in ("listops", "text") for m in ("softmax", "rattention")]
        assert len(names) == 8

    def test_presets(self):
        """What the documentation says of them."""
        assert set(PRESETS) == {"smoke", "small", "paper"}
        for study in PRESETS.values():
            assert study.tasks == ("listops", "text")
            assert study.mechanisms == tuple(MECHANISMS)
        paper = PRESETS["paper"]
        assert paper.model == ModelSize(dim=128, heads=4, depth=2, mlp_dim=512, dropout=0.1)
        assert (paper.training.batch, paper.training.learning_rate, paper.training.weight_decay) == (
            32,
            1e-4,
            1e-5,
        )
        assert (paper.training.epochs, paper.training.patience, paper.training.clip) == (20, 10, 1.0)
        assert paper.data["listops"] == ListOps(96_000, 2_000, 2_000, 500, 2_000, 10, 10)
        assert paper.data["text"].length == 4_096
        assert len(PRESETS["small"].seeds) >= 3
