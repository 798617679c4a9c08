"""The recurrence of Mamba2 layers: what Transformers' own functions give, and float64."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("hf")

import itertools

import torch
import transformers as tf
from rattention.hf import state_space, use_linear_kernels
from torch.nn.functional import softplus
from transformers.models.bamba import modeling_bamba as theirs

from tests.hf_models import LLAMA

HEADS, HEAD_DIM, STATE_DIM, CHUNK = 8, 6, 10, 16
OPTIONS = {"chunk_size": CHUNK, "dt_softplus": True, "return_final_states": True}
GROUPS = pytest.mark.parametrize(("batch", "groups"), [(1, 1), (1, 4), (2, 1), (2, 2), (3, 8)])
NAMES = ("hidden_states", "dt", "A", "B", "C", "D", "dt_bias", "initial_states")


def drawn(batch=2, groups=2, tokens=40, dtype=torch.float32):
    """The arguments of a scan, by name; decays of which some last and some do not."""
    torch.manual_seed(0)
    rows = torch.randn(batch, tokens, HEADS * HEAD_DIM + 2 * groups * STATE_DIM + HEADS).to(dtype)
    x, b, c, dt = rows.split([HEADS * HEAD_DIM, groups * STATE_DIM, groups * STATE_DIM, HEADS], dim=2)
    return {
        "hidden_states": x.unflatten(2, (HEADS, HEAD_DIM)),
        "dt": dt,
        "A": -torch.linspace(0.01, 4, HEADS),
        "B": b.unflatten(2, (groups, STATE_DIM)),
        "C": c.unflatten(2, (groups, STATE_DIM)),
        "D": torch.randn(HEADS).to(dtype),
        "dt_bias": torch.randn(HEADS).to(dtype) - 1,
        "initial_states": torch.randn(batch, HEADS, HEAD_DIM, STATE_DIM),
    }


def exact(inputs):
    """Token by token, in float64: outputs and states after each."""
    x, dt, a, b, c, d, bias, state = (inputs[name].double() for name in NAMES)
    b, c = (rows.repeat_interleave(HEADS // rows.shape[2], dim=2) for rows in (b, c))
    steps, outputs = softplus(dt + bias), []
    for t in range(x.shape[1]):
        written = (steps[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
        state = (steps[:, t] * a).exp()[..., None, None] * state + written
        outputs.append((state @ c[:, t, :, :, None])[..., 0] + d[:, None] * x[:, t])
    return torch.stack(outputs, dim=1), state


def scanned(inputs, function=None, **options):
    run = theirs.mamba2_chunk_scan if function is None else function
    return run(**inputs, **(OPTIONS | options))


def ours(*args, **kwargs):
    return state_space.scan(None, *args, **kwargs)


def error(got, right):
    return float((got.double() - right.double()).norm() / right.double().norm())


@GROUPS
def test_scan(batch, groups):
    inputs = drawn(batch, groups)
    for got, other, right in zip(scanned(inputs, ours), scanned(inputs), exact(inputs), strict=True):
        assert (got.shape, got.dtype) == (other.shape, other.dtype)
        assert error(got, other) < 1e-5
        assert error(got, right) < 1e-6


@pytest.mark.parametrize(
    ("left_out", "options"),
    [
        (("initial_states", "D", "dt_bias"), {}),
        ((), {"dt_limit": (0.2, 0.9)}),
        ((), {"return_final_states": False}),
        (("dt_bias",), {"dt_softplus": False, "dt_limit": (1e-3, 0.5)}),
    ],
)
def test_options_of_a_scan(left_out, options):
    inputs = {name: tensor for name, tensor in drawn().items() if name not in left_out}
    got, other = scanned(inputs, ours, **options), scanned(inputs, **options)
    if options.get("return_final_states", True):
        assert error(got[1], other[1]) < 1e-5
        got, other = got[0], other[0]
    assert got.is_contiguous()
    assert error(got, other) < 1e-5


@GROUPS
def test_gradients(batch, groups):
    inputs = {name: tensor.requires_grad_() for name, tensor in drawn(batch, groups).items()}

    def gradients(run):
        output, state = run()
        weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
        return torch.autograd.grad((output * weights).sum() + state.square().sum(), list(inputs.values()))

    found = (gradients(run) for run in (lambda: scanned(inputs, ours), lambda: scanned(inputs)))
    right = gradients(lambda: exact(inputs))
    for name, got, other, law in zip(inputs, *found, right, strict=True):
        assert error(got, other) < 1e-5, name
        assert error(got, law) < 1e-5, name


def one_token(dtype=torch.float32, groups=2, cache_dtype=torch.float32):
    """The arguments of a step, as layers give them, and those of the same scan of one token."""
    inputs = drawn(3, groups, 1, dtype)
    wide = {
        name: inputs[name][..., None].expand(*inputs[name].shape, HEAD_DIM) for name in ("dt", "D", "dt_bias")
    }
    rows = {name: inputs[name][:, 0] for name in ("hidden_states", "B", "C")}
    rates = inputs["A"][:, None, None].expand(-1, HEAD_DIM, STATE_DIM)
    step = wide | rows | {"dt": wide["dt"][:, 0], "A": rates, "dt_softplus": True}
    return step | {"state": inputs["initial_states"].to(cache_dtype, copy=True)}, inputs


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_step(gated, cache_dtype):
    inputs, _ = one_token(cache_dtype=cache_dtype)
    inputs["z"] = torch.randn(3, HEADS, HEAD_DIM) if gated else None
    right = inputs | {"state": inputs["state"].clone()}
    other = theirs.mamba2_selective_state_update(**right)
    got = state_space.step(None, **inputs)
    assert (got.shape, got.dtype) == (other.shape, other.dtype)
    assert error(got, other) < (1e-5 if cache_dtype == torch.float32 else 1e-2)
    assert error(inputs["state"], right["state"]) < (1e-5 if cache_dtype == torch.float32 else 1e-2)


def test_backward_through_a_step():
    inputs, scan = one_token()
    inputs["B"] = inputs["B"].clone().requires_grad_()
    state_space.step(None, **inputs).sum().backward()
    scan["B"] = scan["B"].clone().requires_grad_()
    exact(scan)[0].sum().backward()
    assert error(inputs["B"].grad, scan["B"].grad[:, 0]) < 1e-5


@torch.no_grad()
def test_bfloat16_is_as_close_to_float64_as_theirs():
    """Sums are in float32; theirs rounds step sizes to bfloat16, and in a step what a token writes, too."""
    inputs = drawn(dtype=torch.bfloat16)
    for got, other, right in zip(scanned(inputs, ours), scanned(inputs), exact(inputs), strict=True):
        assert error(got, right) <= error(other, right)
    step, scan = one_token(torch.bfloat16)
    right = exact(scan)[0][:, 0]
    other = theirs.mamba2_selective_state_update(**(step | {"state": step["state"].clone()}))
    got = state_space.step(None, **step)
    assert got.dtype == torch.bfloat16
    assert error(got, right) <= error(other, right)


def test_packed_sequences_stay_apart():
    inputs = drawn(batch=1) | {"initial_states": None}
    ends = torch.tensor([0, 13, 14, 40], dtype=torch.int32)
    whole = scanned(inputs, ours, cu_seq_lens_q=ends)[0]
    for start, end in itertools.pairwise(ends):
        rows = {name: inputs[name][:, start:end] for name in ("hidden_states", "dt", "B", "C")}
        assert error(whole[:, start:end], scanned(inputs | rows)[0]) < 1e-5


@pytest.mark.parametrize(
    ("kind", "config", "layer"),
    [
        (tf.MiniMaxForCausalLM, tf.MiniMaxConfig, "MiniMaxLightningAttention"),
        (tf.MambaForCausalLM, tf.MambaConfig, "MambaMixer"),
    ],
)
def test_what_computes_its_state_itself_is_refused_by_name(kind, config, layer):
    """A state of a decay per head, but in the code of the layer; a decay per channel and state."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    if kind is tf.MiniMaxForCausalLM:
        sizes = LLAMA | {"num_local_experts": 2, "layer_types": ["linear_attention", "full_attention"]}
    with pytest.raises(ValueError, match=rf"no layer with .* Mamba2 .*{layer}"):
        use_linear_kernels(kind(config(**sizes)))
