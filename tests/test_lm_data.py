"""Corpora of ``rattention lm``: texts, splits, tokens, their cache."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

import pyarrow
import pyarrow.parquet
from rattention.studies.lm import Corpus
from rattention.studies.lm.batches import TextBatches
from rattention.studies.lm.texts import read_texts

from tests.lm_studies import write_texts


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RATTENTION_CACHE", str(folder))
    return folder


@pytest.fixture
def source(tmp_path):
    return write_texts(tmp_path / "texts")


class TestTexts:
    def test_no_text_is_in_two_splits_and_doubles_count_once(self, source, tmp_path):
        (tmp_path / "texts" / "double.md").write_bytes((tmp_path / "texts" / "3.txt").read_bytes())
        (tmp_path / "texts" / "left_out.csv").write_text("x")
        (tmp_path / "texts" / "blank.txt").write_text(" \n")
        texts = read_texts(source, 10**9)
        assert len(texts) == len({text.sha256 for text in texts}) == 80
        assert [text.sha256 for text in texts] == sorted(text.sha256 for text in texts)
        assert {text.split for text in texts} == {"train", "validation", "test"}

    def test_a_limit_takes_a_part_of_the_same_order(self, source):
        everything, some = read_texts(source, 10**9), read_texts(source, 20_000)
        assert 0 < len(some) < len(everything)
        assert [t.sha256 for t in some] == [t.sha256 for t in everything[: len(some)]]
        assert sum(len(t.content) for t in some) <= 20_000

    def test_splits_depend_on_the_content_alone(self, source, tmp_path):
        other = write_texts(tmp_path / "other", count=40)
        before = {text.sha256: text.split for text in read_texts(source, 10**9)}
        assert all(before[text.sha256] == text.split for text in read_texts(other, 10**9))

    def test_parquet(self, tmp_path):
        rows = [f"row {i}" for i in range(9)]
        pyarrow.parquet.write_table(pyarrow.table({"text": [*rows, None]}), tmp_path / "a.parquet")
        assert {t.content.decode() for t in read_texts(str(tmp_path / "a.parquet"), 10**9)} == {*rows}

    def test_the_standard_library_by_default(self):
        texts = read_texts(None, 100_000)
        assert texts
        assert all(text.name.endswith(".py") for text in texts)

    def test_the_standard_library_alone(self):
        texts = read_texts("stdlib", 300_000)
        assert texts
        assert all(text.name.startswith("stdlib/") for text in texts)
        assert not any("site-packages" in text.name for text in texts)

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda p: p.mkdir(), "no text there"),
            (lambda p: p.write_text("x"), "folder or a Parquet file"),
            (lambda p: None, "folder or a Parquet file"),
        ],
    )
    def test_faults_name_the_source(self, tmp_path, make, says):
        make(tmp_path / "source")
        with pytest.raises(ValueError, match=says) as caught:
            read_texts(str(tmp_path / "source"), 10**9)
        assert "source" in str(caught.value)

    def test_parquet_without_the_column_and_damaged(self, tmp_path):
        pyarrow.parquet.write_table(pyarrow.table({"other": [1]}), tmp_path / "a.parquet")
        (tmp_path / "b.parquet").write_bytes(b"PAR1")
        for name in "ab":
            with pytest.raises(ValueError, match=f"{name}.parquet cannot be read as Parquet"):
                read_texts(str(tmp_path / f"{name}.parquet"), 10**9)


class TestCorpus:
    def test_bytes_are_the_texts(self, source):
        data = Corpus(source).load(32)
        texts = read_texts(source, 10**9)
        for split in ("train", "validation", "test"):
            joined = b"".join(text.content for text in texts if text.split == split)
            assert getattr(data, split).tobytes() == joined
            assert data.manifest["splits"][split]["sha256"] == hashlib.sha256(joined).hexdigest()
        assert data.vocabulary == 256
        assert isinstance(data.train, np.memmap)
        listed = data.manifest["files"]
        assert {"name", "bytes", "sha256", "split"} == {*listed[0]}
        assert len(listed) == 80

    def test_a_damaged_or_outdated_cache_is_made_again(self, source, cache, tmp_path):
        data = Corpus(source).load()
        (data.folder / "train.bin").write_bytes(b"x" * len(data.train))
        assert Corpus(source).load().sha256 == data.sha256
        (tmp_path / "texts" / "0.txt").write_text("something else " * 50)
        assert Corpus(source).load().sha256 != data.sha256

    def test_a_whole_cache_is_not_written_again(self, source):
        path = Corpus(source).load().folder / "train.bin"
        before = path.stat().st_mtime_ns
        Corpus(source).load()
        assert path.stat().st_mtime_ns == before

    def test_byte_pairs(self, source):
        data = Corpus(source, level="bpe", vocabulary=300).load()
        assert data.train.dtype == np.uint16
        assert data.vocabulary <= 300
        sizes = data.bytes_per_token()
        assert sizes[data.train].sum() == data.manifest["splits"]["train"]["bytes"]
        assert len(data.encode("line 3 of")) < len("line 3 of")
        (data.folder / "tokenizer.json").write_text("{}")  # made again, not used
        assert Corpus(source, level="bpe", vocabulary=300).load().sha256 == data.sha256

    def test_too_little_text(self, tmp_path):
        with pytest.raises(ValueError, match=r"tokens, too few for a context of 50,000"):
            Corpus(write_texts(tmp_path / "few", count=60)).load(50_000)

    def test_settings_are_checked(self):
        with pytest.raises(ValueError, match="vocabulary"):
            Corpus(vocabulary=100_000)
        with pytest.raises(ValueError, match="most_bytes"):
            Corpus(most_bytes=0)


class TestBatches:
    def test_they_depend_on_seed_and_step_alone(self, source):
        data = Corpus(source).load()
        batches = TextBatches(data, 64, 4, seed=1)
        one, recorded = batches(5)
        again, _ = TextBatches(data, 64, 4, seed=1)(5)
        other, _ = TextBatches(data, 64, 4, seed=2)(5)
        assert (one["tokens"] == again["tokens"]).all()
        assert (one["tokens"] != other["tokens"]).any()
        assert (one["tokens"][:, 1:] == one["labels"][:, :-1]).all()
        start = recorded["offsets"][0]
        assert one["tokens"][0].tolist() == data.train[start : start + 64].tolist()

    def test_some_are_tasks(self, source):
        data = Corpus(source).load()
        _, none = TextBatches(data, 200, 64, 0)(0)
        batch, some = TextBatches(data, 200, 64, 0, task_share=0.25)(0)
        assert min(none["offsets"]) >= 0
        tasks = [row for row, offset in enumerate(some["offsets"]) if offset < 0]
        assert 4 < len(tasks) < 30
        texts = [bytes(batch["tokens"][row].tolist()) for row in tasks]
        assert all(b"\n# " in text for text in texts)


def test_the_manifest_is_json(source):
    data = Corpus(source).load()
    assert json.loads((data.folder / "corpus.json").read_text())["vocabulary"] == 256
