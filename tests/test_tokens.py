"""From text to tokens: truncation, pairs, padding, vocabularies, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rattention.models import Bert, WeightsError
from rattention.models.tokens import load_tokenizer

from tests.bert_folder import VOCABULARY, write_folder
from tests.extras import needs

needs("models")

CLS, SEP, PAD = (VOCABULARY.index(f"[{name}]") for name in ("CLS", "SEP", "PAD"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder):
    return Bert.from_pretrained(folder)


def test_one_text(model):
    got = model.encode("The cats, sleeping on MATS?")
    assert got.tokens == [
        ["[CLS]", "the", "cat", "##s", ",", "sleep", "##ing", "on", "mat", "##s", "?", "[SEP]"]
    ]
    assert got.input_ids.tolist() == [[VOCABULARY.index(token) for token in got.tokens[0]]]
    assert got.input_ids.dtype == got.token_type_ids.dtype == np.int64
    assert got.attention_mask.dtype == got.special_tokens_mask.dtype == bool
    assert got.attention_mask.all()
    assert not got.token_type_ids.any()
    assert np.flatnonzero(got.special_tokens_mask[0]).tolist() == [0, 11]
    text = "The cats, sleeping on MATS?"
    assert [text[start:end] for start, end in got.offsets[0][1:4]] == ["The", "cat", "s"]


def test_pairs_in_a_padded_batch(model):
    got = model.encode(["the cat", "a dog and a cat"], pairs=["sat .", "run"])
    assert got.tokens == [
        ["[CLS]", "the", "cat", "[SEP]", "sat", ".", "[SEP]", "[PAD]", "[PAD]"],
        ["[CLS]", "a", "dog", "and", "a", "cat", "[SEP]", "run", "[SEP]"],
    ]
    assert got.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 1]]
    assert got.attention_mask.tolist() == [[True] * 7 + [False] * 2, [True] * 9]
    assert got.input_ids[0, 7:].tolist() == [PAD, PAD]
    assert got.special_tokens_mask.tolist()[0] == [True, False, False, True, False, False, True, True, True]
    assert got.offsets[0][4:7] == [(0, 3), (4, 5), (0, 0)]


def by_the_library(folder, text, pair, length):
    """The library's own truncation, as Transformers sets it."""
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(length, strategy="longest_first")
    return tokenizer.encode(text, pair)


WORD_COUNTS = [(1, None), (15, None), (90, None), (1, 1), (9, 4), (4, 9), (50, 60), (70, 1)]
LENGTHS = [2, 3, 4, 5, 7, 12, 20, 64]
CUTS = [(*words, length) for words in WORD_COUNTS for length in LENGTHS if length > 2 or words[1] is None]


@pytest.mark.parametrize(("first", "second", "length"), CUTS)
def test_truncation_is_the_librarys(model, folder, first, second, length):
    text, pair = "cat dog " * first, None if second is None else "sat on " * second
    got = model.encode(text, pairs=pair, max_length=length)
    want = by_the_library(folder, text, pair, length)
    assert got.input_ids.tolist() == [want.ids]
    assert got.token_type_ids.tolist() == [want.type_ids]
    assert got.offsets == [want.offsets]
    assert got.special_tokens_mask.tolist() == [[bool(flag) for flag in want.special_tokens_mask]]


def test_positions_are_the_default_limit(model):
    assert model.encode("cat " * 500).input_ids.shape == (1, 64)


def test_truncation_does_not_stick(model):
    long = model.encode("cat " * 30).input_ids
    model.encode("cat " * 30, max_length=5)
    np.testing.assert_array_equal(model.encode("cat " * 30).input_ids, long)
    assert model.tokenizer.truncation is None
    assert model.tokenizer.padding is None


