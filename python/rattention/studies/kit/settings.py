"""Settings: dataclasses with checked ranges, from and to mappings and YAML, and how two of them differ."""

from __future__ import annotations

import contextlib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
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
    choices: Mapping[str, Iterable[str]] | None = None,
    **least: int,
) -> None:
    """Check the fields of a dataclass; ValueError and TypeError name the field, its value and its range.

    Parameters
    ----------
    positive, not_negative, shares:
        Numbers > 0, >= 0, and between 0 and 1.
    choices:
        Names that a field may have.
    least:
        By field, the smallest whole number.
    """
    for name, bound in least.items():
        at_least(name, getattr(settings, name), bound)
    for name in positive:
        if not 0 < real_number(name, getattr(settings, name)) < math.inf:
            raise ValueError(f"{name} must be a number > 0, got {getattr(settings, name)}")
    for name in not_negative:
        if real_number(name, getattr(settings, name)) < 0:
            raise ValueError(f"{name} must be a number >= 0, got {getattr(settings, name)}")
    for name in shares:
        if not 0 <= real_number(name, getattr(settings, name)) <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {getattr(settings, name)}")
    for name, names in (choices or {}).items():
        require_name(name, getattr(settings, name), names)


def require_name(what: str, name: str, names: Iterable[str]) -> str:
    """`name`, which is one of `names`; ValueError lists these otherwise."""
    if name not in (allowed := list(names)):
        raise ValueError(f"unknown {what} {name!r}: there are {', '.join(allowed)}")
    return name


def as_plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as YAML and JSON have them."""
    if hasattr(value, "__dataclass_fields__"):
        return as_plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: as_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], form: str = "{} {} instead of {}"
) -> list[str]:
    """Settings, nested ones by dotted names, that differ: each as `form` of its name and the two values."""
    first, second = _flat(as_plain(one)), _flat(as_plain(other))
    return [
        form.format(name, first.get(name), second.get(name))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            named |= _flat(value, f"{prefix}{name}.")
        else:
            named[f"{prefix}{name}"] = value
    return named


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


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """Write a mapping, whole or not at all."""
    write_text(path, require("yaml").safe_dump(as_plain(data), sort_keys=False))


def require_mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as a dict; ValueError where it is no mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must hold settings by name, got {type(value).__name__}")
    return dict(value)


def from_mapping(form: type[Settings], data: Mapping[Any, Any], where: str) -> Settings:
    """An object of a dataclass; fields that `data` does not have keep their defaults.

    ValueError begins with `where` and names unknown keys and values of another type, and what is allowed.
    """
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
        return _one_of(parts, value, where)
    if origin is Literal:
        return _choice(parts, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {brief(value)}")
        return tuple(_converted(parts[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be settings by name, got {brief(value)}")
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    return value if origin is not None else _scalar(hint, value, where)


def _one_of(parts: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in parts:
        return None
    *others, last = (part for part in parts if part is not type(None))
    for part in others:
        try:
            return _converted(part, value, where)
        except ValueError:
            continue
    return _converted(last, value, where)


def _choice(parts: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in parts:
        raise ValueError(f"{where} must be one of {', '.join(map(str, parts))}, got {brief(value)}")
    return value


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Numbers, texts and paths. A number without a point, such as 1e-4, is a text to YAML 1.1."""
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    right = {
        float: isinstance(value, int | float) and not isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        Path: isinstance(value, str | Path),
    }.get(hint, isinstance(value, hint))
    if not right:
        names = {
            float: "a number",
            int: "a whole number",
            bool: "true or false",
            str: "a text",
            Path: "a path",
        }
        raise ValueError(f"{where} must be {names.get(hint, hint)}, got {brief(value)}")
    return as_float(value) if hint is float else Path(value) if hint is Path else value
