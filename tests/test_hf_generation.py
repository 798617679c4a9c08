"""Models of Transformers on "rattention" that generate: the tokens of "eager", however they search."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
import transformers

from tests.hf_models import DECODERS, build, padding, tokens

rattention.hf.register()

by_decoder = pytest.mark.parametrize("name", DECODERS)
by_cache = pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
OPTIONS = {"do_sample": False, "max_new_tokens": 9, "pad_token_id": 0}


@pytest.fixture
def no_graphs():
    """Graphs of other models, of which those of this one would be versions."""
    torch._dynamo.reset()


def assert_tokens_of_eager(name, length=17, batch=2, assisted=False, **options):
    def generate(implementation):
        model = build(name, implementation)
        helper = {"assistant_model": unlike(build(name, implementation))} if assisted else {}
        return model.generate(tokens(batch, length), **OPTIONS, **options, **helper)

    got, expected = generate("rattention"), generate("eager")
    assert got.shape[1] == length + OPTIONS["max_new_tokens"]
    assert torch.equal(got, expected)


def unlike(model):
    """Weights that guess some tokens right and some wrong."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    return model


@by_decoder
@pytest.mark.parametrize("side", ["none", "left"])
def test_beams_equal_those_of_eager(name, side):
    mask = {"attention_mask": padding(side)} if side != "none" else {}
    assert_tokens_of_eager(name, num_beams=3, **mask)


@by_decoder
def test_assisted_generations_equal_those_of_eager(name):
    """Several guessed tokens at once, and caches that go back."""
    assert_tokens_of_eager(name, batch=1, assisted=True)


@by_cache
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("length", [1, 3, 60])
def test_generations_from_short_and_long_prompts(name, cache, length):
    """Windows of six keys that are still open, and long full."""
    assert_tokens_of_eager(name, length, cache_implementation=cache)


@by_cache
def test_steps_in_bfloat16(name):
    model = build(name, "rattention").bfloat16()
    eager = build(name, "eager").bfloat16()
    with torch.no_grad():
        got, expected = (m(tokens(), use_cache=True) for m in (model, eager))
        steps = [
            m(tokens()[:, :1], past_key_values=r.past_key_values)
            for m, r in ((model, got), (eager, expected))
        ]
    torch.testing.assert_close(steps[0].logits, steps[1].logits, rtol=0.1, atol=0.1)


@by_cache
@pytest.mark.usefixtures("no_graphs")
def test_compiled_forward_passes(name):
    expected = build(name, "eager")(tokens(), attention_mask=padding("left")).logits
    with torch.no_grad():
        compiled = torch.compile(build(name, "rattention"), fullgraph=True)
        got = compiled(tokens(), attention_mask=padding("left")).logits
    visible = padding("left").bool()
    torch.testing.assert_close(got[visible], expected[visible], rtol=1e-4, atol=1e-4)


@by_cache
@pytest.mark.usefixtures("no_graphs")
def test_compiled_steps_with_a_static_cache(name):
    """One graph for all steps; Transformers' caches of windows need more, with any implementation."""

    def logits(implementation, wrap):
        model = build(name, implementation)
        cache = transformers.StaticCache(config=model.config, max_cache_len=32)
        with torch.no_grad():
            model(tokens(), past_key_values=cache)
            step = wrap(model)
            return torch.cat([step(tokens()[:, i : i + 1], past_key_values=cache).logits for i in range(4)])

    def compiled(model):
        return torch.compile(model, fullgraph=True)

    with torch._dynamo.config.patch(error_on_recompile=name == "llama"):
        got = logits("rattention", compiled)
    torch.testing.assert_close(got, logits("eager", lambda model: model), rtol=1e-4, atol=1e-4)


def test_continuous_batching_is_refused_in_one_sentence():
    model = build("llama", "rattention")
    config = transformers.GenerationConfig(max_new_tokens=2, do_sample=False)
    refused = {"match": r"Implementation rattention is not supported for continuous batching"}
    with pytest.raises(ValueError, **refused):
        model.generate(tokens(), cache_implementation="paged", max_new_tokens=2)
    with pytest.raises(ValueError, **refused):
        model.generate_batch(tokens().tolist(), generation_config=config)