BAD_TEXTS = {
    "empty": ({"texts": ""}, ValueError, r"texts\[0\] is empty"),
    "blank": ({"texts": " \n\t"}, ValueError, r"texts\[0\] is empty"),
    "no tokens": ({"texts": "\0\0"}, ValueError, "a text holds no token"),
    "no tokens in the pair": ({"texts": "cat", "pairs": "\0"}, ValueError, "a text holds no token"),
    "one empty of two": ({"texts": ["cat", ""]}, ValueError, r"texts\[1\] is empty"),
    "none": ({"texts": []}, ValueError, "texts holds no text"),
    "empty pair": ({"texts": "cat", "pairs": ""}, ValueError, r"pairs\[0\] is empty"),
    "more texts than pairs": (
        {"texts": ["cat", "dog"], "pairs": ["sat"]},
        ValueError,
        "equally many, got 2 and 1",
    ),
    "half a character": ({"texts": ["cat", "\ud83d"]}, ValueError, r"texts\[1\] is no Unicode text"),
    "no text": ({"texts": 3}, TypeError, "texts must be a string"),
    "bytes": ({"texts": b"cat"}, TypeError, "texts must be a string"),
    "a list of numbers": ({"texts": [3]}, TypeError, "texts must be a string"),
    "no room": ({"texts": "cat", "max_length": 1}, ValueError, "between 2 .* and 64 .*, got 1"),
    "no room for a pair": (
        {"texts": "cat", "pairs": "sat", "max_length": 2},
        ValueError,
        "between 3 .* got 2",
    ),
    "beyond the positions": (
        {"texts": "cat", "max_length": 65},
        ValueError,
        "and 64 .the model's positions., got 65",
    ),
    "negative": ({"texts": "cat", "max_length": -1}, ValueError, "got -1"),
    "a float": ({"texts": "cat", "max_length": 5.0}, TypeError, "max_length must be an integer"),
    "a bool": ({"texts": "cat", "max_length": True}, TypeError, "max_length must be an integer"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_texts(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.encode(**arguments)


@pytest.mark.parametrize(
    "text", ["𝔘nknown 猫", "\0\0a\0", "e\u0301" * 9, "a" * 300, "[CLS] [PAD]", "🙂" * 70]
)
def test_odd_texts(model, text):
    """Any Unicode text gives ids that the model can read."""
    encoding = model.encode(text)
    assert model(encoding).last_hidden_state.shape == (*encoding.input_ids.shape, 24)


def test_options_of_the_vocabulary(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    cased = [word.upper() if word == "cat" else word for word in VOCABULARY]
    renamed = ["<s>" if word == "[CLS]" else word for word in cased]
    (tmp_path / "vocab.txt").write_text("\n".join(renamed), "utf-8")
    options = {"do_lower_case": False, "cls_token": {"content": "<s>"}, "strip_accents": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options), "utf-8")
    got = Bert.from_pretrained(tmp_path).encode("the CAT cat")
    assert got.tokens == [["<s>", "the", "CAT", "[UNK]", "[SEP]"]]


def test_tokenizer_json_comes_first_and_loses_its_own_limits(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").write_text("useless")
    assert Bert.from_pretrained(tmp_path).encode("the cat sat on a mat").input_ids.shape == (1, 8)


BAD_TOKENIZERS = {
    "none": ({}, "neither tokenizer.json nor vocab.txt"),
    "damaged tokenizer.json": ({"tokenizer.json": "{"}, "no usable tokenizer"),
    "another object": ({"tokenizer.json": "{}"}, "no usable tokenizer"),
    "damaged options": (
        {"vocab.txt": "\n".join(VOCABULARY), "tokenizer_config.json": "["},
        "tokenizer_config.json",
    ),
    "no special tokens": ({"vocab.txt": "the\ncat\n"}, r"lacks the special tokens \[UNK\], \[SEP\]"),
    "empty vocabulary": ({"vocab.txt": ""}, "lacks the special tokens"),
}


@pytest.mark.parametrize(("files", "message"), BAD_TOKENIZERS.values(), ids=BAD_TOKENIZERS)
def test_bad_tokenizers(folder, tmp_path, files, message):
    """Token ids can still be run."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    model = Bert.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=message):
        model.encode("the cat")
    assert model(np.array([[CLS, 5, SEP]])).last_hidden_state.shape == (1, 3, 24)
