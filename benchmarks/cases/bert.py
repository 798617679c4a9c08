"""A whole model with its metrics."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rattention as ra
from rattention.models import Bert

from benchmarks.outcome import Outcome, at_least
from benchmarks.peers import transformers_eager
from benchmarks.race import Peer, Runner, race

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rattention.models import BertOutput

    from benchmarks.race import Answer, Setup

PEER = "Transformers eager, metrics in PyTorch"
TOLERANCE = 1e-4


def forward_with_metrics(setup: Setup) -> Outcome:
    """BERT-base with random weights: forward pass and all metrics of every map."""
    ids = np.random.default_rng(0).integers(0, transformers_eager.VOCABULARY, (1, setup.length))
    with tempfile.TemporaryDirectory() as name:
        try:
            transformers_eager.save_random_bert(setup, Path(name))
        except ImportError as error:
            return Outcome([], missing={PEER: str(error)})
        return _race(setup, Path(name), ids)


def _race(setup: Setup, folder: Path, ids: NDArray[np.int64]) -> Outcome:
    model, options = Bert.from_pretrained(folder), ra.MetricOptions()
    peer = Peer(PEER, lambda: transformers_eager.bert(setup, folder, ids), at_least(1.8))
    return race(setup, Runner(lambda: model(ids, metrics=options), _answer), [peer], tolerance=TOLERANCE)


def _answer(result: BertOutput) -> Answer:
    layers = [dict(layer) for layer in result.metrics or ()]
    metrics = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    return {"hidden": result.last_hidden_state, **metrics}
