"""The table of cases. A new one is a small function and one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.cases import (
    attention,
    bert,
    decoding,
    delta,
    distributed,
    encoder,
    explorer,
    explorer_page,
    generation,
    gradients,
    gravitational,
    hybrids,
    linear,
    map_parts,
    metrics,
    microscope,
    models,
    startup,
    tasks,
    training,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.outcome import Outcome
    from benchmarks.race import Setup


@dataclass(frozen=True)
class Case:
    """What is measured, and at which length (in a quick run at another)."""

    name: str
    measure: Callable[[Setup], Outcome]
    length: int = 0
    quick: int = 0

    @property
    def summary(self) -> str:
        """What the case is about, in one line."""
        first = (self.measure.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        return f"{first}; n = {self.length}" if self.length else first


FULL = "Full attention, and its share of the FMA peak"
BFLOAT16 = "Full attention of bfloat16 inputs, and of the same numbers as float32"

CASES = (
    Case("full-4096", attention.with_head_dim(attention.full, FULL, 64, 88), 4096, quick=256),
    Case("full-128-4096", attention.with_head_dim(attention.full, FULL, 128, 92), 4096, quick=256),
    Case("causal-4096", attention.causal, 4096, quick=256),
    Case("window-4096", attention.window, 4096, quick=256),
    Case("window-16384", attention.window, 16384, quick=320),
    Case("float-mask-4096", attention.float_mask, 4096, quick=256),
    Case("bfloat16-4096", attention.with_head_dim(attention.bfloat16, BFLOAT16, 64), 4096, quick=256),
    Case("bfloat16-128-4096", attention.with_head_dim(attention.bfloat16, BFLOAT16, 128), 4096, quick=256),
    Case("bfloat16-causal-4096", attention.bfloat16_causal, 4096, quick=256),
    Case("bfloat16-window-4096", attention.bfloat16_window, 4096, quick=256),
    Case("backward-full-4096", gradients.full, 4096, quick=256),
    Case("backward-causal-4096", gradients.causal, 4096, quick=256),
    Case("backward-window-4096", gradients.window, 4096, quick=256),
    Case("backward-bf16-4096", gradients.bfloat16, 4096, quick=256),
    Case("residual-linear-4096", linear.residual, 4096, quick=256),
    Case("residual-linear-16384", linear.residual, 16384, quick=320),
    Case("residual-linear-backward-4096", linear.residual_gradients, 4096, quick=256),
    Case("gated-linear-4096", linear.gated, 4096, quick=320),
    Case("gla-4096", delta.gated_linear, 4096, quick=256),
    Case("gated-delta-4096", delta.forward, 4096, quick=320),
    Case("gated-delta-backward-4096", delta.gradients, 4096, quick=256),
    Case("kda-4096", delta.channels, 4096, quick=256),
    Case("gated-delta-step", delta.step),
    Case("granite4-prefill-4096", hybrids.prefill("granite4"), 4096, quick=256),
    Case("granite4-training-1024", hybrids.training("granite4"), 1024, quick=256),
    Case("qwen3.5-prefill-8192", hybrids.prefill("qwen3.5"), 8192, quick=256),
    Case("qwen3.5-training-1024", hybrids.training("qwen3.5"), 1024, quick=128),
    Case("rattention-16384", linear.rattention, 16384, quick=256),
    Case("gravitational-2048", gravitational.forward, 2048, quick=256),
    Case("gravitational-backward-2048", gravitational.gradients, 2048, quick=256),
    Case("decode-32k", decoding.one_step, 32768, quick=512),
    Case("decode-exact-32k", decoding.exact_step, 32768, quick=512),
    Case("decode-1M", decoding.long_context, 1 << 20, quick=2048),
    Case("row-metrics-4096", metrics.row_metrics, 4096, quick=256),
    Case("metrics-memory-16384", metrics.memory, 16384, quick=1024),
    Case("model-metrics-4096", microscope.statistics, 4096, quick=128),
    Case("map-32768", microscope.heatmap, 32768, quick=320),
    Case("map-part-32768", map_parts.zoom, 32768, quick=320),
    Case("top-keys-32768", map_parts.top_keys, 32768, quick=320),
    Case("explorer-reading-8192", explorer.reading, 8192, quick=256),
    Case("explorer-32768", explorer.looking, 32768, quick=320),
    Case("explorer-131072", explorer.looking, 131072, quick=512),
    Case("explorer-page-32768", explorer_page.live, 32768, quick=320),
    Case("explorer-page-131072", explorer_page.live, 131072, quick=512),
    Case("explorer-offline-32768", explorer_page.offline, 32768, quick=320),
    Case("explorer-offline-131072", explorer_page.offline, 131072, quick=512),
    Case("bert-500", bert.forward_with_metrics, 500, quick=64),
    Case("training-window-4096", training.window, 4096, quick=256),
    Case("training-rattention-4096", training.rattention, 4096, quick=256),
    Case("training-window-bf16-4096", training.window_bfloat16, 4096, quick=256),
    Case("training-rattention-bf16-4096", training.rattention_bfloat16, 4096, quick=256),
    Case("encoder-conventional-2048", encoder.conventional, 2048, quick=256),
    Case("encoder-gravitational-2048", encoder.gravitational, 2048, quick=256),
    Case("encoder-timescales-2048", encoder.timescales, 2048, quick=256),
    Case("encoder-combined-2048", encoder.combined, 2048, quick=256),
    Case("generation-32k", generation.after_32k, 32768, quick=512),
    Case("transformers-steps", generation.transformers_steps, 32768, quick=512),
    Case("context-parallel-32768", distributed.sent, 32768, quick=8192),
    Case("listops", tasks.listops, 100_000, quick=2_000),
    Case("import", startup.import_time),
    *(Case(f"hf-{name}-8192", models.forward(name), 8192, quick=320) for name in models.NAMES),
    *(
        Case(f"hf-{name}-bf16-8192", models.forward(name, "bfloat16"), 8192, quick=320)
        for name in models.NAMES
    ),
    *(Case(f"hf-{name}-512", models.forward(name), 512, quick=64) for name in models.NAMES),
    *(Case(f"hf-{name}-8x512", models.forward(name, batch=8), 512, quick=64) for name in models.NAMES),
    *(Case(f"hf-{name}-memory-32768", models.memory(name), 32768, quick=2048) for name in models.NAMES),
)
