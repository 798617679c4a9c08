"""Going on with a text: a causal model of Transformers appends tokens, and each has its place in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import at_least, brief, real_number, require_seed
from rattention._extras import require
from rattention._models import evaluating

if TYPE_CHECKING:
    from rattention.explorer.reading import Progress

STAGE = "generating"
CONTEXT = 8
"""Tokens of the prompt by which the tokenizer knows how the first new one is written."""
UNFINISHED = "\ufffd"
"""What a tokenizer writes for the first bytes of a character."""
COLDEST, HOTTEST = 1e-4, 100.0
"""Temperatures above 0: closer to it, logits divided by the temperature leave float32."""


@dataclass(frozen=True)
class Generation:
    """How many tokens a model appends, and how it chooses them.

    ValueError and TypeError name an argument that does not fit.
    """

    tokens: int
    """At most; fewer where the model ends its text."""
    temperature: float = 0.0
    """0 takes the most likely token; from `COLDEST` to `HOTTEST` they are drawn from the softmax of
    the logits divided by it."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        at_least("generate", self.tokens, 1)
        require_seed("seed", self.seed)
        given = real_number("temperature", self.temperature)
        if given != 0 and not COLDEST <= given <= HOTTEST:
            raise ValueError(
                f"temperature must be 0 or from {COLDEST:g} to {HOTTEST:g}, got {brief(self.temperature)}"
            )

    @property
    def how(self) -> str:
        """In words."""
        if self.temperature == 0:
            return "greedy"
        return f"sampled at temperature {self.temperature:g}, seed {self.seed}"


def require_causal(model: Any, name: str) -> None:
    """ValueError where a model of Transformers cannot go on with a text token by token."""
    able = getattr(model, "can_generate", lambda: False)()
    if not able or getattr(model.config, "is_encoder_decoder", False) or not _looks_back_only(model):
        raise cannot_generate(f"{name} ({type(model).__name__})")


def cannot_generate(what: str) -> ValueError:
    """The error for a model that only reads."""
    return ValueError(
        f"generate is for causal language models of Transformers such as AutoModelForCausalLM loads: {what} "
        "cannot generate"
    )


def _looks_back_only(model: Any) -> bool:
    """Whether every layer that attends is causal, seen by letting it read two tokens."""
    from rattention.inspect.hooks import visiting

    torch, seen = require("torch"), list[bool]()
    with evaluating(model), visiting(model, lambda layer: seen.append(bool(layer.options.get("causal")))):
        model(input_ids=torch.zeros((1, 2), dtype=torch.long), use_cache=False)
    return all(seen)


def require_room(generation: Generation, prompt: int, positions: int | None) -> None:
    """ValueError where prompt and answer do not fit into the model's positions."""
    if positions is not None and prompt + generation.tokens > positions:
        room = max(0, positions - prompt)
        raise ValueError(
            f"generate must be at most {room}: the model has {positions} positions and the text {prompt} "
            f"tokens, got {generation.tokens}"
        )


def continued(model: Any, ids: list[int], generation: Generation, progress: Progress) -> list[int]:
    """The tokens that `model` appends to `ids`.

    `progress` is called after every token; an exception it raises ends the work.
    """
    torch, transformers = require("torch"), require("transformers")
    prompt = torch.tensor([ids], dtype=torch.long)

    def count(found: Any, scores: Any, **_: Any) -> Any:
        progress(STAGE, int(found.shape[1]) - len(ids), generation.tokens)
        return torch.zeros(len(found), dtype=torch.bool)

    progress(STAGE, 0, generation.tokens)
    with evaluating(model), torch.random.fork_rng(devices=[]), _plain(model, generation):
        torch.manual_seed(generation.seed)
        found = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            stopping_criteria=transformers.StoppingCriteriaList([count]),
        )
    return list(map(int, found[0, len(ids) :]))


class _plain:
    """Nothing of the model's own configuration of generation but the token that ends a text: what is said of
    the choice of tokens is all there is to it."""

    def __init__(self, model: Any, generation: Generation) -> None:
        self._model, self._before = model, model.generation_config
        ends = self._before.eos_token_id
        pads = self._before.pad_token_id
        chosen = {"do_sample": False} if generation.temperature == 0 else _sampling(generation)
        self._own = require("transformers").GenerationConfig(
            max_new_tokens=generation.tokens,
            eos_token_id=ends,
            pad_token_id=0 if pads is None else pads,
            **chosen,
        )

    def __enter__(self) -> None:
        self._model.generation_config = self._own

    def __exit__(self, *fault: object) -> None:
        self._model.generation_config = self._before


def _sampling(generation: Generation) -> dict[str, Any]:
    return {"do_sample": True, "temperature": generation.temperature, "top_k": 0, "top_p": 1.0}


def spelled(tokenizer: Any, prompt: list[int], answer: list[int], at: int) -> tuple[str, NDArray[np.int32]]:
    """The text of an answer that begins at character `at`, and the span of each token, ``[tokens, 2]``.

    Tokens that make up a character together share its span; those that are written as nothing, as the end of
    a text is, have an empty one.
    """
    ids = [*prompt[-CONTEXT:], *answer]
    first = len(ids) - len(answer)
    text, spans, begin, told = "", list[tuple[int, int]](), 0, first
    for stop in range(first + 1, len(ids) + 1):
        before, whole = (_decoded(tokenizer, ids[begin:end]) for end in (told, stop))
        if whole.endswith(UNFINISHED) and stop < len(ids):
            continue
        piece = whole[len(before) :]
        start = at + len(text)
        text += piece
        spans += [(start, start + len(piece))] * (stop - told)
        begin, told = max(begin, told - CONTEXT), stop
    return text, np.array(spans, np.int32).reshape(-1, 2)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
