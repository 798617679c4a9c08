"""The paper in our own words: what it claims, its main numbers, and where in the paper each of them stands.

Numbers are strings, written as the paper prints them, so that they can be found in its text.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "RAttention: Towards the Minimal Sliding Window Size in Local-Global Attention Models"
AUTHORS = "Bailin Wang, Chang Lan, Chong Wang, Ruoming Pang (Apple)"
SOURCE = "arXiv 2506.15545v1, 18 June 2025"
TERMS = (
    "sliding window attention",
    "local-global",
    "KV cache",
    "residual linear attention",
    "feature map",
    "RULER",
    "MMLU",
    "GSM8K",
    "Mamba2",
)
"""Words under which the paper speaks of what the summary says."""


@dataclass(frozen=True)
class Point:
    """One thing the paper says."""

    topic: str
    statement: str
    place: str
    """Section, equation, figure or footnote of the paper."""


@dataclass(frozen=True)
class ResultTable:
    """One set of measured results."""

    title: str
    place: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of the row, and a number for every column."""


POINTS = (
    Point(
        "question",
        "Models that mix a few global layers with many sliding-window layers keep wide windows (4096 of "
        "8192 tokens), because narrow ones lose quality; a wide window saves nothing on short contexts. How "
        "narrow can it be made?",
        "abstract, section 1",
    ),
    Point(
        "cost of a wide window",
        "With a window of 4k a 12B model saves no key/value cache up to 4k tokens; a window of 1k would "
        "save about 56 % there.",
        "section 1",
    ),
    Point(
        "window",
        "A query attends to the w tokens before it and to itself, so at most w + 1 keys and values are kept.",
        "section 2.1",
    ),
    Point(
        "residual linear attention",
        "A linear recurrence S_t = S_(t-1) + phi(k_t)^T v_t carries what has left the window; token t reads "
        "S_(t-w-1), the state just before its window. There is no normaliser; RMSNorm takes its place.",
        "section 3.1, equation 4",
    ),
    Point(
        "sum of two branches",
        "The output is RMSNorm(window branch) + RMSNorm(linear branch), each norm with its own weights per "
        "head.",
        "section 3.2",
    ),
    Point(
        "no new parameters",
        "Both branches share the query, key and value projections and the grouping of heads; the softmax "
        "feature map is what makes sharing work.",
        "sections 3.1 and 3.2",
    ),
    Point(
        "size of the state",
        "The state of d' x d numbers weighs as much as d'd / (2d) tokens of keys and values; d is 128.",
        "section 2.2, footnote 3",
    ),
    Point(
        "training kernel",
        "States are saved every m chunks and recomputed in between; the best m and chunk size run about "
        "15 % faster than m = 1 with chunks of 256.",
        "section 3.2, figure 2",
    ),
    Point(
        "models",
        "3B: 56 layers, width 2048, feed-forward 6656, 16 heads over 4 key/value heads. 12B: 40 layers, "
        "width 5120, feed-forward 16384, 40 heads over 8. Heads are 128 wide; global and local layers are "
        "mixed 1:3: of every four the first three are local, with rotary positions, and the last is global, "
        "without.",
        "section 4.1, figure 3",
    ),
    Point(
        "narrow windows suffice",
        "On 3B models trained with 400B tokens, RAttention matches or passes full attention from a window "
        "of 512 on.",
        "section 4.1, figure 4",
    ),
    Point(
        "longer contexts than trained for",
        "Trained at 4k and tested untouched, RAttention keeps part of its RULER score up to 32k, and more "
        "of it with the narrower window; full and sliding-window attention fall to almost nothing at 8k.",
        "section 4.2, figure 6",
    ),
    Point(
        "training speed",
        "A training step takes about as long as with full or sliding-window attention.",
        "section 4.3, table 3",
    ),
    Point(
        "decoding speed",
        "By a memory-bandwidth model of an H100, a window of 512 instead of 4k makes decode steps up to "
        "about 60 % faster. That is computed, not measured: the engineering is left for later.",
        "section 4.4, figure 7; section 5",
    ),
    Point(
        "what else was tried",
        "Gated linear attention gains nothing; splitting heads between the branches is worse; without the "
        "window or without the norm per head MMLU falls.",
        "section 4.5, table 4",
    ),
)

