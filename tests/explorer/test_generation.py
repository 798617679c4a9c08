"""Texts that a model goes on with: its tokens, their places in the text, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.extras import needs

needs("inspect")

import torch
import transformers as tf
from rattention.explorer import Document, explore
from rattention.explorer.generation import spelled
from rattention.explorer.offline import offline_page
from rattention.explorer.reading import BINS, MEASURED
from rattention.explorer.session import Session
from rattention.nn import LanguageModel

from tests.explorer.test_answers import named
from tests.explorer.test_explore import answers_of
from tests.hf_models import BERT, DECODERS, build, byte_tokenizer

PROMPT = "Row, row."
SIZES = {"vocab_size": 257, "max_position_embeddings": 64}


def model_of(name="llama", **changes):
    return build(name, **(SIZES | changes))


def step_by_step(model, ids, count):
    """The most likely tokens, one full pass for each."""
    with torch.no_grad():
        for _ in range(count):
            ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return ids


@pytest.mark.parametrize("name", [*DECODERS])
def test_greedy_tokens_are_the_most_likely_ones(name):
    """Whatever the model's own configuration of generation asks for."""
    model, tokenizer = model_of(name), byte_tokenizer()
    model.generation_config.repetition_penalty, model.generation_config.num_beams = 5.0, 3
    before = model.generation_config
    seen = explore(model, PROMPT, tokenizer=tokenizer, generate=12)
    expected = step_by_step(model, tokenizer(PROMPT)["input_ids"], 12)
    document = seen.reading.document
    assert model.generation_config is before
    assert document.generated == len(PROMPT)
    assert document.text == tokenizer.decode(expected)
    assert len(document) == len(PROMPT) + 12
    assert document.how == "greedy"
    answer = seen.explorer.ask("document")
    assert (answer["generated"], answer["how"]) == (len(PROMPT), "greedy")


def test_prompt_and_answer_are_read_in_one_pass():
    """Maps and curves are those of a text that was given whole."""
    model, tokenizer = model_of(), byte_tokenizer()
    seen = explore(model, PROMPT, tokenizer=tokenizer, generate=20)
    with torch.no_grad():
        ids = torch.tensor([step_by_step(model, tokenizer(PROMPT)["input_ids"], 20)])
        stored = model(ids, use_cache=False, output_attentions=True).attentions
    n = len(seen.reading.document)
    whole = {"rows": f"0,{n}", "keys": f"0,{n}", "shape": f"{n},{n}"}
    for layer, weights in enumerate(stored):
        got = seen.explorer.ask("map", {**named(layer, None), **whole})["weights"]
        np.testing.assert_allclose(got, weights[0].mean(0).numpy(), atol=2e-5)
    curves = seen.explorer.ask("overview", named(1, 2))["curves"]
    largest = stored[1][0, 2].max(-1).values.numpy()
    np.testing.assert_allclose(curves[MEASURED.index("max_weight")], largest, atol=2e-5)


def test_curves_have_a_bin_for_each_token_of_the_answer():
    length = 3 * BINS
    model = model_of(max_position_embeddings=length + 40)
    seen = explore(model, "a" * length, tokenizer=byte_tokenizer(), generate=30)
    edges = seen.explorer.ask("overview", named(0, 0))["edges"]
    assert np.diff(edges).tolist() == [3] * BINS + [1] * 30


def test_draws_are_those_of_the_seed():
    model, tokenizer = model_of(), byte_tokenizer()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def text(seed, temperature=2.0):
        options = {"generate": 30, "temperature": temperature, "seed": seed}
        document = explore(model, PROMPT, tokenizer=tokenizer, **options).reading.document
        assert document.how == f"sampled at temperature {temperature:g}, seed {seed}"
        return document.text

    assert text(3) == text(3) != text(4)
    assert text(3, 1e-4) == explore(model, PROMPT, tokenizer=tokenizer, generate=30).reading.document.text
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_end_of_a_text():
    """A token of its own without characters; what is missing is said."""
    model, tokenizer = model_of(), byte_tokenizer()
    expected = step_by_step(model, tokenizer(PROMPT)["input_ids"], 30)[len(PROMPT) :]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        model.lm_head.weight[0] = 1.001 * model.lm_head.weight[expected[4]]
    seen = explore(model, PROMPT, tokenizer=tokenizer, generate=30).reading.document
    assert seen.remarks[0].startswith("the model ended its text after ")
    assert seen.spans[-1, 0] == seen.spans[-1, 1] == len(seen.text)
    assert len(seen) < len(PROMPT) + 30


def test_characters_of_several_tokens():
    """They share the character's place; a character that was not ended is what the tokenizer writes."""
    tokenizer = byte_tokenizer()
    answer = tokenizer("a😀é")["input_ids"]
    text, spans = spelled(tokenizer, tokenizer("Hi ")["input_ids"], answer + answer[1:3], 3)
    assert text == "a😀é\ufffd"
    assert spans.tolist() == [[3, 4]] + [[4, 5]] * 4 + [[5, 6]] * 2 + [[6, 7]] * 2


