"""ListOps: the grammar, values by an evaluator of its own, splits, the cache, and faults."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import rattention as ra
from pyarrow import parquet
from rattention import _core
from rattention.studies.kit.folder import default_folder
from rattention.studies.lra import ListOps, Split, TaskData
from rattention.studies.lra.listops import TOKENS, evaluate, reference_tree

SMALL = ListOps(
    train=300, validation=50, test=60, min_length=5, max_length=60, max_depth=4, max_args=5, seed=3
)
PUBLISHED = {"min_length": 500, "max_length": 2000, "max_depth": 10, "max_args": 10, "operator_share": 0.25}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def empty_cache(cache):
    """Empties the cache: samples are made anew."""
    return lambda: shutil.rmtree(cache, ignore_errors=True)


def numbers(text):
    return [TOKENS.index(token) for token in text.split()]


def all_samples(data):
    return [split[i] for split in (data.train, data.validation, data.test) for i in range(len(split))]


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("7", 7),
            ("[MIN 4 2 9 ]", 2),
            ("[MAX 4 2 9 ]", 9),
            ("[MED 4 2 9 ]", 4),
            ("[MED 4 9 ]", 6),
            ("[SM 4 2 9 ]", 5),
            ("[MAX 2 [SM 9 9 ] [MED 1 [MIN 8 7 ] 3 ] ]", 8),
        ],
    )
    def test_values(self, text, value):
        assert evaluate(numbers(text)) == value

    @pytest.mark.parametrize("text", ["", "1 2", "[MIN 1 2", "1 ]", "[MIN ]", "[MAX 1 2 ] ]"])
    def test_what_is_no_expression(self, text):
        with pytest.raises(ValueError, match="token"):
            evaluate(numbers(text))

    def test_fifteen_tokens(self):
        assert len(TOKENS) - 1 == 15
        data = SMALL.load()
        assert set(np.unique(data.train.tokens)) == set(range(1, 16))
        assert (data.vocabulary, data.classes) == (16, 10)

    def test_labels_are_the_values(self):
        for tokens, label in all_samples(SMALL.load()):
            assert evaluate(tokens) == label
            assert SMALL.min_length < len(tokens) < SMALL.max_length

    def test_distribution_is_that_of_the_grammar(self):
        """Lengths of all trees against the reference, and of those kept against published counts."""
        settings = replace(SMALL, min_length=0, max_length=500)
        generator = np.random.default_rng(0)
        expected = np.array([len(reference_tree(settings, generator)) for _ in range(4000)])
        _, lengths, _ = _core.draw_listops(
            0, 0, 20_000, min_length=0, max_length=500, max_depth=4, max_args=5, operator_share=0.25
        )
        assert (lengths == 1).mean() == pytest.approx((expected == 1).mean(), abs=0.03)
        assert lengths.mean() == pytest.approx(expected.mean(), rel=0.1)
        assert len(lengths) == 20_000

    def test_published_settings(self):
        _, lengths, labels = _core.draw_listops(5, 0, 150_000, **PUBLISHED)
        shares = np.bincount(labels, minlength=10) / len(labels)
        assert len(labels) / 150_000 == pytest.approx(0.083, abs=0.003)
        assert lengths.mean() == pytest.approx(1039, abs=20)
        assert shares[[0, 9]] == pytest.approx([0.17, 0.167], abs=0.015)
        assert (np.abs(shares[1:9] - 0.083) < 0.018).all()


class TestSamples:
    def test_none_comes_twice(self):
        samples = [tokens.tobytes() for tokens, _ in all_samples(SMALL.load())]
        assert len(set(samples)) == len(samples) == 410

    def test_splits_are_alike(self):
        data = replace(SMALL, train=2000, test=1000).load()
        assert data.test.lengths.mean() == pytest.approx(data.train.lengths.mean(), rel=0.1)

    def test_seed_decides(self, empty_cache):
        first, again, other = ((empty_cache(), replace(SMALL, seed=seed).load())[1] for seed in (0, 0, 1))
        assert np.array_equal(first.train.tokens, again.train.tokens)
        assert not np.array_equal(first.train.tokens[:500], other.train.tokens[:500])

    def test_threads_do_not(self, empty_cache):
        before = ra.get_num_threads()
        try:
            drawn = []
            for threads in (1, 3):
                ra.set_num_threads(threads)
                empty_cache()
                drawn.append(SMALL.load().train.tokens)
        finally:
            ra.set_num_threads(before)
        assert np.array_equal(*drawn)

    def test_label_shares(self):
        data = SMALL.load()
        shares = data.label_shares()
        assert sum(shares["test"]) == pytest.approx(1)
        assert shares["train"][3] == pytest.approx((data.train.labels == 3).mean())
        most = np.bincount(data.train.labels).argmax()
        assert data.majority_accuracy() == pytest.approx((data.test.labels == most).mean())


class TestCache:
    def test_is_used(self, cache, monkeypatch):
        first = SMALL.load()
        (file,) = cache.iterdir()
        assert file.suffix == ".parquet"
        monkeypatch.setattr(_core, "draw_listops", None)
        again = SMALL.load()
        assert np.array_equal(first.test.tokens, again.test.tokens)
        assert np.array_equal(first.test.labels, again.test.labels)

    def test_other_settings_are_another_file(self, cache):
        SMALL.load()
        replace(SMALL, seed=4).load()
        assert len([*cache.iterdir()]) == 2

    @pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other", "bit"])
    def test_damaged_file_is_made_again(self, cache, damage):
        first = SMALL.load()
        (file,) = cache.iterdir()
        content = file.read_bytes()
        if damage == "other":
            table = parquet.read_table(file).replace_schema_metadata({"settings": "others"})
            parquet.write_table(table, file)
        else:
            flipped = bytearray(content)
            flipped[200] ^= 4
            damaged = {
                "bit": bytes(flipped),
                "cut": content[: len(content) // 2],
                "garbage": b"PAR1" * 99,
                "empty": b"",
            }
            file.write_bytes(damaged[damage])
        with pytest.warns(UserWarning, match=f"{file.name} is damaged and made again"):
            again = SMALL.load()
        assert np.array_equal(first.train.tokens, again.train.tokens)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SMALL.load()

    def test_unwritable_folder(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RATTENTION_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(OSError, match="cannot write there"):
            SMALL.load()

    def test_nothing_is_half_written(self, cache, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(parquet, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            SMALL.load()
        assert not [*cache.iterdir()]

    def test_default_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("RATTENTION_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_folder() == tmp_path / "rattention"


class TestBadSettings:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train": 0}, "train must be >= 1, got 0"),
            ({"max_length": 6}, "max_length must be at least min_length"),
            ({"max_args": 1}, "max_args must be >= 2, got 1"),
            ({"max_depth": 0}, "max_depth must be >= 1"),
            ({"operator_share": 1.5}, "operator_share must be between 0 and 1"),
            ({"seed": -1}, "seed must be >= 0"),
        ],
    )
    def test_named(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **change)

    def test_types(self):
        with pytest.raises(TypeError, match="train"):
            ListOps(train=1.5)

    def test_too_few_expressions(self):
        with pytest.raises(ValueError, match=r"only [\d,]+ with more than min_length=0"):
            ListOps(train=500, validation=1, test=1, min_length=0, max_length=3, max_depth=2).load()

    def test_empty_split(self):
        empty, some = Split.of([], []), Split.of([[1, 2]], [0])
        with pytest.raises(ValueError, match="the test split of x is empty"):
            TaskData("x", 3, 2, some, some, empty)
        with pytest.raises(ValueError, match="without tokens"):
            TaskData("x", 3, 2, some, some, Split.of([[]], [0]))

    def test_offsets(self):
        with pytest.raises(ValueError, match="offsets must rise"):
            Split(np.ones(3, np.uint8), np.array([0, 2]), np.array([1]))
