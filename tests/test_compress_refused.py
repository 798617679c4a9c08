"""rattention.compress: what it refuses, warns of and reports."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import rattention.hf
import torch
from rattention.compression import Recency, Strategy
from rattention.models import Bert

from tests.bert_folder import write_folder
from tests.compressed_models import GREEDY, family, run, small, stepwise
from tests.hf_models import build, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_compressed_cache_is_refused_outside():
    model = family("llama")
    with ra.compress(model, "recency", 4):
        _, cache = run(model, tokens())
    with pytest.raises(RuntimeError, match=r"compressed: go on with it within rattention.compress"):
        run(model, tokens(), cache=cache)
    with pytest.raises(NotImplementedError, match="cannot take tokens back"):
        cache.crop(-1)
    cache.reset()
    with ra.compress(model, "uniform", 5):
        run(model, tokens(), cache=cache)
    assert cache.layers[1].held.key.shape[2] == 5


@pytest.mark.parametrize("kind", ["transformers", "nn"])
def test_the_model_is_restored_after_an_exception(kind):
    model = small(kind)
    before = stepwise(model, [tokens()])
    with pytest.raises(IndexError), ra.compress(model, "recency", 4):
        stepwise(model, [tokens(), tokens() + 100])  # there are 64 tokens
    assert torch.equal(stepwise(model, [tokens()]), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    if kind == "transformers":
        assert model.config._attn_implementation == "eager"
    with ra.compress(model, "recency", 4):
        pass


class Broken(Strategy):
    def keep(self, past, count):
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", ["transformers", "nn"])
def test_a_strategy_that_fails(kind):
    model = small(kind)
    before = stepwise(model, [tokens()])
    with pytest.raises(ZeroDivisionError), ra.compress(model, Broken(), 4):
        stepwise(model, [tokens()])
    assert torch.equal(stepwise(model, [tokens()]), before)


@pytest.mark.parametrize("kind", ["transformers", "nn"])
def test_nested_blocks_are_refused(kind):
    model = small(kind)
    with ra.compress(model, "recency", 4):
        part = model.model if kind == "transformers" else model.encoder
        for block in (ra.compress(model, "sinks", 4), ra.compress(part, "sinks", 4), ra.observe(model)):
            with pytest.raises(RuntimeError, match=r"or a part of it, is being .* already"), block:
                pass
    with ra.observe(model), pytest.raises(RuntimeError, match=r"is being .* already"):
        ra.compress(model, "sinks", 4).__enter__()
    with ra.compress(model, "sinks", 4):
        pass


def test_an_encoder_without_a_cache(tmp_path):
    bert = Bert.from_pretrained(write_folder(tmp_path))
    with pytest.raises(TypeError, match="got Bert: an encoder has no cache"), ra.compress(bert, "sinks", 4):
        pass


def test_nan_is_reported():
    model = family("llama")
    model.model.layers[0].self_attn.k_proj.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite: queries or keys"), ra.compress(model, "received", 4):
        run(model, tokens())
    with ra.compress(model, "recency", 4) as use:
        run(model, tokens())
    assert use.layers[0].held == 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: family("llama"), ValueError, "strategy must be one of recency, .*got 'best'"),
        (lambda: build("bert"), ValueError, "no decoder-only model"),
        (lambda: build("mistral"), ValueError, "sliding windows in every layer"),
        (lambda: torch.nn.Linear(2, 2), ValueError, "no causal layers of full softmax attention"),
        (lambda: "llama", TypeError, "model must be a transformers.PreTrainedModel .* got str"),
    ],
)
def test_what_cannot_be_compressed(make, error, message):
    strategy = "best" if "strategy" in message else "recency"
    with pytest.raises(error, match=message), ra.compress(make(), strategy, 4):
        pass


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 0}, ValueError, "at least 1 token"),
        ({"budget": True}, TypeError, "got True"),
        ({"budget": 1.5}, ValueError, "got 1.5"),
        ({"budget": 4, "slack": -1}, ValueError, "slack must be >= 0"),
        ({"budget": 4, "slack": 1.0}, TypeError, "slack must be an integer"),
    ],
)
def test_impossible_arguments(options, error, message):
    with pytest.raises(error, match=message), ra.compress(family("llama"), "recency", **options):
        pass


def test_other_caches_and_masks_are_refused():
    model = family("llama")
    with ra.compress(model, "recency", 4):
        with pytest.raises(ValueError, match=r"only dynamic caches .* StaticLayer"):
            model.generate(tokens(), max_new_tokens=2, cache_implementation="static", **GREEDY)
        with pytest.raises(ValueError, match=r"must be \[batch, tokens\]"):
            model(tokens(), attention_mask=torch.zeros(2, 1, 17, 17), use_cache=True)


def test_the_report():
    model = family("llama")
    with ra.compress(model, Recency(), 4) as use:
        run(model, tokens())
    layer = use.layers[0]
    one = 2 * 2 * 8 * 4  # keys and values of two heads of 8 float32 numbers
    assert layer.full_nbytes == 2 * 17 * one
    assert layer.nbytes == 2 * 4 * (one + 2 * 4)  # and an int32 position per head
    assert layer.positions[0, 0].tolist() == [13, 14, 15, 16]
    with ra.compress(model, Recency(), 17) as use:
        run(model, tokens())
    assert use.layers[0].cuts == 0
    assert use.layers[0].mass_kept is None
    assert 0 <= use.seconds < 1
