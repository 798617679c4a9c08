"""The trend of attention as its context grows, in plain words."""

from __future__ import annotations

import math

from rattention.studies.degradation.contexts import FIRST_TOKENS, ContextMetrics, Degradation

TYPICAL_WINDOW = 128
"""The window that the summary speaks of; a quarter of BERT's positions."""

CLEARLY = 0.8
"""A ratio below this is called a loss, one above its inverse a gain; between them it is about the same."""


def summarise(measured: Degradation) -> list[str]:
    """A headline and the reasons for it, one sentence or two per entry."""
    lines = [_headline(measured)]
    if measured.contexts[0].sequence_length < measured.contexts[-1].sequence_length:
        lines += [_spread(measured.contexts), _dilution(measured.contexts)]
    lines += [_reach(measured), _window(measured)]
    if len(measured.recall) > 1:
        lines.append(_recall(measured))
    return lines


def _headline(measured: Degradation) -> str:
    first, last = measured.contexts[0], measured.contexts[-1]
    a, b = first.sequence_length, last.sequence_length
    if a == b:
        return f"At {b} tokens the retention score is {last.retention:.2f}; one length shows no trend."
    trend = f"from {first.retention:.2f} at {a} tokens to {last.retention:.2f} at {b}"
    change = last.retention - first.retention
    if change < -measured.thresholds.retention_drop:
        return f"Attention degrades: the retention score falls {trend}.{_falls(measured)}"
    direction = "rises" if change > measured.thresholds.retention_drop else "goes"
    verdict = "Attention does not degrade as the context grows"
    if last.first_tokens_share < CLEARLY * first.first_tokens_share:
        verdict += ", it is diluted"
    return f"{verdict}: the retention score {direction} {trend}.{_falls(measured)}"


def _falls(measured: Degradation) -> str:
    steps = measured.contexts[1:]
    fell = [c for c in steps if "degradation" in measured.thresholds.marks(c)]
    if not fell or len(steps) < 2:
        return ""
    worst = min(fell, key=lambda c: c.retention_change or 0.0)
    return (
        f" It fell in {len(fell)} of {len(steps)} steps, at most by {-(worst.retention_change or 0.0):.3f} "
        f"(at {worst.context_length} tokens)."
    )


def _spread(contexts: tuple[ContextMetrics, ...]) -> str:
    first, last = contexts[0], contexts[-1]
    verb = "rises" if last.entropy > first.entropy else "falls" if last.entropy < first.entropy else "stays"
    return (
        f"Entropy {verb} from {first.entropy:.2f} to {last.entropy:.2f} nats: a row spreads its weight as if "
        f"evenly over {math.exp(first.entropy):.0f} of {first.sequence_length} tokens, then over "
        f"{math.exp(last.entropy):.0f} of {last.sequence_length}."
    )


def _dilution(contexts: tuple[ContextMetrics, ...]) -> str:
    first, last = contexts[0], contexts[-1]
    before, after, even = first.first_tokens_share, last.first_tokens_share, last.first_tokens_even_share
    return (
        f"The first {FIRST_TOKENS} tokens receive {_percent(before)} of all attention at "
        f"{first.sequence_length} tokens and {_percent(after)} at {last.sequence_length}: "
        f"{_compared(after / even)} their even share of {_percent(even)}."
    )


def _reach(measured: Degradation) -> str:
    last = measured.contexts[-1]
    radius, distance = measured.metrics.local_radius, measured.metrics.long_range_distance
    near = f"{_percent(last.local_concentration)} of the weight stays within {radius} tokens"
    if last.sequence_length <= distance + 1:
        return f"At {last.sequence_length} tokens {near}; no token is more than {distance} away."
    farther = last.sequence_length - distance - 1
    even = farther * (farther + 1) / last.sequence_length**2  # of all pairs of positions
    far = f"{_percent(last.long_range)} goes to tokens more than {distance} away"
    return f"At {last.sequence_length} tokens {near} and {far} (even attention: {_percent(even)})."


def _window(measured: Degradation) -> str:
    cutoff = measured.cutoff
    longest = min(TYPICAL_WINDOW, cutoff.sequence_length - 2)
    window = max((w for w in cutoff.windows if w <= longest), default=cutoff.windows[0])
    layers = measured.selection.of_array(cutoff.mass)[:, :, cutoff.windows.index(window)].mean(axis=1)
    most = measured.selection.layers[int(layers.argmax())]
    mean, worst = float(layers.mean()), float(layers.max())
    where = f", and {_percent(worst)} in layer {most}" if len(layers) > 1 else ""
    return (
        f"A sliding window of {window} tokens on either side would cut off {_percent(mean)} of the "
        f"weight{where}. "
        "A window model needs something else, such as RAttention's linear branch, to carry that part."
    )


def _recall(measured: Degradation) -> str:
    first, last = measured.recall[0], measured.recall[-1]
    before, after = first.mean_mass / first.even_mass, last.mean_mass / last.even_mass
    if after < CLEARLY * before:
        verdict = "more than dilution alone explains"
    elif after > before / CLEARLY:
        verdict = "less than dilution alone would cost"
    else:
        verdict = "about what dilution alone explains"
    best = float(measured.selection.of_array(last.mass).max())
    return (
        f"The question gives its fact {_percent(first.mean_mass)} of its attention at "
        f"{first.sequence_length} tokens and {_percent(last.mean_mass)} at {last.sequence_length}, {verdict} "
        f"({before:.1f} times its even share before, {after:.1f} times after). The best head still gives it "
        f"{_percent(best)}; its most attended token ranks {last.rank} of {last.candidates}."
    )


def _compared(ratio: float) -> str:
    if ratio < CLEARLY:
        return f"only {ratio:.1f} times"
    return f"{ratio:.1f} times" if ratio > 1 / CLEARLY else "about"


def _percent(share: float) -> str:
    """Two significant digits where the share is small."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"
