"""Which strategies the best one is ahead of, paired by seed."""

from __future__ import annotations

from tests.extras import needs

needs("studies")

from rattention.studies.compression import Measured, Trial, Validation
from rattention.studies.kit.intervals import interval


def test_leads_are_paired_by_seed():
    """A strategy whose share moves with the seed's is told apart from the best, another is not."""
    full = [Measured(quality=10.0, seconds=1.0)] * 3
    shares = {"recency": (0.5, 0.7, 0.9), "uniform": (0.4, 0.61, 0.8), "received": (0.9, 0.2, 0.6)}
    trials = tuple(
        Trial(name, 0.5, seed, ((full[seed], Measured(quality=10 * share, seconds=1.0)),))
        for name, own in shares.items()
        for seed, share in enumerate(own)
    )
    measured = Validation("task", "return", True, trials, None)
    leads = measured.leads(0.5)
    assert [*leads] == ["uniform", "received"]
    assert leads["uniform"] == interval([0.5 - 0.4, 0.7 - 0.61, 0.9 - 0.8])
    told = measured.verdict(0.5)
    assert (
        "Paired by seed, it is ahead of 'uniform' (+10 points, 8 to 11); no lead is shown over 'received'"
        in told
    )
    assert "Paired" not in Validation("task", "return", True, trials[::3], None).verdict(0.5)
