"""Small models of every mechanism, for tests of rattention.nn."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import rattention.nn as rn

PATTERNS = {
    "softmax": [{"mechanism": "softmax", "rope_theta": 100.0}],
    "sliding_window": [{"mechanism": "sliding_window", "window": 8, "rope_theta": 100.0}],
    "gravitational": [{"mechanism": "gravitational"}],
    "multi_timescale": [{"mechanism": "multi_timescale", "timescales": [4.0, 32.0]}],
    "gravitational_multi_timescale": [
        {"mechanism": "gravitational_multi_timescale", "timescales": [3.0, 9.0]}
    ],
    "adaptive timescales": [
        {"mechanism": "multi_timescale", "timescales": [4.0, 32.0], "adaptive_timescales": True}
    ],
    "Euclidean": [{"mechanism": "gravitational", "distance": "euclidean"}],
    "exponents": [{"mechanism": "gravitational", "learn_exponent": True}],
    "cosine": [
        {"mechanism": "gravitational", "distance": "cosine", "learn_exponent": True, "softening": 0.1}
    ],
    "combined": [
        {
            "mechanism": "gravitational_multi_timescale",
            "timescales": [4.0, 32.0],
            "adaptive_timescales": True,
            "distance": "euclidean",
            "learn_exponent": True,
            "window": 50,
        }
    ],
    "rattention": [{"mechanism": "rattention", "window": 8, "rope_theta": 100.0}],
    "rattention, relu": [{"mechanism": "rattention", "window": 0, "feature_map": "relu"}],
    "hybrid": rn.rattention_pattern(window=8, rope_theta=100.0),
}
by_pattern = pytest.mark.parametrize("pattern", PATTERNS)
TEXT = torch.tensor([list((b"the quick brown fox jumps over the lazy dog. " * 3)[:121])])


def language_model(pattern, **options):
    torch.manual_seed(0)
    options = {"dim": 32, "heads": 2, "kv_heads": 1, "depth": 4 if pattern == "hybrid" else 2} | options
    return rn.LanguageModel(128, pattern=PATTERNS[pattern], **options)


def loss_of(model, tokens=TEXT):
    return torch.nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
