"""Which experiments a study has, and how their models are made; written to YAML and read from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rattention._arguments import require_seed
from rattention.studies.kit.settings import from_mapping, read_yaml, require_name, require_ranges, write_yaml
from rattention.studies.lm.corpus import Corpus
from rattention.studies.lm.settings import (
    Conversion,
    Cost,
    Evaluation,
    Length,
    ModelSize,
    Recall,
    Training,
)

if TYPE_CHECKING:
    import os

NAMES = ("ngram", "pareto", "recall", "length", "ablations", "conversion", "cost")
"""Experiments, in the order in which they are run; `rattention.studies.lm.experiments` says what each is."""

SUBSETS = ("experiments", "seeds", "windows", "layouts")
"""Fields that say which runs there are; all others say how each is made."""


@dataclass(frozen=True)
class Study:
    """Experiments with small language models. ValueError lists the known names."""

    experiments: tuple[str, ...] = NAMES
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of first weights and batches; the texts are the same for all."""
    windows: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """Windows of the experiment ``pareto``."""
    layouts: tuple[str, ...] = ("pure", "3:1")
    """Of the experiment ``pareto``."""
    ablation_window: int = 32
    corpus: Corpus = field(default_factory=Corpus)
    model: ModelSize = field(default_factory=ModelSize)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    recall: Recall = field(default_factory=Recall)
    length: Length = field(default_factory=Length)
    conversion: Conversion = field(default_factory=Conversion)
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        require_ranges(self, ablation_window=0)
        for name in self.experiments:
            require_name("experiment", name, NAMES)
        for layout in self.layouts:
            require_name("layout", layout, ("pure", "3:1"))
        for seed in self.seeds:
            require_seed("seeds", seed)
        for name in SUBSETS:
            if not (chosen := tuple(dict.fromkeys(getattr(self, name)))):
                raise ValueError(f"{name} must have at least one")
            object.__setattr__(self, name, chosen)
        if min(self.windows) < 1:
            raise ValueError(f"windows must be whole numbers >= 1, got {self.windows}")

    def with_training(self, **changes: Any) -> Study:
        """With other settings of the training on text."""
        return replace(self, training=replace(self.training, **changes))

    def save(self, path: Path) -> None:
        """Write YAML, whole or not at all."""
        write_yaml(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """The study in a YAML file; what it does not mention has its default.

        ValueError names the file and keys that are unknown or values of another type, and what is allowed.
        """
        return from_mapping(cls, read_yaml(Path(path)), str(path))


SMOKE_RECALL = Training(context=64, batch=32, steps=60, rates=(3e-3,), checkpoint_every=60)

PRESETS = {
    "smoke": Study(
        seeds=(0, 1),
        windows=(8, 32),
        layouts=("pure",),
        ablation_window=8,
        corpus=Corpus(most_bytes=2_000_000),
        model=ModelSize(dim=32, heads=2, depth=2, mlp_dim=64),
        training=Training(
            context=128, batch=16, steps=60, rates=(3e-3, 1e-2), tuning_steps=20, checkpoint_every=60
        ),
        evaluation=Evaluation(sequences=64, validation_sequences=16, positions=16),
        recall=Recall(
            length=64,
            vocabulary=64,
            pairs=(4,),
            windows=(8,),
            test_sequences=100,
            model=ModelSize(dim=32, heads=1, depth=2, mlp_dim=64),
            training=SMOKE_RECALL,
        ),
        length=Length(window=8, factors=(1, 2, 4), samples=8),
        conversion=Conversion(windows=(8,), steps=(0, 30)),
        cost=Cost(lengths=(128, 512), windows=(32, 128), tokens=16, repeats=2),
    ),
    "small": Study(
        training=Training(context=2048, batch=1, steps=2900, rates=(1e-3, 3e-3, 6e-3), tuning_steps=400),
        recall=Recall(
            length=64,
            vocabulary=128,
            pairs=(8,),
            windows=(8,),
            model=ModelSize(dim=64, heads=1, depth=2, mlp_dim=128),
            training=Training(context=64, batch=64, steps=5000, rates=(1e-3, 3e-3, 9e-3), tuning_steps=1500),
        ),
    ),
    "paper": Study(
        windows=(32, 64, 128, 256, 512, 1024),
        layouts=("3:1",),
        ablation_window=512,
        corpus=Corpus(level="bpe", vocabulary=32768, most_bytes=10**12),
        model=ModelSize(
            dim=2048,
            heads=16,
            kv_heads=4,
            depth=56,
            mlp_dim=9984,
            head_dim=128,
            rope_theta=500_000.0,
            qk_norm=True,
        ),
        training=Training(context=4096, batch=1024, steps=95_000, rates=(1e-4, 3e-4), bfloat16=True),
        length=Length(window=512, samples=500),
        conversion=Conversion(windows=(128, 512, 1024), steps=(0, 100, 1000, 5000), rate=3e-5),
        cost=Cost(lengths=(4096, 8192, 16384, 32768), windows=(512, 1024, 2048, 4096)),
    ),
}
"""smoke: everything in a few minutes on 2 cores; small: hours; paper: the sizes of the paper's 3 B models."""
