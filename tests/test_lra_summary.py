"""Numbers of a comparison by hand: means, intervals, improvements, and the findings made of them."""

# ruff: noqa: E402
from __future__ import annotations

import math

import numpy as np
import pytest

for module in ("matplotlib", "scipy", "yaml", "safetensors", "tyro"):
    pytest.importorskip(module, reason="needs the extra 'lra'")

from rattention.lra import findings
from rattention.lra.summary import apart, learned, rows_of

from tests.lra_results import cell

T3 = 4.302652729911275
"""Student's t for 95 % and 2 degrees of freedom, from tables."""


class TestNumbers:
    def test_students_interval(self):
        number = cell("combined", [0.3, 0.4, 0.5]).accuracy
        assert number.mean == pytest.approx(0.4)
        assert number.high - number.mean == pytest.approx(T3 * 0.1 / math.sqrt(3))

    def test_one_seed_has_no_interval(self):
        number = cell("combined", [0.3]).accuracy
        assert np.isnan([number.low, number.high]).all()
        (row,) = rows_of([cell("combined", [0.3], cell("conventional", [0.2]))])
        assert {row[name] for name in row if name.endswith(("_low", "_high"))} == {None}

    def test_shares_stay_shares(self):
        number = cell("combined", [0.9, 1.0]).accuracy
        assert (number.low, number.high) == (pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3), 1.0)
        assert cell("combined", [0.0, 0.1]).accuracy.low == 0.0

    def test_improvement_is_paired_by_seed(self):
        base = cell("conventional", [0.2, 0.4, 0.9], seeds=(0, 1, 5))
        ours = cell("combined", [0.44, 0.22, 0.1], base, seeds=(1, 0, 7))
        assert ours.paired_seeds == 2
        assert ours.improvement.mean == pytest.approx(0.1)
        assert ours.improvement.high == pytest.approx(0.1)

    def test_improvement_without_common_seeds_is_that_of_means(self):
        base = cell("conventional", [0.2, 0.4], seeds=(0, 1))
        ours = cell("combined", [0.36], base, seeds=(2,))
        assert ours.improvement.mean == pytest.approx(0.2)
        assert math.isnan(ours.improvement.low)

    def test_no_improvement_without_baseline_or_over_nothing(self):
        assert cell("combined", [0.3]).improvement is None
        assert cell("combined", [0.3], cell("conventional", [0.0])).improvement is None

    def test_apart_needs_seeds_and_gaps(self):
        low, high = cell("a", [0.30, 0.31, 0.32]), cell("b", [0.40, 0.41, 0.42])
        assert apart(low, high)
        assert apart(high, low)
        assert not apart(low, cell("b", [0.9]))
        assert not apart(low, cell("b", [0.32, 0.325, 0.33]))
        assert not apart(low, cell("b", [0.33, 0.40, 0.50]))  # seeds are apart, intervals are not
        wide = [0.5] * 60 + [0.3]
        assert not apart(low, cell("b", wide))  # intervals are apart, seeds are not

    @pytest.mark.parametrize(
        ("accuracies", "verdict"),
        [
            ([0.2, 0.2], False),
            ([0.1, 0.25], False),
            ([0.19, 0.3, 0.25], None),  # the interval over seeds holds the majority
            ([0.203, 0.203], None),  # less above it than the choice of test samples can do
            ([0.205], None),
            ([0.3, 0.31, 0.32], True),
            ([0.25], True),
        ],
    )
    def test_learned(self, accuracies, verdict):
        assert learned(cell("combined", accuracies)) is verdict


class TestFindings:
    def test_overlap_is_no_difference(self):
        text = " ".join(findings.best([cell("conventional", [0.30, 0.34]), cell("combined", [0.33, 0.36])]))
        assert "Combined with 34.5%" in text
        assert "no difference between them is shown" in text
        assert "more accurate" not in text

    def test_apart_is_a_difference(self):
        cells = [cell("conventional", [0.30, 0.31, 0.32]), cell("combined", [0.40, 0.41, 0.42])]
        text = " ".join(findings.best(cells))
        assert "Combined is more accurate than Conventional beyond the seeds" in text
        assert "no difference" not in text

    def test_one_seed_shows_nothing(self):
        text = " ".join(findings.best([cell("conventional", [0.3]), cell("combined", [0.9])]))
        assert "Conventional and Combined: one seed" in text or "Combined and Conventional: one seed" in text
        assert "more accurate" not in text

    def test_alone(self):
        assert "no other mechanism" in findings.best([cell("combined", [0.3])])[1]

    def test_the_same_mean_is_said(self):
        text = findings.best([cell("conventional", [0.3, 0.3]), cell("combined", [0.3, 0.3])])[0]
        assert "the same mean: Combined" in text

    def test_majority(self):
        cells = [cell("conventional", [0.19, 0.2]), cell("combined", [0.203]), cell("rattention", [0.4])]
        no, unsure = findings.against_majority(cells)
        assert no.startswith("Conventional did not learn: its mean accuracy of 19.5%")
        assert unsure.startswith("Combined is not shown to have learned: 20.3%")
        assert "0.8 points" in unsure
        (every,) = findings.against_majority(cells[2:])
        assert every == "Every mechanism is above the majority class (20.0%)."

    def test_baseline(self):
        base = cell("conventional", [0.2, 0.21, 0.22])
        better, equal = cell("combined", [0.4, 0.42, 0.44], base), cell("rattention", [0.2, 0.22, 0.23], base)
        texts = findings.against_baseline([base, better, equal, cell("gravitational", [0.5], base)])
        assert "Combined: accuracy +100.0%" in texts[0]
        assert "a difference beyond the seeds" in texts[0]
        assert "no difference is shown" in texts[1]
        assert "one seed" in texts[2]
        assert "paired over 1 seed;" in texts[2]
        assert "no finished run" in findings.against_baseline([cell("combined", [0.4])])[0]

    def test_speed(self):
        base = cell("conventional", [0.3])
        slow = cell("combined", [0.3], base, seconds_per_epoch=25.0, peak_memory_bytes=3 * 2**30)
        time, memory, ratios = findings.speed([base, slow])
        assert time == "Fastest per epoch: Conventional with 10 s; Combined takes 2.50 times as long."
        assert memory == "Least peak memory: Conventional with 1,024 MiB; Combined takes 3.00 times as much."
        assert "Combined 2.50 and 3.00" in ratios
        assert findings.speed([base]) == []

    def test_convergence(self):
        late = cell("combined", [0.3, 0.3], epochs_to_90_percent=6, best_epoch=10)
        flat = cell("rattention", [0.1], epochs_to_90_percent=1)
        first, ends = findings.convergence([cell("conventional", [0.3]), late, flat])
        assert first.endswith("2.0 for Conventional, 6.0 for Combined.")
        assert ends.endswith("Combined 2 of 2.")
        same = findings.convergence([cell("conventional", [0.3]), cell("combined", [0.3])])
        assert same[0].endswith("all the same.")

    def test_sizes(self):
        base = cell("conventional", [0.3])
        larger = cell("combined", [0.3], base, parameters={"total": 1101})
        assert "Combined has 1.10 times the parameters" in findings.sizes([base, larger])[0]
        assert findings.sizes([base, cell("combined", [0.3], base, parameters={"total": 1100})]) == []
