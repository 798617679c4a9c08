"""Models with linear layers on `rattention`: the answers of Transformers' own loops."""

from __future__ import annotations

import copy
import doctest
import io
import pickle
from pathlib import Path

import pytest

from tests.extras import needs

needs("hf")

import rattention.hf
import torch
import transformers
from rattention.hf import linear_layers, state_space, use_linear_kernels
from transformers.models.auto.configuration_auto import model_type_to_module_name

from tests import hf_models
from tests.hf_models import padding, tokens
from tests.linear_models import DELTA, LAYERS, MODELS, build, cache_of, going_on
from tests.processes import run_python
from tests.sweep.models import build as sized
from tests.sweep.models import classes, output_of

rattention.hf.register()

LENGTH = 80  # more than one chunk, of any size
by_model = pytest.mark.parametrize("name", MODELS)


def built(name, ours, implementation="eager"):
    model = build(name, implementation)
    if ours:
        assert len(use_linear_kernels(model)) == len(LAYERS[name])
    return model


def pair(name):
    return built(name, ours=True), built(name, ours=False)


@torch.no_grad()
def logits(model, **inputs):
    return model(**inputs).logits


def assert_close(got, expected, tolerance=1e-4):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@by_model
@pytest.mark.parametrize(
    ("side", "length"),
    [("none", 1), ("none", 17), ("left", 17), ("none", LENGTH), ("left", LENGTH), ("right", LENGTH)],
)
def test_logits_equal_those_of_transformers(name, side, length):
    inputs = {"input_ids": tokens(length=length)}
    if side != "none":
        inputs["attention_mask"] = padding(side, length)
    shown = inputs.get("attention_mask", torch.ones(2, length)).bool()
    got, expected = (logits(model, **inputs)[shown] for model in pair(name))
    assert_close(got, expected)


def kinds():
    """Every class of an AutoModel with a rule in its file, whatever its release of Transformers has."""
    files = Path(transformers.__file__).parent.glob("models/*/modeling_*.py")
    rules = [name for name, ours in linear_layers.REPLACED.items() if ours in linear_layers.RULES]
    folders = {file.parent.name for file in files if any(rule in file.read_text("utf-8") for rule in rules)}
    there = {name: of for name, of in classes().items() if model_type_to_module_name(of[1]) in folders}
    return {name: of for name, of in there.items() if "Vision" not in name}  # what sees has no such layers


KINDS = kinds()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model(name):
    kind, model_type = KINDS[name]
    model = sized(name, model_type, kind)
    inputs = {"input_ids": tokens(), "use_cache": False}
    with torch.no_grad():
        expected = output_of(model, inputs)
        assert use_linear_kernels(model)
        assert_close(output_of(model, inputs), expected, 1e-3)


def test_no_kind_is_missing():
    assert len(KINDS) >= 15


@by_model
def test_the_rule_is_ours(name, monkeypatch):
    calls, delta = [], name in DELTA
    file, kernel = (linear_layers, "gated_delta_rule") if delta else (state_space, "gated_linear_attention")
    rule = getattr(file, kernel)
    monkeypatch.setattr(file, kernel, lambda *a, **k: calls.append(1) or rule(*a, **k))
    ours, theirs = pair(name)
    logits(theirs, input_ids=tokens())
    assert not calls
    logits(ours, input_ids=tokens())
    assert len(calls) == len(LAYERS[name])


@pytest.mark.parametrize("name", [*DELTA, "granite", "falcon_h1"])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("implementation", ["eager", "rattention"])
@pytest.mark.parametrize("more", [{}, {"cache_implementation": "static"}, {"num_beams": 3}], ids=str)
def test_generations_equal_those_of_transformers(name, side, implementation, more):
    inputs = {"attention_mask": padding(side)} if side != "none" else {}
    options = {"do_sample": False, "max_new_tokens": 9, "pad_token_id": 0} | more

    def generate(ours):
        model = built(name, ours, implementation if ours else "eager")
        return model.generate(tokens(), **inputs, **options, output_logits=True, return_dict_in_generate=True)

    got, expected = generate(True), generate(False)
    assert torch.equal(got.sequences, expected.sequences)
    # Norms of rows that are nearly 0 magnify rounding.
    assert_close(torch.stack(got.logits), torch.stack(expected.logits), 1e-3)


