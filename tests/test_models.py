"""A selection of the sweep over models of Transformers, which `python -m tests.sweep` runs in whole."""

from __future__ import annotations

import re

from tests.extras import needs

needs("hf")

import pytest
import rattention.hf
import torch

from tests.sweep import checks
from tests.sweep.models import build, classes, output_of
from tests.sweep.signals import tokens

rattention.hf.register()

RIGHT = {
    "modules call themselves causal": "NllbMoeForConditionalGeneration PegasusXForConditionalGeneration "
    "BigBirdPegasusForConditionalGeneration SplinterModel PaliGemmaForConditionalGeneration",
    "the window is in the mask alone": "Qwen2MoeForCausalLM PhimoeForCausalLM",
    "chunks": "Llama4ForCausalLM",
    "windows on both sides": "ModernBertForMaskedLM",
    "pictures and sound": "ViTModel CLIPModel WhisperForConditionalGeneration MllamaForConditionalGeneration",
    "grouped heads, latent attention": "Gemma3ForCausalLM DeepseekV3ForCausalLM",
    "sinks, soft caps, position biases": "GptOssForCausalLM Gemma2ForCausalLM T5ForConditionalGeneration",
    "a part attends by itself": "BigBirdPegasusForConditionalGeneration",
}
REFUSED = {
    "BloomForCausalLM": "it computes attention itself .BloomAttention",
    "FalconForCausalLM": "it computes attention itself .FalconAttention",
    "GitForCausalLM": "it computes attention itself .GitSelfAttention",
    "Inkling2ForCausalLM": "Inkling2SlidingAttention has attention sinks of one number per head, got shape",
    "DeepseekV32ForCausalLM": "sparse attention to chosen keys",
}


def checked(name):
    return checks.check(name, *classes()[name])


def test_windows_chunks_and_padding_were_there():
    assert "window" in checked("Qwen2MoeForCausalLM").features
    assert "segment_ids" in checked("Llama4ForCausalLM").features
    assert "key_mask" in checked("SplinterModel").features


@pytest.mark.parametrize("name", sorted({name for names in RIGHT.values() for name in names.split()}))
def test_models_are_right(name):
    result = checked(name)
    assert (result.status, result.reason) == ("right", "")
    assert result.calls
    assert {"two", "two, loaded", "gradients", "fault: scale"} <= set(result.done)


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused(name):
    result = checked(name)
    assert result.status == "refused", result
    assert result.reason.startswith("ValueError")
    assert re.search(REFUSED[name], result.reason)


@pytest.mark.parametrize(
    ("name", "form"),
    [("Gemma3ForConditionalGeneration", "block_ids"), ("PaliGemmaForConditionalGeneration", "table")],
)
def test_pictures_that_see_both_sides(name, form):
    """Blocks within a causal text; a function of the model's own becomes a table."""
    kind, model_type = classes()[name]
    model = build(name, model_type, kind).train()  # PaliGemma has such masks in training
    blocks = torch.zeros(2, 17, dtype=torch.int64)
    blocks[0, 3:8] = blocks[1, 9:12] = 1
    inputs = {"input_ids": tokens(), "token_type_ids": blocks, "use_cache": False}
    if name.startswith("Pali"):
        inputs["labels"] = tokens()
    with torch.no_grad():
        expected = output_of(model, inputs)
        causal = output_of(model, inputs | {"token_type_ids": 0 * blocks})
        model.set_attn_implementation("rattention")
        with checks.watched() as seen:
            got = output_of(model, inputs)
    assert not torch.allclose(expected, causal, atol=1e-2)
    assert form in seen.features
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


FAULTS = {
    "no mask": lambda forward, mask, arguments: forward(*arguments, None),
    "sees what is later": lambda forward, mask, arguments: forward(
        *arguments,
        checks.PatternMask(
            mask.shape,
            mask.visible,
            (mask.pattern or {}) | {"causal": False},
            mask.keys,
            dtype=mask.dtype,
            device=mask.device,
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_implementation_are_found(fault, monkeypatch):
    right = checks.attention_forward

    def wrong(module, query, key, value, mask, **arguments):
        def forward(module, query, key, value, mask):
            return right(module, query, key, value, mask, **arguments)

        return FAULTS[fault](forward, mask, (module, query, key, value))

    monkeypatch.setattr(checks, "attention_forward", wrong)
    result = checked("LlamaForCausalLM")
    assert result.status == "wrong"
    assert "two" in result.reason


def test_faults_that_would_not_show_are_named(monkeypatch):
    """A class whose inputs cannot tell a wrong implementation is not called right."""
    monkeypatch.setattr(checks.Seen, "_spoilt", lambda self, mask: mask)
    result = checked("LlamaForCausalLM")
    assert result.status == "blind"
    assert "a fault changes 0.0e+00 only" in result.reason
