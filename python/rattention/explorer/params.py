"""What a page sends with its questions, as text, and the errors for what cannot be read."""

from __future__ import annotations

from rattention._arguments import brief
from rattention.mechanisms.pooled_map import Range

MEAN = "mean"
"""Chooses all layers, or all heads."""


def choice(name: str, text: str, count: int) -> int | None:
    """A number below `count`; None for `MEAN`."""
    return None if text == MEAN else number(name, text, 0, count - 1)


def number(name: str, text: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {brief(text)}")
    return int(text)


def pair(name: str, text: str, least: int, most: int) -> tuple[int, int]:
    """Two whole numbers, separated by a comma."""
    first, comma, second = text.partition(",")
    if not comma:
        raise ValueError(f"{name} must be two numbers such as 0,256, got {brief(text)}")
    return number(name, first, least, most), number(name, second, least, most)


def span(name: str, text: str, length: int) -> Range:
    """``start,stop`` of something within `length`."""
    start, stop = pair(name, text, 0, length)
    if start >= stop:
        raise ValueError(f"{name} must be start,stop with start < stop, got {brief(text)}")
    return start, stop


def share(name: str, text: str) -> float:
    """A number in (0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be a number in (0, 1], got {brief(text)}")
    return value
