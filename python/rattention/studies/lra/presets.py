"""Studies that are known by name."""

from __future__ import annotations

from rattention.studies.lra.config import ModelSize, Study, Training
from rattention.studies.lra.listops import ListOps
from rattention.studies.lra.text import Text

PRESETS = {
    "smoke": Study(
        seeds=(0,),
        model=ModelSize(dim=32, heads=2, depth=2, mlp_dim=64, window=16, match_parameters=True),
        training=Training(batch=32, learning_rate=2e-3, epochs=3),
        listops=ListOps(
            train=1_500, validation=200, test=200, min_length=10, max_length=60, max_depth=4, max_args=4
        ),
        text=Text(length=256, train=800, validation=200, test=200),
    ),
    "small": Study(
        model=ModelSize(
            dim=64,
            heads=2,
            depth=2,
            mlp_dim=128,
            dropout=0.0,
            window=64,
            match_parameters=True,
            standardize=True,
        ),
        training=Training(batch=32, learning_rate=1e-3, epochs=3, warmup_steps=50, schedule="cosine", pool=1),
        listops=ListOps(
            train=20_000, validation=1_000, test=2_000, min_length=20, max_length=100, max_depth=5, max_args=5
        ),
        text=Text(length=1_024, train=4_200, validation=500, test=1_000),
        text_training=Training(
            batch=16, learning_rate=2e-3, epochs=2, warmup_steps=50, schedule="cosine", pool=1
        ),
    ),
    "paper": Study(),
}
"""smoke: both tasks, all mechanisms, in about 2 minutes on 2 cores; small: about an hour; paper: the sizes of
the benchmark and of the published models, for a large machine."""
