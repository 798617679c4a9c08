"""``pytorch_model.bin``: tensors of every kind, damaged archives, and what stands for more than it stores."""

from __future__ import annotations

import numpy as np
import pytest
from rattention.models import Bert, WeightsError

from tests.bert_folder import random_weights, write_folder
from tests.extras import needs
from tests.test_weights import IDS, TINY

needs("models")

WORDS = "embeddings.word_embeddings.weight"


def pickled_words(folder, change):
    """The tiny model with another tensor of words in its ``pytorch_model.bin``."""
    needs("torch")
    import torch

    weights = {name: torch.tensor(array) for name, array in random_weights(TINY).items()}
    write_folder(folder, TINY, random_weights(TINY))
    (folder / "model.safetensors").unlink()
    torch.save({**weights, WORDS: change(torch, weights[WORDS])}, folder / "pytorch_model.bin")
    return folder


SAME_NUMBERS = {
    "parameter": lambda torch, words: torch.nn.Parameter(words),
    "transposed": lambda torch, words: words.t().contiguous().t(),
    "negative view": lambda torch, words: torch._neg_view(-words),
}


@pytest.mark.row("W3")
@pytest.mark.parametrize("kind", SAME_NUMBERS)
def test_tensors_of_a_pickle_that_hold_the_same_numbers(tmp_path, kind):
    want = Bert.from_pretrained(write_folder(tmp_path / "safe", TINY, random_weights(TINY)))(IDS)
    got = Bert.from_pretrained(pickled_words(tmp_path / "pickled", SAME_NUMBERS[kind]))(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


NOT_PLAIN = {
    "sparse": (lambda torch, words: words.to_sparse(), "torch.sparse_coo"),
    "compressed": (lambda torch, words: words.to_sparse_csr(), "torch.sparse_csr"),
    "without data": (lambda torch, words: words.to("meta"), "on meta"),
    "complex": (lambda torch, words: torch.complex(words, words), "torch.complex64"),
    "double": (lambda torch, words: words.double(), "torch.float64"),
    "one number many times": (lambda torch, words: torch.zeros(1).expand(2**40, 2**20), "would become"),
}


@pytest.mark.row("W3")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_tensors_of_a_pickle_that_are_no_arrays(tmp_path, kind):
    change, fault = NOT_PLAIN[kind]
    folder = pickled_words(tmp_path, change)
    with pytest.raises(WeightsError, match=fault):
        Bert.from_pretrained(folder)


@pytest.mark.row("W2")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["whole", "directory"])
def test_bit_flips_in_a_pickle(tmp_path, part):
    """150 damaged archives, a third of them cut: refused, or a model whose numbers have changed."""
    path = pickled_words(tmp_path, lambda torch, words: words) / "pytorch_model.bin"
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    first = whole.index(b"PK\x01\x02") if part == "directory" else 0
    outcomes = {"refused": 0, "read": 0}
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(first, len(whole), rng.integers(1, 4)):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged[: rng.integers(len(whole))] if rng.random() < 0.3 else damaged))
        try:
            Bert.from_pretrained(tmp_path)
        except WeightsError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.row("W3")
def test_a_zip_that_spans_disks(tmp_path):
    """zipfile raises BadZipFile for it already where it is asked whether this is a zip at all."""
    path = pickled_words(tmp_path, lambda torch, words: words) / "pytorch_model.bin"
    content = bytearray(path.read_bytes())
    locator = content.rindex(b"PK\x06\x07")
    content[locator + 16] = 7  # the number of disks
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="is a damaged archive: "):
        Bert.from_pretrained(tmp_path)
