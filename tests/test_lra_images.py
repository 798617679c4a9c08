"""The task of images: generated shapes, folders of PNG files, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from PIL import Image
from rattention.cli import main
from rattention.studies.lra import PRESETS, TASKS, Images, ModelSize, Run, Study, Training
from rattention.studies.lra.images import SHAPES
from rattention.studies.lra.training import do_run

from tests.lra_runs import SIZE

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Images(size=12, levels=8, train=600, validation=60, test=66)


def pixels(split):
    return split.tokens.reshape(len(split), -1)


@pytest.fixture
def folder(tmp_path):
    """Two classes, dark and light, of images that are not square."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for name, level in (("dark", 20), ("light", 220)):
            place = tmp_path / "pictures" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                grey = (level + generator.integers(0, 30, (10, 14))).astype(np.uint8)
                Image.fromarray(grey).convert("RGB").save(place / f"{i}.png")
    return tmp_path / "pictures"


class TestShapes:
    def test_what_is_promised(self):
        data = TINY.load()
        assert (data.vocabulary, data.classes) == (9, len(SHAPES))
        for name, count in (("train", 600), ("validation", 60), ("test", 66)):
            split = getattr(data, name)
            assert (split.lengths == 144).all()
            assert (np.bincount(split.labels) == count // 6).all()
            assert (split.labels[1:] != split.labels[:-1]).mean() > 0.6
            assert split.tokens.min() >= 1
            assert split.tokens.max() == 8
        assert len(data.token_names) == 9

    def test_no_image_comes_twice(self):
        data = replace(TINY, size=4, levels=2, noise=0.0, train=24, validation=6, test=6).load()
        rows = [row.tobytes() for split in (data.train, data.validation, data.test) for row in pixels(split)]
        assert len(set(rows)) == len(rows) == 36

    def test_too_few_different_images(self):
        with pytest.raises(ValueError, match="fewer than 9,012 different images"):
            replace(TINY, size=4, levels=2, noise=0.0, train=9_000, validation=6, test=6).load()

    def test_the_seed_decides(self):
        one, again, other = (replace(TINY, seed=seed).load() for seed in (0, 0, 1))
        assert (one.train.tokens == again.train.tokens).all()
        assert (one.test.labels == again.test.labels).all()
        assert (one.train.tokens != other.train.tokens).any()

    @pytest.mark.parametrize(("label", "name"), list(enumerate(SHAPES)))
    def test_shapes_are_what_they_are_called(self, label, name):
        """Without noise: light pixels in the share of their bounding box that such a shape has."""
        shares = {
            "disc": np.pi / 4,
            "ring": 0.6 * np.pi / 4,
            "square": 1.0,
            "frame": 1 - (0.55 / 0.9) ** 2,
            "triangle": 0.5,
            "cross": 0.51,
        }
        data = Images(size=60, levels=256, noise=0.0, train=60, validation=1, test=1).load()
        for row in pixels(data.train)[data.train.labels == label]:
            light = row.reshape(60, 60) > 128
            rows, columns = (np.flatnonzero(light.any(axis=axis)) for axis in (1, 0))
            box = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.mean() == pytest.approx(shares[name], abs=0.07)

    def test_a_small_model_learns(self, tmp_path):
        training = Training(batch=16, learning_rate=1e-2, epochs=5, measured=0)
        size = ModelSize(dim=16, heads=2, depth=1, mlp_dim=32, dropout=0.0, standardize=True)
        images = replace(TINY, size=10, train=480, test=300)
        result = do_run(Run("images", "softmax", 0, size, training, images), images.load(), tmp_path / "run")
        assert result["majority_accuracy"] == pytest.approx(1 / 6)
        assert result["test_accuracy"] > 0.25  # 4 standard errors


class TestFolder:
    def test_is_read(self, folder):
        data = Images(str(folder), size=8, train=8, validation=4, test=6).load()
        assert (data.classes, len(data.train), len(data.validation), len(data.test)) == (2, 8, 4, 6)
        for split in (data.train, data.validation, data.test):
            assert (split.lengths == 64).all()
            light = pixels(split).mean(axis=1) > 128
            assert (light == split.labels).all()
        everything = np.concatenate([pixels(data.train), pixels(data.validation)])
        assert len(np.unique(everything, axis=0)) == 12
        again = Images(str(folder), size=8, train=8, validation=4, test=6).load()
        assert (again.train.tokens == data.train.tokens).all()

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            ("no folder", "is no folder: name a folder with train/CLASS"),
            ("no classes", r"train has 0 folders of classes, at least 2 are needed"),
            ("other classes", r"classes of train \(dark, light\) and test \(dark, night\) differ"),
            ("no images", r"light holds no \.png files"),
            ("damaged", r"0\.png is no image that can be read"),
            ("too few", r"train has 12 images; 1,004 are asked for"),
        ],
    )
    def test_faults_are_one_line(self, folder, harm, said):
        settings = Images(str(folder), size=8, train=8, validation=4, test=6)
        if harm == "no folder":
            settings = replace(settings, source=str(folder / "none"))
        elif harm == "no classes":
            (folder / "train").rename(folder / "training")
        elif harm == "other classes":
            (folder / "test" / "light").rename(folder / "test" / "night")
        elif harm == "no images":
            for path in (folder / "train" / "light").iterdir():
                path.unlink()
        elif harm == "damaged":
            for path in (folder / "train").rglob("0.png"):
                path.write_bytes(path.read_bytes()[:60])
            settings = replace(settings, train=8, validation=4)
        else:
            settings = replace(settings, train=1_000)
        with pytest.raises(ValueError, match=said) as fault:
            settings.load()
        assert "\n" not in str(fault.value)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"size": 3}, "size must be >= 4, got 3"),
            ({"levels": 1}, "levels must be >= 2, got 1"),
            ({"levels": 257}, "levels must be at most 256, got 257"),
            ({"noise": -0.1}, "noise must be a number >= 0, got -0.1"),
            ({"train": 0}, "train must be >= 1, got 0"),
        ],
    )
    def test_ranges(self, options, said):
        with pytest.raises(ValueError, match=said):
            Images(**options)

    def test_scaled(self):
        assert Images().scaled(1_000, 30) == Images(size=31, train=30)
        assert Images().scaled(None, None) == Images()

    def test_is_a_task_like_all_others(self):
        assert PRESETS["paper"].data["images"] == Images()
        assert "images" not in PRESETS["smoke"].tasks
        study = replace(PRESETS["small"], tasks=("images",))
        assert {run.data for run in study.runs()} == {TASKS["images"].presets["small"]}


def test_command(tmp_path, capsys):
    """From the command line to the tables, figures and the report."""
    Study(
        tasks=("images",),
        mechanisms=("softmax", "rattention"),
        seeds=(0,),
        model=SIZE,
        training=Training(batch=16, epochs=1, measured=1),
        data={"images": replace(TINY, train=48, validation=12, test=12)},
    ).save(tmp_path / "study.yaml")
    code = main(["lra", "run", "--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "Images (majority class 16.7%, counts of tokens " in captured.out
    summary = (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert "## Images (majority class 16.7%, counts of tokens " in summary
    assert "Images" in (tmp_path / "out" / "report.html").read_text("utf-8")
    figures = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"accuracy", "curves", "attention_images", "attention_images_rattention"} <= figures
