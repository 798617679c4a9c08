"""Lists of whole numbers as people write them on a command line."""

from __future__ import annotations

from rattention._arguments import brief

MOST = 1000
"""More numbers than this in one list are a slip of the keyboard."""


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """``"50,100,200"``, or ``"50,100,...,500"`` for equal steps up to the last; ValueError names `option`."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if "..." in parts:
            return _progression(
                [int(p) for p in parts[: parts.index("...")]], parts[parts.index("...") + 1 :]
            )
        return tuple(int(part) for part in parts)
    except ValueError:
        raise ValueError(
            f"--{option} must be whole numbers separated by commas, such as 50,100,200 or 50,100,...,500; "
            f"got {brief(text)}"
        ) from None


def _progression(start: list[int], end: list[str]) -> tuple[int, ...]:
    (last,) = (int(part) for part in end)
    step = start[-1] - start[-2] if len(start) > 1 else 0
    if step <= 0 or last < start[-1] or (last - start[-1]) // step > MOST:
        raise ValueError
    return (*start[:-1], *range(start[-1], last, step), last)
