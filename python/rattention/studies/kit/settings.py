"""Settings: dataclasses with checked ranges, from and to mappings and YAML, and how two of them differ;
numbers as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rattention._arguments import MOST_SHOWN, as_float, at_least, brief, real_number
from rattention._extras import require
from rattention._files import read_text, write_text

Settings = TypeVar("Settings")


def require_ranges(
    settings: Any,
    /,
    *,
    positive: Iterable[str] = (),
    not_negative: Iterable[str] = (),
    shares: Iterable[str] = (),
    **least: int,
) -> None:
    """Check the fields of a dataclass; ValueError and TypeError name the field, its value and its range.

    Fields whose type is a `Literal` must have one of its values.

    Parameters
    ----------
    positive, not_negative, shares:
        Numbers > 0, >= 0, and between 0 and 1.
    least:
        By field, the smallest whole number; a field that is None by default may stay so.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name, 0) is not None:
            at_least(name, value, bound)
    tiny = math.ulp(0.0)
    for names, low, high, allowed in (
        (positive, tiny, math.inf, "a number > 0"),
        (not_negative, 0, math.inf, "a number >= 0"),
        (shares, 0, 1, "between 0 and 1"),
    ):
        for name in names:
            if not low <= real_number(name, getattr(settings, name)) <= high:
                raise ValueError(f"{name} must be {allowed}, got {getattr(settings, name)}")
    for name, hint in get_type_hints(type(settings)).items():
        if get_origin(hint) is Literal:
            require_name(name, getattr(settings, name), get_args(hint))


def require_name(what: str, name: str, names: Iterable[str], where: str = "") -> None:
    """ValueError, which begins with `where` and lists `names`, for a name that is none of them."""
    if name not in (allowed := list(names)):
        raise ValueError(f"{where}unknown {what} {name!r}: there are {', '.join(allowed)}")


def with_given(settings: Settings, **changes: Any) -> Settings:
    """A dataclass with other values in some fields; None leaves a field as it is."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, **given)  # type: ignore[type-var]


def as_plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as YAML and JSON have them."""
    if is_dataclass(value):
        value = asdict(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return {name: as_plain(part) for name, part in value.items()}
    return [as_plain(part) for part in value] if isinstance(value, list | tuple) else value


def differences(one: Any, other: Any, form: str = "{} {} instead of {}") -> list[str]:
    """Settings, nested ones by dotted names, that differ: each as `form` of its name and the two values."""
    first, second = dict(_flat(as_plain(one))), dict(_flat(as_plain(other)))
    return [
        form.format(name, first.get(name), second.get(name))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError where there is none."""
    yaml = require("yaml")
    try:
        data = yaml.safe_load(read_text(path))
    except RecursionError:
        raise ValueError(f"{path} cannot be read as YAML: it is nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    return require_mapping(data, str(path))


def write_yaml(path: Path, data: Any) -> None:
    """Write a mapping or a dataclass, whole or not at all."""
    write_text(path, require("yaml").safe_dump(as_plain(data), sort_keys=False))


def require_mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as a dict; ValueError where it is no mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must hold settings by name, got {type(value).__name__}")
    return dict(value)


def from_mapping(form: type[Settings], data: Any, where: str) -> Settings:
    """An object of a dataclass; fields that `data` does not have keep their defaults.

    ValueError begins with `where` and names unknown keys and values of another type, and what is allowed.
    """
    data = require_mapping(data, where)
    hints = get_type_hints(form)
    names = [f.name for f in fields(form)]  # type: ignore[arg-type]
    unknown = [str(name) for name in data if name not in names]
    if unknown:
        raise ValueError(
            f"{where}: unknown key {', '.join(unknown)[:MOST_SHOWN]}; there are {', '.join(names)}"
        )
    values = {name: _converted(hints[name], value, f"{where}: {name}") for name, value in data.items()}
    try:
        return form(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _converted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type asked for; ValueError where it is another."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (part for part in parts if part is not type(None))
        return None if value is None else _converted(hint, value, where)
    if origin is Literal and value not in parts:
        raise ValueError(f"{where} must be one of {', '.join(map(str, parts))}, got {brief(value)}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {brief(value)}")
        return tuple(_converted(parts[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be settings by name, got {brief(value)}")
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    return value if origin is not None else _scalar(hint, value, where)


_SCALARS = {
    float: (int | float, "a number"),
    int: (int, "a whole number"),
    bool: (bool, "true or false"),
    str: (str, "a text"),
}
"""By type what YAML may have for it, and what messages call it."""


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Numbers and texts. A number without a point, such as 1e-4, is a text to YAML 1.1."""
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    kinds, name = _SCALARS[hint]
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {name}, got {brief(value)}")
    return as_float(value) if hint is float else value


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a line of JSON each, all or none; ValueError for NaN and infinity."""
    write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def read_lines(path: Path, needed: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[int]]:
    """The lines that are whole and have the numbers `needed`, and the places (from 1) of the others.

    OSError and ValueError where the file cannot be read.
    """
    lines, damaged = [], []
    for number, text in enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and all(is_number(line.get(name)) for name in needed):
            lines.append(line)
        else:
            damaged.append(number)
    return lines, damaged


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
