"""A few layers of models of Transformers that are mostly linear, on its loops or our kernels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.peers.pytorch import load
from benchmarks.peers.pytorch_training import LEARNING_RATE, loss_and_gradient
from benchmarks.peers.transformers_models import SPECIAL_TOKENS, VOCABULARY, hidden_states
from benchmarks.race import Runner

if TYPE_CHECKING:
    from benchmarks.race import Setup


class Hybrid(NamedTuple):
    """Classes of Transformers, sizes of the model that is meant, less deep, and those of a quick run."""

    model: str
    causal: str
    config: str
    sizes: dict[str, Any]
    quick: dict[str, Any]


GRANITE = {
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 256,
    "shared_intermediate_size": 2048,
    "num_local_experts": 0,
    "num_hidden_layers": 2,
}
QWEN = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}
HYBRIDS = {
    "granite4": Hybrid(
        "GraniteMoeHybridModel",
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeHybridConfig",
        GRANITE,
        {"hidden_size": 128, "mamba_n_heads": 4, "mamba_chunk_size": 32, "shared_intermediate_size": 128},
    ),
    "qwen3.5": Hybrid(
        "Qwen3_5TextModel",
        "Qwen3_5ForCausalLM",
        "Qwen3_5TextConfig",
        QWEN,
        {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32, "linear_num_value_heads": 4}
        | {"linear_num_key_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32},
    ),
}


def prefill(setup: Setup, name: str, *, ours: bool) -> Runner:
    """The forward pass over a prompt; all its hidden states.

    Without a cache: Transformers asks it for its length, which it has only where a layer has attention.
    """
    torch, model, tokens = _model_and_tokens(setup, HYBRIDS[name], HYBRIDS[name].model, ours)

    def call() -> Any:
        with torch.no_grad():
            return model(input_ids=tokens, use_cache=False).last_hidden_state

    return Runner(call, hidden_states)


def training(setup: Setup, name: str, *, ours: bool) -> Runner:
    """Forward pass, backward pass and AdamW on one text; the answer is of the first step."""
    torch, model, tokens = _model_and_tokens(setup, HYBRIDS[name], HYBRIDS[name].causal, ours)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=LEARNING_RATE)

    def step() -> Any:
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, model.get_input_embeddings().weight.grad

    return Runner(step, loss_and_gradient)


def _model_and_tokens(setup: Setup, hybrid: Hybrid, kind: str, ours: bool) -> tuple[Any, Any, Any]:
    """PyTorch, a model with the same weights in every call, and a text."""
    torch, transformers = load(setup), import_module("transformers")
    sizes = hybrid.sizes | (hybrid.quick if setup.quick else {})
    special = dict.fromkeys(SPECIAL_TOKENS, 0)
    config = getattr(transformers, hybrid.config)(vocab_size=VOCABULARY, **special, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    for parameter in model.eval().parameters():
        if parameter.dim() > 1:  # of weights of 0.02 layers would add hardly anything
            parameter.data.normal_(0, parameter[0].numel() ** -0.5)
    if ours:
        hf = import_module("rattention.hf")
        hf.register()
        hf.use_linear_kernels(model)
        model.set_attn_implementation("rattention")
    generator = torch.Generator().manual_seed(1)
    return torch, model, torch.randint(1, VOCABULARY, (1, setup.length), generator=generator)
