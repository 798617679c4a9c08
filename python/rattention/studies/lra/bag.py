"""What tokens say without their order: the accuracy that a model which reads must beat."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._extras import require

if TYPE_CHECKING:
    from rattention.studies.lra.data import Split, TaskData

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Of the data against the L2 penalty: those that are tried."""

STEPS = 200
"""The most steps of a fit; it need not end, for validation has the last word."""


def bag_accuracy(data: TaskData) -> float:
    """Test accuracy of logistic regression on how often each token occurs, as ``log(1 + count)``.

    The strength of its penalty is the one with the best validation accuracy. Nothing is drawn at random.
    """
    if len(np.unique(data.train.labels)) == 1:  # nothing to fit
        return data.majority_accuracy()
    train, validation, test = (_counts(s, data.vocabulary) for s in (data.train, data.validation, data.test))
    regression = require("sklearn.linear_model").LogisticRegression
    fits = [regression(C=strength, max_iter=STEPS) for strength in STRENGTHS]
    with warnings.catch_warnings():  # of fits that have not ended
        warnings.simplefilter("ignore")
        for fit in fits:
            fit.fit(train, data.train.labels)
    best = max(fits, key=lambda fit: fit.score(validation, data.validation.labels))
    return float(best.score(test, data.test.labels))


def _counts(split: Split, vocabulary: int) -> Any:
    """``log(1 + count)`` of each token, sparse, ``[samples, vocabulary]``."""
    samples = np.repeat(np.arange(len(split)), split.lengths)
    ones = np.ones(len(split.tokens))
    shape = (len(split), vocabulary)
    return require("scipy.sparse").coo_array((ones, (samples, split.tokens)), shape).tocsr().log1p()
