"""What tokens say without their order: the accuracy that a model which reads must beat."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._extras import require

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Of the data against the L2 penalty: those that are tried."""

STEPS = 200
"""The most steps of a fit; it need not end, for validation has the last word."""

Labelled = tuple[Any, NDArray[np.int64]]
"""Features ``[samples, features]``, sparse, and labels."""


def fitted_accuracy(train: Labelled, validation: Labelled, test: Labelled) -> float:
    """Test accuracy of logistic regression.

    The strength of its penalty is the one with the best validation accuracy. Nothing is drawn at random.
    """
    labels = train[1]
    if len(np.unique(labels)) == 1:  # nothing to fit
        return float((test[1] == labels[0]).mean())
    regression = require("sklearn.linear_model").LogisticRegression
    fits = [regression(C=strength, max_iter=STEPS) for strength in STRENGTHS]
    with warnings.catch_warnings():  # of fits that have not ended
        warnings.simplefilter("ignore")
        for fit in fits:
            fit.fit(*train)
    return float(max(fits, key=lambda fit: fit.score(*validation)).score(*test))


def log_counts(tokens: NDArray[np.integer[Any]], lengths: NDArray[np.int64], vocabulary: int) -> Any:
    """``log(1 + count)`` of each token in sequences that lie one behind the other, sparse,
    ``[samples, vocabulary]``."""
    samples, ones = np.repeat(np.arange(len(lengths)), lengths), np.ones(len(tokens))
    counts = require("scipy.sparse").coo_array((ones, (samples, tokens)), (len(lengths), vocabulary))
    return counts.tocsr().log1p()