def test_a_long_answer_is_spelled_like_the_whole():
    tokenizer = byte_tokenizer()
    told = "naïve 狼 😀 \u05e9\u05dc\u05d5\u05dd\n" * 9
    text, spans = spelled(tokenizer, [], tokenizer(told)["input_ids"], 0)
    assert text == told
    whole = tokenizer(told, return_offsets_mapping=True)["offset_mapping"]
    covered = [told[a:b] for a, b in spans]
    assert len(covered) == len(whole)
    assert all(told[a:b] in piece or piece in told[a:b] for (a, b), piece in zip(whole, covered, strict=True))


@pytest.mark.parametrize(
    ("make", "options", "error", "said"),
    [
        (model_of, {"generate": 56}, ValueError, "at most 55: the model has 64 positions and the text 9"),
        (model_of, {"generate": -1}, ValueError, "generate must be >= 0, got -1"),
        (model_of, {"generate": 2.5}, TypeError, "generate must be an integer, got 2.5"),
        (model_of, {"generate": 1, "temperature": -1}, ValueError, "temperature must be 0 or from 0.0001"),
        (model_of, {"generate": 1, "temperature": 1e-300}, ValueError, "must be 0 or from 0.0001"),
        (model_of, {"generate": 1, "temperature": 101}, ValueError, "to 100, got 101"),
        (model_of, {"generate": 1, "temperature": float("nan")}, ValueError, "temperature must be finite"),
        (model_of, {"generate": 1, "seed": -1}, ValueError, "seed must be between 0"),
        (lambda: model_of().model, {"generate": 1}, ValueError, r"\(LlamaModel\) cannot generate"),
        (lambda: build("bert", **SIZES), {"generate": 1}, ValueError, r"\(BertForMaskedLM\) cannot generate"),
        (
            lambda: tf.RobertaForCausalLM(tf.RobertaConfig(**(BERT | SIZES))),
            {"generate": 1},
            ValueError,
            r"\(RobertaForCausalLM\) cannot generate",
        ),
        (
            lambda: tf.LlamaForSequenceClassification(model_of().config),
            {"generate": 1},
            ValueError,
            r"\(LlamaForSequenceClassification\) cannot generate",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(make, options, error, said):
    with pytest.raises(error, match=said):
        explore(make(), PROMPT, tokenizer=byte_tokenizer(), **options)


def test_the_coldest_temperature_takes_the_most_likely_tokens():
    found = [
        explore(model_of(), PROMPT, tokenizer=byte_tokenizer(), generate=8, temperature=temperature)
        for temperature in (0, 1e-4)
    ]
    assert found[0].reading.document.text == found[1].reading.document.text


def test_models_that_read_bytes_are_refused():
    with pytest.raises(ValueError, match=r"LanguageModel.* cannot generate"):
        explore(LanguageModel(256, dim=32, heads=2, depth=1), PROMPT, generate=1)


def test_progress_and_its_end():
    said = []
    model = model_of()
    explore(model, PROMPT, tokenizer=byte_tokenizer(), generate=3, progress=lambda *step: said.append(step))
    assert said[:4] == [("generating", i, 3) for i in range(4)]
    assert said[-1] == ("reading", 2, 2)

    def stop(stage, done, total):
        if stage == "generating" and done == 2:
            raise KeyboardInterrupt

    before = model.generation_config
    with pytest.raises(KeyboardInterrupt):
        explore(model, PROMPT, tokenizer=byte_tokenizer(), generate=30, progress=stop)
    assert model.generation_config is before


def test_texts_opened_in_the_page_are_gone_on_with_and_turns_are_not():
    session = explore(model_of(), PROMPT, tokenizer=byte_tokenizer(), generate=5)._session
    assert isinstance(session, Session)
    session.open("Other.")
    session.wait()
    assert session.explorer.reading.document.generated == len("Other.")
    session.say("More.")
    session.wait()
    assert session.explorer.reading.document.generated is None


def test_offline_page_and_widget():
    seen = explore(model_of(), PROMPT, tokenizer=byte_tokenizer(), generate=8)
    found = answers_of(offline_page(seen.explorer))
    assert found["document", ""]["generated"] == len(PROMPT)
    assert found["document", ""]["how"] == "greedy"
    curves = found["overview", "head=1&layer=0"]["curves"]
    np.testing.assert_array_equal(curves, seen.explorer.ask("overview", named(0, 1))["curves"])


@pytest.mark.parametrize("generated", [0, 4, -1])
def test_where_an_answer_may_begin(generated):
    with pytest.raises(ValueError, match="generated must be a token from 1 to 3"):
        Document("abcd", np.arange(4)[:, None] + [0, 1], generated=generated)
