"""What the sweep checks of one class."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import transformers as tf
from rattention.hf import attention as implementation
from rattention.hf import register
from rattention.hf.attention import NAME, attention_forward, register_as
from rattention.hf.interface import guard
from rattention.hf.masks import PatternMask

from tests.sweep.inputs import inputs_of
from tests.sweep.models import build, output_of
from tests.sweep.signals import tokens

TOLERANCE = 1e-4
"""Of differences, as a share of the largest number of "eager"."""
NOTICEABLE = 1e-3
"""What a sabotage must change at least."""
GREEDY = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}


@dataclass
class Result:
    """What came of one class: `status` is right, wrong, refused, error, not built, no attention or blind."""

    name: str
    kind: str
    status: str = "right"
    reason: str = ""
    calls: int = 0
    """Of the kernels in one forward pass."""
    done: list[str] = field(default_factory=list)
    """Checks that were passed."""
    features: list[str] = field(default_factory=list)
    """What the masks had."""
    reference: str = "eager"
    """The implementation of Transformers that outputs are compared with."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Seen:
    """An implementation that notes what it is asked for, and may be sabotaged."""

    def __init__(self) -> None:
        self.calls = 0
        self.features: set[str] = set()
        self.sabotage = ""

    def __call__(
        self, module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **arguments: Any
    ) -> Any:
        self.calls += 1
        mask = attention_mask
        self._note(mask)
        if self.sabotage == "scale":
            scale = arguments.get("scaling") or query.shape[-1] ** -0.5
            arguments["scaling"] = 1.3 * scale
        elif self.sabotage and isinstance(mask, PatternMask) and mask.pattern is not None:
            mask = self._spoilt(mask)
        elif self.sabotage == "table" and mask is not None:
            mask = None
        return attention_forward(module, query, key, value, mask, **arguments)

    def _note(self, mask: Any) -> None:
        if isinstance(mask, PatternMask) and mask.pattern is not None:
            given = {n for n, v in mask.pattern.items() if v is not None and v is not False}
            self.features |= given - {"query_offset"}
        elif mask is not None:
            self.features.add("table")

    def _spoilt(self, mask: PatternMask) -> PatternMask:
        pattern = dict(mask.pattern or {})
        if self.sabotage == "causal":
            pattern["causal"], window = False, pattern["window"]
            pattern["window"] = window and (window[0], window[0])
        elif self.sabotage == "window" and pattern["window"]:
            pattern["window"] = (pattern["window"][0] + 1, pattern["window"][1])
        else:
            pattern.pop(self.sabotage, None)
        return PatternMask(mask.shape, mask.visible, pattern, mask.keys, dtype=mask.dtype, device=mask.device)


@contextmanager
def watched() -> Iterator[Seen]:
    """The implementation with notes under its own name."""
    seen = Seen()
    register_as(NAME, seen)
    guard(NAME)
    try:
        yield seen
    finally:
        register()


def check(name: str, kind: str, model_type: str) -> Result:
    """All checks of one class."""
    result = Result(name, kind)
    try:
        model = build(name, model_type, kind)
        given = list(inputs_of(model))
        with torch.no_grad():
            first = output_of(model, given[0][1])
            again = output_of(model, given[0][1])
        if not torch.equal(first, again) or not first.isfinite().all():
            raise NotImplementedError("random or infinite outputs")
        if not first.any():
            raise NotImplementedError("outputs of zeros")
        result.reference = _reference(model, given)
        loaded = _loaded(model, result.reference)
        model.set_attn_implementation(result.reference)
        expected = {
            case: (_outputs(model, inputs, rows), _outputs(loaded, inputs, rows))
            for case, inputs, rows in given
        }
    except Exception as error:
        return _failed(result, "not built", error)
    try:
        with watched() as seen:
            _compare(model, given, expected, seen, result)
    except Exception as error:
        ours = isinstance(error, ValueError) and re.search(
            "attn_implementation=|implementation .ratt", str(error)
        )
        return _failed(result, "refused" if ours else "error", error)
    return result


def _reference(model: Any, given: list[Any]) -> str:
    """What is right: "eager", or "sdpa" where padding reaches the rows that count. Of rows that see no key,
    "eager" makes a mean of all values, and "sdpa" zeros, as we do."""
    if not model._supports_sdpa:
        return "eager"
    padded = [(inputs, rows) for _, inputs, rows in given if "attention_mask" in inputs]
    eager = [_outputs(model, *case) for case in padded]
    try:
        model.set_attn_implementation("sdpa")
        others = [_outputs(model, *case) for case in padded]
    except Exception:  # the model, or a part of it, does not take it
        return "eager"
    finally:
        model.set_attn_implementation("eager")
    same = all(_difference(other, e) <= TOLERANCE for other, e in zip(others, eager, strict=True))
    return "eager" if same else "sdpa"


