"""Reviews from folders and the Hub, as bytes and as words, and what may be wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lra import Text
from rattention.studies.lra.text import Vocabulary

from tests.reviews import REVIEWS, write_parquet


def write_archive(folder):
    for part in ("train", "test"):
        for i, (text, label) in enumerate(REVIEWS):
            place = folder / part / ("pos" if label else "neg")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}_7.txt").write_text(text, "utf-8")
    return folder


def settings(folder, **options):
    return Text(str(folder), **({"validation": 4} | options))


def as_pairs(split):
    return sorted(
        (bytes((tokens - 1).astype(np.uint8)), label)
        for tokens, label in map(split.__getitem__, range(len(split)))
    )


class TestBytes:
    @pytest.mark.parametrize("write", [write_parquet, write_archive])
    def test_every_review_once(self, tmp_path, write):
        data = settings(write(tmp_path / "reviews")).load()
        assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 20)
        expected = sorted((text.encode(), label) for text, label in REVIEWS)
        assert sorted(as_pairs(data.train) + as_pairs(data.validation)) == expected
        assert as_pairs(data.test) == expected
        assert (data.vocabulary, data.classes, data.name) == (257, 2, "text")
        assert data.token_names[1 + ord("g")] == "g"

    def test_cut_to_length(self, tmp_path):
        data = settings(write_parquet(tmp_path), length=7).load()
        assert (data.train.lengths == 7).all()
        assert bytes((data.train[0][0] - 1).astype(np.uint8)) == b"It's fi"

    def test_fewer_and_seeds(self, tmp_path):
        write_parquet(tmp_path)
        data = settings(tmp_path, train=5, test=3).load()
        assert (len(data.train), len(data.test)) == (5, 3)
        again, other = (settings(tmp_path, train=5, test=3, seed=seed).load() for seed in (0, 1))
        assert np.array_equal(data.train.tokens, again.train.tokens)
        assert not np.array_equal(data.train.tokens, other.train.tokens)

    def test_reviews_without_text_are_left_out(self, tmp_path):
        write_parquet(tmp_path, [*REVIEWS, ("  ", 1), ("", 0)])
        assert len(settings(tmp_path).load().test) == 20


class TestWords:
    def test_vocabulary_of_the_training_reviews(self, tmp_path):
        write_parquet(tmp_path, parts=("train",))
        write_parquet(tmp_path, [("good unheard GOOD", 1)] * 2, parts=("test",))
        data = settings(tmp_path, level="words").load()
        names = data.token_names
        assert [names[token] for token in data.test[0][0]] == ["good", "<unknown>", "good"]
        assert names[data.train[0][0][0]] == "it's"
        assert data.vocabulary == len(names) < 40
        assert "unheard" not in names

    def test_most_frequent_words(self):
        vocabulary = Vocabulary.of(["b a c, a b a", "d"], 3)
        assert vocabulary.tokens == ("", "<unknown>", "a", "b", ",")
        assert vocabulary.encode("A c b").tolist() == [2, 1, 3]
        assert vocabulary.encode("   ").tolist() == [1]


class TestFaults:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"level": "letters"}, "level must be one of bytes, words, got 'letters'"),
            ({"length": 0}, "length must be >= 1"),
            ({"validation": 0}, "validation must be >= 1"),
            ({"train": 0}, "train must be >= 1"),
            ({"seed": -1}, "seed must be >= 0"),
        ],
    )
    def test_settings(self, change, message):
        with pytest.raises(ValueError, match=message):
            Text(**change)

    def test_no_source(self):
        with pytest.raises(ValueError, match="source must name"):
            Text("")

    def test_source_of_another_type(self, tmp_path):
        with pytest.raises(TypeError, match="source must be a string, got PosixPath"):
            Text(tmp_path)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"is no folder: name a folder: aclImdb"):
            settings(tmp_path / "none").load()

    def test_folder_of_something_else(self, tmp_path):
        with pytest.raises(ValueError, match=r"has neither train\.parquet nor train/pos"):
            settings(tmp_path).load()

    def test_corrupt_parquet(self, tmp_path):
        write_parquet(tmp_path)
        file = tmp_path / "test.parquet"
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"test\.parquet is no Parquet file"):
            settings(tmp_path).load()

    def test_missing_columns(self, tmp_path):
        write_parquet(tmp_path, review=["a"], label=[1])
        with pytest.raises(ValueError, match=r"has no column text: its columns are review, label"):
            settings(tmp_path).load()

    @pytest.mark.parametrize("label", [2, -1])
    def test_labels_out_of_range(self, tmp_path, label):
        write_parquet(tmp_path, [*REVIEWS, ("x", label)])
        with pytest.raises(ValueError, match=r"train\.parquet: labels must be 0 or 1"):
            settings(tmp_path).load()

    def test_texts_that_are_none(self, tmp_path):
        write_parquet(tmp_path, text=["a", None], label=[0, 1])
        with pytest.raises(ValueError, match="texts must be strings"):
            settings(tmp_path).load()

    def test_half_an_archive(self, tmp_path):
        write_archive(tmp_path)
        for file in (tmp_path / "train" / "neg").iterdir():
            file.unlink()
        with pytest.raises(ValueError, match=r"neg holds no \.txt files"):
            settings(tmp_path).load()

    def test_too_few_reviews(self, tmp_path):
        write_parquet(tmp_path)
        with pytest.raises(
            ValueError, match="has 20 reviews with text; 34 are asked for, 4 of them for validation"
        ):
            settings(tmp_path, train=30).load()
        with pytest.raises(ValueError, match="21 are asked for"):
            settings(tmp_path, test=21).load()
        with pytest.raises(ValueError, match="21 are asked for, 20 of them for validation"):
            settings(tmp_path, validation=20).load()

    def test_no_reviews(self, tmp_path):
        write_parquet(tmp_path, [("", 1)])
        with pytest.raises(ValueError, match="holds no review"):
            settings(tmp_path).load()

    def test_folder_of_the_hub(self, monkeypatch, tmp_path):
        """As `hf download` leaves it: files of splits below the folder, named by a card."""
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        write_parquet(tmp_path / "written")
        folder = tmp_path / "imdb"
        (folder / "plain_text").mkdir(parents=True)
        for part in ("train", "test"):
            (tmp_path / "written" / f"{part}.parquet").rename(
                folder / "plain_text" / f"{part}-00000-of-00001.parquet"
            )
        files = [{"split": part, "path": f"plain_text/{part}-*"} for part in ("train", "test")]
        card = {"configs": [{"config_name": "plain_text", "data_files": files, "default": True}]}
        (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n", "utf-8")
        data = Text(str(folder), validation=4).load()
        assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 20)
        other = tmp_path / "other"  # a folder is remembered by its name
        (folder / "plain_text" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
        folder.rename(other)
        with pytest.raises(ValueError, match=r"cannot load the dataset .*other.*; name a folder"):
            Text(str(other), validation=4).load()

    def test_hub(self, monkeypatch, tmp_path):
        """What the Hub's library gives is taken; what it raises becomes one error with the alternatives."""
        import datasets

        write_parquet(tmp_path)

        def load(name, split):
            if name != "someone/imdb":
                raise ConnectionError("no network")
            return datasets.Dataset.from_parquet(
                str(tmp_path / f"{split}.parquet"), cache_dir=str(tmp_path / "cache")
            )

        monkeypatch.setattr(datasets, "load_dataset", load)
        assert len(Text("someone/imdb", validation=4).load().train) == 16
        with pytest.raises(
            ValueError, match=r"cannot load the dataset 'a/b' \(ConnectionError: no network\); name a"
        ):
            Text("a/b").load()
