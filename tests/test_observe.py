"""rattention.observe: the metrics of the stored maps, without them, and the model as it was afterwards."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from tests.extras import needs

needs("inspect")

import rattention as ra
import torch
import transformers
from rattention._metrics import ROW_METRICS, MetricOptions, reference_metrics
from rattention.inspect import pretrained

from tests.hf_models import DECODERS, ENCODERS, build, padding, tokens
from tests.processes import run_python

OPTIONS = MetricOptions(local_radius=2, long_range_distance=6)


def maps(name, **inputs):
    """Of each layer, as eager stores them."""
    with torch.no_grad():
        attentions = build(name, "eager")(**inputs, output_attentions=True).attentions
    return [a.numpy().astype(np.float64) for a in attentions]


def observed(model, **options):
    with torch.no_grad(), ra.observe(model, metrics=OPTIONS, **options) as seen:
        model(tokens())
    return seen


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_metrics_are_those_of_the_maps(name):
    """Every metric, layer, head and row."""
    seen = observed(build(name), names=(*ROW_METRICS, "received"))
    for layer, weights in enumerate(maps(name, input_ids=tokens())):
        expected = reference_metrics(weights, weights > 0, np.arange(17), OPTIONS)
        for metric, values in expected:
            np.testing.assert_allclose(
                getattr(seen, metric)[layer], values, rtol=2e-3, atol=1e-4, err_msg=metric
            )


def test_outputs_and_gradients_are_unchanged():
    model = build("llama", attention_dropout=0.0)
    expected = model(tokens()).logits
    with ra.observe(model):
        got = model(tokens()).logits
        got.sum().backward()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


def generate(model, count=5, **options):
    settings = {"do_sample": False, "max_new_tokens": count, "pad_token_id": 0}
    return model.generate(tokens(), **settings, **options)


@pytest.mark.parametrize("name", DECODERS)
def test_each_generated_token_is_recorded(name):
    """With the numbers that the whole text has in one pass."""
    model = build(name)
    with ra.observe(model, metrics=OPTIONS) as seen:
        text = generate(model)
    assert [p.entropy.shape[3] for p in seen.passes] == [17, 1, 1, 1, 1]
    with torch.no_grad(), ra.observe(model, metrics=OPTIONS) as whole:
        model(text[:, :-1])
    for metric in set(ROW_METRICS) - {"max_position"}:  # counted from the first key of a sliding cache
        np.testing.assert_allclose(
            getattr(seen, metric), getattr(whole, metric), rtol=2e-3, atol=1e-4, err_msg=metric
        )
    assert torch.equal(text, generate(build(name)))


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_padding_are_nan(name, side):
    model, mask = build(name), padding(side)
    with torch.no_grad(), ra.observe(model) as seen:
        model(tokens(), attention_mask=mask)
    hidden = np.broadcast_to((mask == 0).numpy()[None, :, None], seen.entropy.shape)
    for metric in set(ROW_METRICS) - {"max_position", "recent_distant_ratio"}:
        np.testing.assert_array_equal(np.isnan(getattr(seen, metric)), hidden, err_msg=metric)
    assert (seen.max_position[hidden] == -1).all()
    assert (seen.max_position[~hidden] >= 0).all()
    alone = build(name)
    with torch.no_grad(), ra.observe(alone) as short:
        alone(tokens()[1:, mask[1].bool()], position_ids=torch.arange(17)[None, mask[1].bool()])
    np.testing.assert_allclose(
        seen.entropy[:, 1][..., mask[1].bool()], short.entropy[:, 0], rtol=1e-3, atol=1e-4
    )


def test_rows_that_attend_to_nothing_are_in_no_average():
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = transformers.BartModel(transformers.BartConfig(**sizes, **heads, pad_token_id=0)).eval()
    shown = torch.ones(2, 17, dtype=torch.long)
    shown[1] = 0  # the second sequence has nothing to read
    with torch.no_grad(), ra.observe(model, names=["entropy", "retention"]) as seen:
        model(tokens(), attention_mask=shown, decoder_input_ids=tokens()[:, :9])
    crossed = next(i for i, name in enumerate(seen.modules) if "encoder_attn" in name)
    layers = seen.passes[0].layers[crossed]
    assert np.isnan(layers["entropy"][1]).all()
    assert np.isfinite(layers["entropy"][0]).all()


def test_chosen_layers_and_metrics():
    full = observed(build("llama"))
    some = observed(build("llama"), layers=[1], names="entropy")
    assert some.names == ("entropy",)
    np.testing.assert_array_equal(some.entropy, full.entropy[1:])
    assert full.names == (*ROW_METRICS, "received")
    with ra.observe(build("llama")) as seen:
        assert seen.names == ROW_METRICS
    assert "layers=(1,), names=('entropy',), passes=1" in repr(some)
    assert full.modules == ("model.layers.0.self_attn", "model.layers.1.self_attn")
    with pytest.raises(AttributeError, match="retention was not measured"):
        some.retention  # noqa: B018


def test_the_model_is_restored():
    model = build("llama", "sdpa")
    with ra.observe(model):
        assert model.config._attn_implementation == pretrained.NAME
    assert model.config._attn_implementation == "sdpa"


def nested():
    config = transformers.CLIPConfig(
        text_config={"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4},
        vision_config={
            "num_hidden_layers": 1,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "image_size": 32,
        },
    )
    return transformers.CLIPModel(config).eval()


def test_parts_with_other_implementations_are_restored():
    model = nested()
    model.set_attn_implementation({"": "sdpa", "text_config": "eager", "vision_config": "sdpa"})
    parts = (model.config, model.config.text_config, model.config.vision_config)
    before = [c._attn_implementation for c in parts]
    assert len({*before}) == 2
    with torch.no_grad(), ra.observe(model) as seen:
        assert {c._attn_implementation for c in parts} == {pretrained.NAME}
        model.get_text_features(tokens(1))
    assert [c._attn_implementation for c in parts] == before
    assert seen.entropy.shape == (1, 1, 4, 17)


def test_the_model_is_restored_after_an_exception():
    model = build("llama")

    def fail(*args):
        raise KeyboardInterrupt("in the middle of a pass")

    hook = model.model.layers[1].self_attn.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt), ra.observe(model) as seen:
        model(tokens())
    hook.remove()
    assert model.config._attn_implementation == "eager"
    assert [*seen.passes[0].layers] == [0]
    assert observed(model).entropy.shape == (2, 2, 4, 17)


def test_a_pass_that_failed_leaves_the_next_one_whole():
    model = build("llama")
    with ra.observe(model) as seen, torch.no_grad():
        hook = model.model.layers[1].self_attn.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(tokens())
        hook.remove()
        model(tokens())
    assert seen.passes[1].entropy.shape == (2, 2, 4, 17)
    with pytest.raises(ValueError, match="other layers or batch sizes"):
        seen.entropy  # noqa: B018


def test_observing_twice_at_once():
    model, other = build("llama"), build("llama")
    with ra.observe(model), ra.observe(other) as seen:
        other(tokens())
        for again in (model, model.model):
            with pytest.raises(RuntimeError, match="captured or compressed already"), ra.observe(again):
                pass
        assert model.config._attn_implementation == pretrained.NAME
    assert len(seen.passes) == 1
    assert model.config._attn_implementation == "eager"
    assert observed(model).passes


def test_passes_of_other_sizes():
    model = build("llama")
    with ra.observe(model, names=("entropy", "received")) as seen:
        with pytest.raises(ValueError, match="nothing was observed yet"):
            seen.entropy  # noqa: B018
        model(tokens())
        assert seen.received.shape == (2, 2, 4, 17)
        model(tokens(1))
    assert [p.received.shape[1] for p in seen.passes] == [2, 1]
    for name in ("entropy", "received"):
        with pytest.raises(ValueError, match="one by one"):
            getattr(seen, name)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": "entropie"}, ValueError, "names must be some of entropy"),
        ({"names": []}, ValueError, "names must be some of"),
        ({"names": 3}, TypeError, "names must be names"),
        ({"layers": [2]}, ValueError, r"layers must be numbers from 0 to 1, got \[2\]"),
        ({"layers": -1}, ValueError, "layers must be numbers from 0 to 1"),
        ({"layers": []}, ValueError, "layers must be numbers from 0 to 1"),
        ({"layers": [0.5]}, TypeError, "layers must be"),
        ({"metrics": 5}, TypeError, "metrics must be a MetricOptions"),
    ],
)
def test_bad_arguments(options, error, message):
    model = build("llama")
    with pytest.raises(error, match=message), ra.observe(model, **options):
        pass
    assert observed(model).passes


def test_models_that_cannot_be_observed():
    message = "Linear has no attention layers of rattention.nn"
    with pytest.raises(ValueError, match=message), ra.observe(torch.nn.Linear(2, 2)):
        pass
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module .* got str"), ra.observe("bert"):
        pass
    bloom = transformers.BloomModel(
        transformers.BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2)
    )
    with pytest.raises(ValueError, match="BloomModel has no attention layers"), ra.observe(bloom):
        pass


def test_tensors_that_are_not_on_the_cpu():
    model = build("llama").to("meta")
    with pytest.raises(ValueError, match="on the CPU only, the model is on meta"), ra.observe(model):
        model(tokens().to("meta"))


def test_frame():
    seen = observed(build("llama"), layers=1)
    frame = seen.to_frame()
    assert len(frame) == 2 * 4 * 17
    assert [*frame.columns] == ["layer", "batch", "head", "token", *ROW_METRICS]
    row = frame[(frame["batch"] == 1) & (frame["head"] == 2) & (frame["token"] == 9)].iloc[0]
    assert row["layer"] == 1
    assert row["entropy"] == seen.entropy[0, 1, 2, 9]


def test_no_frame_of_what_keys_received():
    model = build("llama")
    with ra.observe(model, names=("received",)) as seen:
        model(tokens())
    with pytest.raises(ValueError, match="nothing with one number per token was measured"):
        seen.to_frame()


def test_averages():
    seen = observed(build("llama"))
    entropy = seen.entropy
    np.testing.assert_allclose(seen.per_head("entropy"), entropy.mean(axis=(1, 3)), rtol=1e-5)
    np.testing.assert_allclose(seen.per_token("entropy"), entropy.mean(axis=(1, 2)), rtol=1e-5)
    assert np.isfinite(seen.per_head("recent_distant_ratio")).all()


def test_figures():
    model = build("llama")
    with ra.observe(model) as seen:
        generate(model)
    heads = seen.plot_heads("entropy")
    np.testing.assert_allclose(heads.images[0].get_array(), seen.per_head("entropy"))
    lines = seen.plot_tokens("max_weight").lines
    np.testing.assert_allclose(lines[1].get_ydata(), seen.per_token("max_weight")[1])
    assert lines[-1].get_xdata()[0] == 17
    assert len(seen.figure().axes) == 8
    some = observed(model, layers=1).figure()
    assert [label.get_text() for label in some.axes[0].get_yticklabels()] == ["1"]
    assert len(observed(model, names=["max_weight", "entropy", "context_std"]).figure().axes) == 2
    assert len(observed(model, names=["max_weight"]).figure().axes) == 2


LONG = """
    import torch, transformers
    import rattention as ra
    from tests.processes import peak_beyond
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings={length}
    )
    model = transformers.LlamaModel(config).eval()
    with torch.no_grad():
        with ra.observe(model) as seen:
            model(torch.ones(1, 64, dtype=torch.int64))
        ids = torch.randint(64, (1, {length}))
        with ra.observe(model, names=("entropy", "received")) as seen:
            print(peak_beyond(lambda: model(ids, use_cache=False), 0) / 2**20)
    assert seen.entropy.shape == (2, 1, 4, {length})
"""


def test_memory_of_a_long_context():
    """One layer's maps would take 256 MiB."""
    assert float(run_python(LONG.format(length=4096))) < 48


@pytest.mark.slow
def test_memory_of_a_context_of_16k():
    """One layer's maps would take 4 GiB."""
    assert float(run_python(LONG.format(length=16384))) < 128


def test_import_needs_numpy_alone():
    run_python(
        "import sys, rattention; assert not {'torch', 'transformers', 'pandas'} & {*sys.modules};"
        "assert callable(rattention.observe); import transformers"
    )


def test_unknown_names_are_still_errors():
    with pytest.raises(AttributeError, match="has no attribute 'obserf'"):
        ra.obserf  # noqa: B018


def test_examples():
    assert doctest.testmod(importlib.import_module("rattention.inspect.observe")).failed == 0