def _failed(result: Result, status: str, error: Exception) -> Result:
    result.status = status
    result.reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return result


def _compare(model: Any, given: list[Any], expected: dict[str, Any], seen: Seen, result: Result) -> None:
    loaded = _loaded(model, NAME)
    model.set_attn_implementation(NAME)
    for name, inputs, rows in given:
        before = seen.calls
        _close(result, name, _outputs(model, inputs, rows), expected[name][0])
        result.calls = seen.calls - before
        _close(result, f"{name}, loaded", _outputs(loaded, inputs, rows), expected[name][1])
    result.features = sorted(seen.features)
    if not seen.calls:
        result.status, result.reason = "no attention", "the kernels are never called"
        return
    for check in (_sabotages, _gradients, _generations):
        if result.status == "right":
            check(model, given, seen, result)


def _outputs(model: Any, inputs: dict[str, Any], rows: torch.Tensor | None) -> torch.Tensor:
    with torch.no_grad():
        output = output_of(model, inputs)
    return output if rows is None or output.shape[:2] != rows.shape else output[rows]


def _close(result: Result, name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    difference = _difference(got, expected)
    if not difference <= TOLERANCE:
        result.status = "wrong"
        result.reason = f"{result.reason} {name}: {difference:.1e}".strip()
    else:
        result.done.append(name)


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def _loaded(model: Any, kind: str) -> Any:
    """The same model, saved and loaded by name."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, attn_implementation=kind).eval()


def _sabotages(model: Any, given: list[Any], seen: Seen, result: Result) -> None:
    """A fault of each kind must show."""
    right = {name: _outputs(model, inputs, rows) for name, inputs, rows in given}
    for fault in ("scale", *result.features):
        seen.sabotage = fault
        try:
            shown = max(
                _difference(_outputs(model, inputs, rows), right[name]) for name, inputs, rows in given
            )
        except Exception:
            shown = 1.0  # noticed as well
        finally:
            seen.sabotage = ""
        if not shown > NOTICEABLE:
            result.status, result.reason = "blind", f"{fault}: a fault changes {shown:.1e} only"
        else:
            result.done.append(f"fault: {fault}")


def _gradients(model: Any, given: list[Any], seen: Seen, result: Result) -> None:
    _, inputs, rows = given[-1]

    def gradients(kind: str) -> dict[str, torch.Tensor]:
        model.set_attn_implementation(kind)
        model.zero_grad()
        output = output_of(model, inputs)
        kept = output if rows is None or output.shape[:2] != rows.shape else output[rows]
        weights = torch.randn(kept.shape, generator=torch.Generator().manual_seed(2))
        (kept * weights).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and p.numel()}

    try:
        expected = gradients("eager")
    except RuntimeError:  # not differentiable at all
        return
    try:
        got = gradients(NAME)
    except ValueError as error:
        if "requires gradients" not in str(error):
            raise
        result.features.append("no gradients")
        return
    if set(got) != set(expected):
        missing = sorted(set(got) ^ set(expected))
        result.status, result.reason = "wrong", f"gradients of other parameters: {missing[:3]}"
        return
    largest = max(g.abs().max() for g in expected.values())
    worst = max(float((got[n] - g).abs().max() / largest) for n, g in expected.items())
    _close(result, "gradients", torch.tensor([1.0 + worst]), torch.ones(1))


def _generations(model: Any, given: list[Any], seen: Seen, result: Result) -> None:
    if not model.can_generate() or "input_ids" not in given[0][1]:
        return
    padded = (inputs["attention_mask"] for name, inputs, _ in given if name == "left")
    mask = next(padded, None) if result.reference == "eager" else None
    for cache in (None, "static"):
        options = {**GREEDY, "attention_mask": mask, "output_logits": True, "return_dict_in_generate": True}

        def generated(kind: str, options: dict[str, Any] = options, cache: str | None = cache) -> Any:
            model.set_attn_implementation(kind)
            return model.generate(tokens(), cache_implementation=cache, **options)

        try:
            expected = generated("eager")
        except Exception:  # this model does not generate so
            continue
        got = generated(NAME)
        name = f"generation, {cache or 'dynamic'} cache"
        if not torch.equal(got.sequences, expected.sequences):
            result.status, result.reason = "wrong", f"{result.reason} {name}: other tokens".strip()
        else:
            _close(result, name, torch.stack(got.logits), torch.stack(expected.logits))


tf.utils.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
assert implementation.NAME == NAME
