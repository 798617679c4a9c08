"""Models of a study: trained once for all experiments that need them, with rates that are tuned alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rattention._files import write_json
from rattention.studies.kit import distributed
from rattention.studies.kit.folder import read_result
from rattention.studies.lm.batches import Batches, RecallBatches, TextBatches
from rattention.studies.lm.evaluation import recalled, validation_loss
from rattention.studies.lm.training import begun, load, train
from rattention.studies.lm.variants import BASELINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from rattention.nn import LanguageModel
    from rattention.studies.lm.config import Study
    from rattention.studies.lm.corpus import CorpusData
    from rattention.studies.lm.experiments import Run
    from rattention.studies.lm.settings import ModelSize, Training

MODELS, TUNING, RATES = "models", "tuning", "rates.json"
TUNING_SEED = 1_000_003
"""Of weights and batches of trials: none of a study's own, unless one is set to it."""
CONVERSION_SEED = 2_000_003
"""Plus the seed: of batches after a conversion, which are others than those before."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A study at work."""

    study: Study
    folder: Path
    data: CorpusData | None
    progress: Callable[[str], None]

    def trained(self, run: Run) -> tuple[LanguageModel | None, dict[str, Any] | None]:
        """The model of a run and the numbers of its training; None and None where it needs none."""
        if run.training is None:
            return None, None
        if run.steps is not None:
            return self._converted(run, run.steps)
        rate, trials = self._rate(run)
        training = self._training(run)
        numbers = self._train(run, self._place(run), run.seed, rate, training.steps)
        return load(self._place(run)), numbers | {"trials": trials}

    def _place(self, run: Run) -> Path:
        return self.folder / MODELS / f"{run.training}-{run.variant.name}-{run.seed}"

    def _converted(self, run: Run, steps: int) -> tuple[LanguageModel, dict[str, Any]]:
        """The seed's model of full attention with the run's layers, trained on for `steps`. Norms that it
        did not have begin as in a new model."""
        source, numbers = self.trained(replace(run, variant=BASELINE, training="text"))
        assert source is not None
        if steps == 0:
            batches = self._batches(run, CONVERSION_SEED + run.seed)
            model = begun(run.variant, *self._size(run), batches, source.state_dict())
            return model, {"seed": run.seed, "steps": 0, "tokens": 0, "before": numbers}
        rate, seed = self.study.conversion.rate, CONVERSION_SEED + run.seed
        after = self._train(run, self._place(run), seed, rate, steps, source.state_dict())
        return load(self._place(run)), after | {"before": numbers}

    def _train(
        self,
        run: Run,
        folder: Path,
        seed: int,
        rate: float,
        steps: int,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        size, vocabulary = self._size(run)
        batches, training = self._batches(run, seed), self._training(run)
        options: dict[str, Any] = {"seed": seed, "rate": rate, "steps": steps, "weights": weights}
        return train(run.variant, size, vocabulary, batches, training, folder, **options)

    def _size(self, run: Run) -> tuple[ModelSize, int]:
        if run.pairs:
            return self.study.recall.model, self.study.recall.vocabulary
        assert self.data is not None
        return self.study.model, self.data.vocabulary

    def _training(self, run: Run) -> Training:
        return self.study.recall.training if run.pairs else self.study.training

    def _batches(self, run: Run, seed: int) -> Batches:
        if run.pairs:
            return RecallBatches(self.study.recall, run.pairs, seed)
        assert self.data is not None
        training, share = self.study.training, self.study.length.task_share
        share = share if run.training == "tasks" else 0.0
        return TextBatches(self.data, training.context, training.batch, seed, share)

    def _rate(self, run: Run) -> tuple[float, list[dict[str, Any]]]:
        """The learning rate of the run's family, and what was tried for it: all windows of a mechanism share
        the one that was the best with the window of the trials."""
        rates = self._training(run).rates
        if len(rates) == 1:
            return rates[0], []
        run = self._trial_of(run)
        folder = self.folder / TUNING / f"{run.training}-{run.variant.family}"
        done = distributed.broadcast(read_result(folder / RATES) if distributed.rank() == 0 else None)
        if done is None:
            done = {"trials": [self._trial(run, rate, folder) for rate in rates]}
            best = min(done["trials"], key=_loss_of)
            if _loss_of(best) == math.inf:
                raise FloatingPointError(f"{folder.name} diverged with all learning rates, {rates}")
            done = {"learning_rate": best["learning_rate"], "window": run.variant.window} | done
            if distributed.rank() == 0:
                write_json(folder / RATES, done)
            self.progress(f"{folder.name}: learning rate {best['learning_rate']:g}")
        return done["learning_rate"], done["trials"]

    def _trial_of(self, run: Run) -> Run:
        """The run whose learning rate is tuned in the place of a run's."""
        if run.variant.window is None:
            return run
        windows = self.study.recall.windows if run.pairs else self.study.windows
        window = sorted(windows)[(len(windows) - 1) // 2]
        return replace(run, variant=replace(run.variant, window=window))

    def _trial(self, run: Run, rate: float, folder: Path) -> dict[str, Any]:
        own, steps = folder / f"{rate:g}", self._training(run).tuning_steps
        try:
            self._train(run, own, TUNING_SEED, rate, steps)
        except FloatingPointError:
            return {"learning_rate": rate, "validation_loss": None, "steps": steps}
        model = load(own)
        if run.pairs:
            recall = replace(self.study.recall, test_sequences=min(200, self.study.recall.test_sequences))
            loss = recalled(model, recall, run.pairs, (), TUNING_SEED)["loss"]
        else:
            assert self.data is not None
            loss = validation_loss(model, self.data, self.study.training.context, self.study.evaluation)
        return {"learning_rate": rate, "validation_loss": loss, "steps": steps}


def _loss_of(trial: dict[str, Any]) -> float:
    """Infinite where the training diverged."""
    loss = trial["validation_loss"]
    return math.inf if loss is None else float(loss)