@by_model
@pytest.mark.parametrize("cut", [1, 2, 17])
def test_steps_of_any_length_equal_one_pass(name, cut):
    """Prefill, some tokens at once, and one token at a time."""
    model = built(name, ours=True)
    whole = logits(model, input_ids=tokens(length=25))
    with torch.no_grad():
        rest, cache = [], None
        for start, end in ((0, cut), (cut, 20), *((i, i + 1) for i in range(20, 25))):
            made = going_on(model, tokens(length=25)[:, start:end], cache)
            rest.append(made.logits)
            cache = cache_of(made)
    assert_close(torch.cat(rest, dim=1), whole)


@by_model
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_of_transformers(name, checkpointing):
    def gradients(model):
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        ids = tokens(length=LENGTH)
        loss = model(ids, attention_mask=padding("left", LENGTH), labels=ids, use_cache=False).loss
        loss.backward()
        return {part: p.grad for part, p in model.named_parameters() if p.grad is not None}

    got, expected = map(gradients, pair(name))
    assert got.keys() == expected.keys()
    assert any("A_log" in part for part in got)
    for (
        part,
        right,
    ) in expected.items():  # float64 is up to 3e-4 from either, in gates: norms magnify rounding
        largest = max(float(right.abs().max()), 1e-3)
        assert_close(got[part] / largest, right / largest, 1e-3)


@by_model
def test_bfloat16(name):
    """Logits of deviation 1 within 0.15: 8 bits, through four layers."""
    got, expected = (logits(model.bfloat16(), input_ids=tokens(length=LENGTH)) for model in pair(name))
    assert got.dtype == expected.dtype
    assert float(expected.float().std()) > 0.5
    assert float((got - expected).float().square().mean().sqrt()) < 0.15


@by_model
def test_nan_goes_on_as_nan(name):
    """Training leaves out steps whose numbers overflow; other sequences of the batch know nothing of it."""
    model = built(name, ours=True).train()
    rows = model.get_input_embeddings()(tokens()).detach()
    clean = model(inputs_embeds=rows, use_cache=False).logits
    rows[1, 9] = torch.nan
    made = model(inputs_embeds=rows, use_cache=False).logits
    made.sum().backward()
    # Experts take the tokens of all sequences in one product, whose bits depend on which these are.
    torch.testing.assert_close(made[0], clean[0])
    assert made[1, 9:].isnan().all()
    assert all(p.grad.isnan().any() for part, p in model.named_parameters() if part.endswith("A_log"))
    with torch.no_grad():
        cache = cache_of(model(inputs_embeds=rows, use_cache=True))
        assert going_on(model, tokens()[:, :1], cache).logits[1].isnan().all()


MIXED = {"granite": "its attention takes no notice of positions", "mamba2": "its layers are told nothing"}
"""What Transformers does with packed sequences outside linear layers."""


