"""Small models of every mechanism, for tests of rattention.nn."""

from __future__ import annotations

import pytest

from tests.extras import needs

needs("torch")

import rattention.nn as rn
import torch

TIMESCALES = [4.0, 32.0]
PATTERNS = {
    "softmax": [rn.Softmax(rope_theta=100.0)],
    "sliding_window": [rn.SlidingWindow(8, rope_theta=100.0)],
    "gravitational": [rn.Gravitational()],
    "multi_timescale": [rn.MultiTimescale(timescales=TIMESCALES)],
    "gravitational_multi_timescale": [rn.GravitationalMultiTimescale(timescales=[3.0, 9.0])],
    "adaptive timescales": [rn.MultiTimescale(timescales=TIMESCALES, adaptive=True)],
    "Euclidean": [rn.Gravitational(distance="euclidean")],
    "exponents": [rn.Gravitational(learn_exponent=True)],
    "cosine": [rn.Gravitational(distance="cosine", learn_exponent=True, softening=0.1)],
    "combined": [
        rn.GravitationalMultiTimescale(
            timescales=TIMESCALES, adaptive=True, distance="euclidean", learn_exponent=True, window=50
        )
    ],
    "gated_linear": [rn.GatedLinear()],
    "gated_linear, softmax": [rn.GatedLinear(convolution=1, feature_map="softmax")],
    "gla": [rn.GLA()],
    "gated_delta": [rn.GatedDelta()],
    "gated_delta, no convolution": [rn.GatedDelta(convolution=0)],
    "kda": [rn.KimiDelta(convolution=3)],
    "rattention": [rn.RAttention(8, rope_theta=100.0)],
    "rattention, relu": [rn.RAttention(0, feature_map="relu")],
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
