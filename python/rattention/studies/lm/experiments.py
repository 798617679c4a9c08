"""The table of experiments: which models each has, what they are trained on, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rattention.studies.lm import cost
from rattention.studies.lm.evaluation import (
    described,
    recalled,
    sequences_of,
    task_scores,
    token_losses,
)
from rattention.studies.lm.ngram import NGrams
from rattention.studies.lm.tasks import NAMES as TASKS
from rattention.studies.lm.variants import AS_WINDOW, BASELINE, LAYERS, WINDOWLESS, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rattention.nn import LanguageModel
    from rattention.studies.lm.config import Study
    from rattention.studies.lm.corpus import CorpusData

TEST_SEED = 2**32 - 1
"""Of recall sequences and tasks that models are tested on."""


@dataclass(frozen=True)
class Run:
    """One result of an experiment."""

    experiment: str
    variant: Variant
    seed: int
    training: str | None
    """What the model is trained on: ``"text"``, ``"tasks"`` (text and tasks), ``"recall-<pairs>"``,
    ``"converted-<steps>"`` (text, after a conversion); None is no training."""

    @property
    def name(self) -> str:
        """The name of its file."""
        steps = "" if self.steps is None else f"-s{self.steps}"
        pairs = f"-p{self.pairs}" if self.pairs else ""
        return f"{self.experiment}{pairs}{steps}-{self.variant.name}-{self.seed}"

    @property
    def pairs(self) -> int:
        """Of the recall task, 0 elsewhere."""
        return self._number("recall") or 0

    @property
    def steps(self) -> int | None:
        """After a conversion, None elsewhere."""
        return self._number("converted")

    def _number(self, kind: str) -> int | None:
        own, _, number = (self.training or "").partition("-")
        return int(number) if own == kind else None


@dataclass(frozen=True)
class Experiment:
    """A row of `EXPERIMENTS`."""

    about: str
    variants: Callable[[Study], Iterable[Variant]]
    evaluate: Callable[[Study, Run, Any, Any], dict[str, Any]]
    """What is measured, of study, run, the trained model or None, and the corpus or None."""
    trainings: Callable[[Study], Iterable[str | None]] = lambda study: ("text",)
    repeated: bool = True
    """Whether there is a run for every seed."""

    def runs(self, name: str, study: Study) -> list[Run]:
        """Every run; all variants with the first seed come before the second, so that a study that is stopped
        has something of everything."""
        return [
            Run(name, variant, seed, training)
            for seed in (study.seeds if self.repeated else study.seeds[:1])
            for training in self.trainings(study)
            for variant in dict.fromkeys(self.variants(study))
        ]


def windowed(
    windows: Iterable[int],
    layouts: Iterable[str] = ("pure",),
    mechanisms: Sequence[str] = ("window", "rattention", AS_WINDOW),
) -> list[Variant]:
    """Full attention, and each mechanism with every window."""
    return [BASELINE, *(Variant(m, w, layout) for layout in layouts for w in windows for m in mechanisms)]


def recall_variants(study: Study) -> list[Variant]:
    """Mechanisms without a window once, others with each."""
    names = (*WINDOWLESS, "window", "rattention", AS_WINDOW, "rattention_gated")
    return [
        Variant(name, window)
        for name in names
        for window in ((None,) if name in WINDOWLESS else study.recall.windows)
    ]


def ablation_variants(study: Study) -> list[Variant]:
    """RAttention, one part of it changed at a time, and its two branches alone, the local one also normed."""
    changed = [name for name in LAYERS if name.startswith("rattention")]
    window = study.ablation_window
    alone = [Variant("window", window), Variant("window_normed", window), Variant("linear")]
    return [BASELINE, *(Variant(name, window) for name in changed), *alone]


def cost_variants(study: Study) -> list[Variant]:
    """Full attention and every window, pure and, from four layers on, with global layers."""
    layouts = ("pure", "3:1")[: 1 + (study.model.depth >= 4)]
    return windowed(study.cost.windows, layouts, ("window", "rattention"))


def losses_on_text(study: Study, run: Run, model: LanguageModel, data: CorpusData) -> dict[str, Any]:
    """Losses on the test split."""
    return {"text": _losses(study, model, data, study.training.context)}


def _losses(study: Study, model: LanguageModel, data: CorpusData, context: int) -> dict[str, Any]:
    wanted = max(1, study.evaluation.sequences * study.training.context // context)
    sequences = sequences_of(data.test, context, wanted)
    losses = token_losses(model, sequences, bfloat16=study.training.bfloat16)
    return described(losses, sequences, data.bytes_per_token(), study.evaluation, study.windows)


def losses_and_tasks(study: Study, run: Run, model: LanguageModel, data: CorpusData) -> dict[str, Any]:
    """Losses and tasks at every length."""
    contexts = [factor * study.training.context for factor in study.length.factors]
    samples = study.length.samples
    return {
        "lengths": [_losses(study, model, data, context) for context in contexts],
        "tasks": [
            task_scores(model, data, task, context, samples, TEST_SEED)
            for context in contexts
            for task in TASKS
        ],
    }


def answers(study: Study, run: Run, model: LanguageModel, data: None) -> dict[str, Any]:
    """What is recalled."""
    windows = study.recall.windows
    return {"recall": recalled(model, study.recall, run.pairs, windows, TEST_SEED)}


def ngrams(study: Study, run: Run, model: None, data: CorpusData) -> dict[str, Any]:
    """Losses of 5-grams on the test split."""
    sequences = sequences_of(data.test, study.training.context, study.evaluation.sequences)
    order = min(5, 63 // (data.vocabulary - 1).bit_length())
    losses = NGrams(data.train, data.vocabulary, order).losses(sequences)
    args = (data.bytes_per_token(), study.evaluation, study.windows)
    return {"order": order, "text": described(losses, sequences, *args)}


def costs(study: Study, run: Run, model: None, data: None) -> dict[str, Any]:
    """Times and bytes of a model that is not trained."""
    return {"cost": cost.measured(run.variant, study.model, study.cost)}


EXPERIMENTS = {
    "ngram": Experiment(
        "5-grams, the baseline without a network", lambda s: [BASELINE], ngrams, lambda s: (None,), False
    ),
    "pareto": Experiment(
        "Loss against the window", lambda study: windowed(study.windows, study.layouts), losses_on_text
    ),
    "recall": Experiment(
        "Associative recall (MQAR)",
        recall_variants,
        answers,
        lambda study: [f"recall-{pairs}" for pairs in study.recall.pairs],
    ),
    "length": Experiment(
        "Longer contexts than in training",
        lambda study: windowed([study.length.window]),
        losses_and_tasks,
        lambda study: ("tasks",),
    ),
    "ablations": Experiment("Parts of RAttention changed", ablation_variants, losses_on_text),
    "conversion": Experiment(
        "Full attention converted",
        lambda study: windowed(study.conversion.windows),
        losses_on_text,
        lambda study: [f"converted-{steps}" for steps in study.conversion.steps],
    ),
    "cost": Experiment("Time and memory", cost_variants, costs, lambda s: (None,), False),
}
"""By name, in the order in which they are run."""