@pytest.mark.parametrize("name", [name for name in MODELS if name not in MIXED])
def test_packed_sequences_stay_apart(name):
    """Texts in one row, as in training without padding, give the logits that each gives alone."""
    model = built(name, ours=True, implementation="rattention")
    ids, ends = tokens(1, 40), torch.tensor([0, 13, 14, 40], dtype=torch.int32)
    bounds = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    positions = torch.cat([torch.arange(stop - start) for start, stop in bounds])[None]
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    alone = torch.cat([logits(model, input_ids=ids[:, a:b], use_cache=False) for a, b in bounds], dim=1)
    numbers = torch.cat(
        [torch.full((1, b - a), i, dtype=torch.int32) for i, (a, b) in enumerate(bounds)], dim=1
    )
    for packed in ({"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}, {"seq_idx": numbers}):
        assert_close(logits(model, **inputs, **packed), alone)


@by_model
@pytest.mark.parametrize("packed", [{"cu_seq_lens_q": [0, 1, 3]}, {"seq_idx": [[3, 5, 5]]}], ids=str)
@pytest.mark.parametrize("prefix", [0, 2, 5])
@torch.no_grad()
def test_packed_sequences_with_a_cache(name, packed, prefix):
    """The first goes on from what the cache holds, in the short convolution as well, which sees 4 tokens."""
    model = built(name, ours=True)
    layer = model.get_submodule(use_linear_kernels(model)[0])
    cache = transformers.DynamicCache(config=model.config)
    generator = torch.Generator().manual_seed(0)
    before, rows = torch.randn(1, prefix + 3, model.config.hidden_size, generator=generator).split(
        [prefix, 3], 1
    )
    if prefix:
        layer(before, cache_params=cache)
    packed = {form: torch.tensor(numbers, dtype=torch.int32) for form, numbers in packed.items()}
    first = layer(torch.cat([before, rows[:, :1]], dim=1))[:, -1:]
    expected = torch.cat([first, layer(rows[:, 1:])], dim=1)
    assert_close(layer(rows, cache_params=cache, **packed), expected)


@by_model
def test_layers_can_be_given_back(name):
    model, before = built(name, ours=True), built(name, ours=False)
    assert use_linear_kernels(model) == use_linear_kernels(model, use=False)
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_pre_hooks_with_kwargs
    inputs = {"input_ids": tokens(length=LENGTH)}
    assert torch.equal(logits(model, **inputs), logits(before, **inputs))


FOLLOWING = """
import os, pickle
import rattention.hf, torch
from rattention.hf import linear_layers
from tests.linear_models import build
from tests.hf_models import tokens

def calls(model):
    made, rule = [], linear_layers.gated_delta_rule
    linear_layers.gated_delta_rule = lambda *a, **k: made.append(1) or rule(*a, **k)
    with torch.no_grad():
        model(tokens(), use_cache=False)
    linear_layers.gated_delta_rule = rule
    return len(made)

rattention.hf.register()
before = build("qwen3_5", "rattention")
rattention.hf.register(linear_layers=True)
rattention.hf.register(linear_layers=True)
model, other = build("qwen3_5", "rattention"), build("kimi_linear", "eager")
assert [calls(m) for m in (before, model, other)] == [0, 3, 0]
for copy in (pickle.loads(pickle.dumps(model)), model):
    copy.set_attn_implementation("eager")
    assert calls(copy) == 0
    copy.set_attn_implementation("rattention")
    assert calls(copy) == 3
rattention.hf.use_linear_kernels(model, use=False)
assert calls(model) == 0
model.save_pretrained(os.environ["FOLDER"])
assert calls(type(model).from_pretrained(os.environ["FOLDER"], attn_implementation="rattention")) == 3
assert calls(type(model).from_pretrained(os.environ["FOLDER"], attn_implementation="eager")) == 0
other.set_attn_implementation("rattention")
inputs = {"input_ids": tokens(), "use_cache": False}
compiled = torch.compile(other, backend="eager", fullgraph=True)
torch.testing.assert_close(compiled(**inputs).logits, other(**inputs).logits, rtol=1e-4, atol=1e-4)
"""


def test_models_follow_their_implementation(tmp_path):
    """In a process of its own: models that come later would follow as well."""
    run_python(FOLLOWING, FOLDER=str(tmp_path), timeout=300)


def copied(model, how, folder):
    if how == "deepcopy":
        return copy.deepcopy(model)
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    if how == "torch.save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        return torch.load(file, weights_only=False)
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, attn_implementation="eager")


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "save_pretrained"])
def test_copies(how, tmp_path, monkeypatch):
    """They run on the same kernels; files of weights know nothing of it."""
    model = built("qwen3_5", ours=True)
    twin = copied(model, how, tmp_path)
    inputs = {"input_ids": tokens(length=LENGTH)}
    assert_close(logits(twin, **inputs), logits(model, **inputs))
    assert list(twin.state_dict()) == list(model.state_dict())
    monkeypatch.setattr(linear_layers, "gated_delta_rule", None)
    if how == "save_pretrained":
        logits(twin, **inputs)
    else:
        with pytest.raises(TypeError, match="not callable"):
            logits(twin, **inputs)


@pytest.mark.parametrize("name", ["qwen3_5", "kimi_linear", "bamba"])
def test_compiled_in_one_graph(name):
    inputs = {"input_ids": tokens(length=20), "labels": tokens(length=20), "use_cache": False}

    def gradients(compiled):
        model = built(name, ours=True)
        torch._dynamo.reset()
        run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        loss = run(**inputs).loss
        return [loss, *torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)]

    for got, expected in zip(gradients(True), gradients(False), strict=True):
        assert (got is None) == (expected is None)
        if got is not None:
            assert_close(got, expected)


def test_models_without_such_layers_are_refused():
    with pytest.raises(ValueError, match=r"^LlamaForCausalLM has no layer with .* are LlamaAttention$"):
        use_linear_kernels(hf_models.build("llama"))
    with pytest.raises(ValueError, match="nor any layer with a layer_idx"):
        use_linear_kernels(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        use_linear_kernels("qwen")


def test_the_docstring_is_right():
    assert doctest.testmod(linear_layers).failed == 0