RESULTS = (
    ResultTable(
        "3B models, 2T tokens, context 4096",
        "table 1",
        ("full", "SWA 2k", "SWA 1k", "SWA 512", "RAttn 1k", "RAttn 512"),
        (
            ("MMLU, 5-shot", ("56.70", "55.70", "55.70", "55.50", "56.22", "55.62")),
            ("GSM8K, 8-shot", ("34.19", "29.49", "32.90", "27.98", "33.13", "33.74")),
            ("average, 0/1-shot", ("62.00", "62.00", "62.00", "62.00", "61.70", "61.80")),
        ),
    ),
    ResultTable(
        "12B models, 600B tokens, context 4096",
        "table 2",
        ("full", "SWA 2k", "RAttn 512", "RAttn 256", "RAttn 128", "RAttn 64", "RAttn 32"),
        (
            ("MMLU, 5-shot", ("52.96", "49.52", "51.50", "53.77", "51.74", "49.17", "49.66")),
            ("GSM8K, 8-shot", ("30.33", "24.26", "29.57", "29.34", "26.61", "30.93", "26.61")),
            ("average, 0/1-shot", ("62.90", "63.40", "63.40", "63.40", "63.70", "63.20", "62.80")),
        ),
    ),
    ResultTable(
        "12B models, 600B tokens, context 8192",
        "figure 5",
        ("full", "SWA 4k", "SWA 2k", "RAttn 512"),
        (
            ("MMLU, 5-shot", ("52.40", "50.80", "48.60", "52.94")),
            ("GSM8K, 8-shot", ("36.69", "35.71", "33.28", "37.39")),
            ("average, 0/1-shot", ("62.67", "62.64", "62.18", "62.72")),
        ),
    ),
    ResultTable(
        "RULER average, 3B models trained at 4k",
        "figure 6",
        ("full", "SWA 2k", "RAttn 1k", "RAttn 512"),
        (
            ("4k tokens", ("80.38", "73.49", "73.87", "80.79")),
            ("8k tokens", ("2.89", "6.85", "53.90", "66.26")),
            ("16k tokens", ("0.00", "0.79", "40.00", "50.80")),
            ("32k tokens", ("0.08", "0.41", "20.84", "29.59")),
        ),
    ),
    ResultTable(
        "seconds per training step; the windows are 2k, 4k, 2k, 4k for SWA and 512, 1k, 512, 1k for RAttn",
        "table 3",
        ("full", "SWA", "RAttn"),
        (
            ("3B, context 4096", ("0.84", "0.80", "0.87")),
            ("3B, context 8192", ("1.20", "1.05", "1.08")),
            ("12B, context 4096", ("2.21", "2.10", "2.26")),
            ("12B, context 8192", ("3.99", "3.89", "3.97")),
        ),
    ),
    ResultTable(
        "what each part gives: 3B models, 400B tokens, window 512",
        "table 4",
        ("full", "RAttn", "ReLU", "identity", "Mamba2", "Hymba", "no SWA", "no norm"),
        (
            ("MMLU, 5-shot", ("36.80", "42.22", "37.90", "35.70", "39.21", "36.53", "32.60", "39.81")),
            ("average, 0/1-shot", ("68.40", "68.20", "68.30", "67.30", "68.00", "68.10", "68.20", "68.10")),
        ),
    ),
)


def searchable() -> dict[str, str]:
    """What can be searched for in a copy of the paper, and the place the paper has it in: title, terms, and
    the numbers of the results."""
    numbers = {v: table.place for table in RESULTS for _, values in table.rows for v in values}
    return {TITLE: "title", **dict.fromkeys(TERMS, "text"), **numbers}
