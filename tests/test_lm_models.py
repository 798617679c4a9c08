"""Models of ``rattention lm``: equal sizes, causality, the layers whose parts are changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.extras import needs

needs("studies")

import rattention.torch as rt
import torch
from rattention.nn import LanguageModel, RAttention, SelfAttention, SlidingWindow, Softmax
from rattention.studies.lm import ModelSize, Variant
from rattention.studies.lm.branches import BranchAttention, Branches
from rattention.studies.lm.config import PRESETS
from rattention.studies.lm.cost import measured
from rattention.studies.lm.training import begun
from rattention.studies.lm.variants import (
    AS_WINDOW,
    BASELINE,
    LABELS,
    LAYERS,
    MATCHED_WITHIN,
    MLP_STEP,
    WINDOWLESS,
    matched_mlp,
    model_of,
    parameters,
)

from tests.lm_studies import SIZE

pytestmark = pytest.mark.usefixtures("one_thread")

VARIANTS = [Variant(name, None if name in WINDOWLESS else 3) for name in LAYERS]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)


class TestVariants:
    def test_names(self):
        assert Variant("rattention", 16, "3:1").name == "rattention-w16-3to1"
        assert Variant("rattention", 16, "3:1").family == Variant("rattention", 64, "3:1").family
        assert Variant("rattention", 16).family != Variant("window", 16).family
        assert {*LABELS} == {*LAYERS}

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("other",), "unknown mechanism"),
            (("window",), "needs a window"),
            (("full", 3), "takes no window"),
            (("full", None, "2:1"), "unknown layout"),
        ],
    )
    def test_faults(self, arguments, says):
        with pytest.raises(ValueError, match=says):
            Variant(*arguments)

    def test_every_fourth_layer_is_global(self):
        model = model_of(Variant("rattention_gated", 3, "3:1"), replace(SIZE, depth=8), 16)
        kinds = [type(layer) for layer in model.encoder.attention_layers()]
        assert [kind is BranchAttention for kind in kinds] == [True, True, True, False] * 2
        assert model.encoder.attention_layers()[3].mechanism == Softmax()

    @every_variant
    @pytest.mark.parametrize("preset", ["small", "paper"])
    def test_equal_parameters(self, variant, preset):
        size = PRESETS[preset].model
        width = matched_mlp(variant, size, 256)
        wanted = parameters(BASELINE, size, 256)
        step = MLP_STEP * size.dim * size.depth  # of half a step of two matrices
        with torch.device("meta"):
            made = sum(p.numel() for p in model_of(variant, size, 256).parameters())
        assert abs(made - wanted) <= max(MATCHED_WITHIN * wanted, step)
        assert width == size.mlp_dim or width % MLP_STEP == 0

    def test_without_matching_some_would_be_larger(self):
        assert parameters(Variant("gated_delta"), SIZE, 16) > 1.05 * parameters(BASELINE, SIZE, 16)


@every_variant
def test_future_tokens_change_nothing(variant):
    torch.manual_seed(0)
    model = model_of(variant, SIZE, 32)
    tokens = torch.randint(32, (2, 40))
    other = tokens.clone()
    other[:, 25:] = torch.randint(32, (2, 15))
    with torch.no_grad():
        one, two = model(tokens), model(other)
    assert torch.equal(one[:, :25], two[:, :25])
    assert not torch.equal(one[:, 25:], two[:, 25:])


@every_variant
def test_who_sees_what_is_far(variant):
    """One layer: a window hides the first token from the last row, a state does not."""
    torch.manual_seed(0)
    model = model_of(variant, replace(SIZE, depth=1), 32)
    tokens = torch.randint(32, (1, 30))
    other = tokens.clone()
    other[0, 0] = (tokens[0, 0] + 1) % 32
    with torch.no_grad():
        changed = not torch.equal(model(tokens)[0, -1], model(other)[0, -1])
    assert changed == (variant.mechanism not in ("window", "window_normed"))


@every_variant
def test_every_parameter_that_is_trained_has_a_gradient(variant):
    torch.manual_seed(0)
    model = model_of(variant, SIZE, 32)
    model(torch.randint(32, (1, 20))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("layout", ["pure", "3:1"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_model_that_begins_as_its_window(layout, qk_norm):
    torch.manual_seed(0)
    size = replace(SIZE, depth=4, qk_norm=qk_norm)
    tokens = torch.randint(32, (3, 40))
    source = model_of(Variant("window", 3, layout), size, 32).state_dict()
    logits = []
    for name in ("window", AS_WINDOW, "rattention"):
        model = begun(Variant(name, 3, layout), size, 32, lambda _step: ({"tokens": tokens}, {}), source)
        with torch.no_grad():
            logits.append(model(tokens))
        for key, weight in model.state_dict().items():
            assert key not in source or torch.equal(weight, source[key])
            assert not key.endswith("linear_norm_weight") or (weight == (name != AS_WINDOW)).all()
    window, ours, plain = logits
    assert (ours - window).norm() < 0.4 * (plain - window).norm()


class TestBranches:
    size = ModelSize(dim=32, heads=4, kv_heads=2, depth=1)

    def layer(self, *args, **options):
        torch.manual_seed(0)
        layer = BranchAttention(self.size, Branches(*args, **options))
        for weight in layer.norms.parameters():
            weight.data.uniform_(0.5, 2)
        return layer

    def plain(self, layer, **options):
        """RAttention of `rattention.nn` with the same weights."""
        mechanism = RAttention(layer.window, rope_theta=self.size.rope_theta, **options)
        model = LanguageModel(8, 32, 4, 1, kv_heads=2, pattern=mechanism)
        (other,) = model.encoder.attention_layers()
        other.load_state_dict(layer.state_dict(), strict=False)
        return other

    x = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("feature_map", ["softmax", "relu"])
    def test_unchanged_it_is_rattention(self, feature_map):
        layer = self.layer(5, feature_map=feature_map)
        torch.testing.assert_close(layer(self.x), self.plain(layer, feature_map=feature_map)(self.x))

    def test_the_gate_of_the_state_is_that_of_rattention(self):
        layer = self.layer(5, gate="state")
        heads = [layer._heads(linear(self.x)) for linear in (layer.query, layer.key, layer.value)]
        gate = layer.decay(self.x)[1]
        expected = rt.rattention(*heads, window=5, rope_theta=10_000.0, gate=gate, **layer.norms.rule())
        expected = layer.output(expected.transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(self.x), expected)
        assert not torch.allclose(layer(self.x), self.plain(layer)(self.x))

    def test_linear_alone_sums_all_tokens_and_itself(self):
        layer = self.layer(None)
        q, k, v = (layer._heads(linear(self.x)) for linear in (layer.query, layer.key, layer.value))
        q, k = (torch.cat([x.softmax(-1), (-x).softmax(-1)], -1) for x in (q, k))
        k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
        rows = (q @ k.mT).tril() @ v
        normed = rows * rows.square().mean(-1, keepdim=True).add(1e-8).rsqrt()
        normed = normed * layer.norms.linear_norm_weight[:, None]
        expected = layer.output(normed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(self.x), expected, atol=1e-5, rtol=1e-4)

    def test_identity_has_plain_products(self):
        layer = self.layer(5, feature_map="identity", norm="none")
        q, k, v = (layer._heads(linear(self.x)) for linear in (layer.query, layer.key, layer.value))
        far = (q @ k.repeat_interleave(2, dim=1).mT).tril(-6) @ v.repeat_interleave(2, dim=1)
        found = layer._far(q, k, v, None)
        torch.testing.assert_close(found, far, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(
        "options",
        [
            {"norm": "none"},
            {"norm": "sum"},
            {"norm": "shared"},
            {"rope": "both"},
            {"gate": "branch"},
            {"join": "split"},
            {"join": "local"},
        ],
    )
    def test_every_change_changes_something(self, options):
        layer = self.layer(5, **options)
        assert not torch.allclose(layer(self.x), self.plain(layer)(self.x), atol=1e-3)

    def test_split_heads_are_those_of_the_branches(self):
        """The first half of the heads sees the window alone, the second what lies before it."""
        split, local = self.layer(5, join="split"), self.layer(5, join="local")
        masks = {"rule": {"gate": None, "share": None}, "masks": {}}
        query, key, value = (split._heads(p(self.x)) for p in (split.query, split.key, split.value))
        heads, near = (layer._attend(query, key, value, **masks) for layer in (split, local))
        assert torch.equal(heads[:, :2], near[:, :2])
        far = split._normed(split._far(query, key, value, None), "linear")
        assert torch.equal(heads[:, 2:], far[:, 2:])
        assert not heads[:, 2:, :6].any()  # nothing lies before the window of the first rows

    def test_a_normed_window_is_a_window_and_a_norm(self):
        layer = self.layer(5, join="local")
        plain = SelfAttention(32, 4, 2, mechanism=SlidingWindow(5, rope_theta=10_000.0), causal=True)
        plain.load_state_dict(layer.state_dict(), strict=False)
        heads = []
        plain.output.register_forward_pre_hook(lambda _module, args: heads.append(args[0]))
        plain(self.x)
        rows = heads[0].unflatten(2, (4, 8))
        rows = rows / rows.square().mean(-1, keepdim=True).add(1e-8).sqrt() * layer.norms.local_norm_weight
        torch.testing.assert_close(layer(self.x), layer.output(rows.flatten(2)))

    def test_queries_and_keys_are_normed_where_that_is_asked_for(self):
        size = replace(self.size, qk_norm=True)
        layer = BranchAttention(size, Branches(5))
        layer.load_state_dict(self.layer(5).state_dict(), strict=False)
        plain = LanguageModel(
            8, 32, 4, 1, kv_heads=2, pattern=RAttention(5, rope_theta=10_000.0), qk_norm=True
        )
        (other,) = plain.encoder.attention_layers()
        other.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(self.x), other(self.x))
        assert not torch.allclose(layer(self.x), self.layer(5)(self.x), atol=1e-3)


class TestCost:
    def test_bytes_are_those_of_the_caches(self):
        cost = replace(PRESETS["smoke"].cost, lengths=(16, 64), windows=(4,), tokens=2, repeats=1)
        size = ModelSize(dim=16, heads=2, depth=4, mlp_dim=32)
        full, mixed = (measured(v, size, cost) for v in (BASELINE, Variant("rattention", 4, "3:1")))
        per_token = 2 * 16 * 4  # keys and values of a layer, float32
        assert [row["cache_bytes"] for row in full] == [4 * per_token * n for n in (16, 64)]
        assert mixed[1]["cache_bytes"] - mixed[0]["cache_bytes"] == per_token * (64 - 16)
        assert all(row["step_seconds"] > 0 and row["decoded_tokens_per_second"] > 0 for row in full)
