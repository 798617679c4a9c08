"""Numbers of a comparison by hand: means, intervals, improvements, and the findings made of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.extras import needs

needs("studies")

from rattention.studies.lra import findings
from rattention.studies.lra.summary import Cell, difference, heading, learned, rows_of
from scipy import stats

from tests.lra_results import cell

T3 = 4.302652729911275
"""Student's t for 95 % and 2 degrees of freedom, from tables."""


class TestNumbers:
    def test_students_interval(self):
        number = cell("gravitational_multi_timescale", [0.3, 0.4, 0.5]).accuracy
        assert number.mean == pytest.approx(0.4)
        assert number.high - number.mean == pytest.approx(T3 * 0.1 / math.sqrt(3))

    def test_one_seed_has_no_interval(self):
        number = cell("gravitational_multi_timescale", [0.3]).accuracy
        assert np.isnan([number.low, number.high]).all()
        (row,) = rows_of([cell("gravitational_multi_timescale", [0.3], cell("softmax", [0.2]))])
        assert {row[name] for name in row if name.endswith(("_low", "_high"))} == {None}

    def test_shares_stay_shares(self):
        number = cell("gravitational_multi_timescale", [0.9, 1.0]).accuracy
        assert (number.low, number.high) == (pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3), 1.0)
        assert cell("gravitational_multi_timescale", [0.0, 0.1]).accuracy.low == 0.0

    def test_improvement_is_paired_by_seed(self):
        """In points, as a paired t-test has it."""
        base = cell("softmax", [0.2, 0.4, 0.9, 0.3], seeds=(0, 1, 5, 2))
        ours = cell("gravitational_multi_timescale", [0.46, 0.22, 0.1, 0.37], base, seeds=(1, 0, 7, 2))
        test = stats.ttest_rel([0.46, 0.22, 0.37], [0.4, 0.2, 0.3]).confidence_interval(0.95)
        assert ours.improvement.pairs == 3
        assert ours.improvement.points.mean == pytest.approx(0.05)
        assert (ours.improvement.points.low, ours.improvement.points.high) == pytest.approx(tuple(test))

    def test_improvement_without_common_seeds_is_that_of_means(self):
        base = cell("softmax", [0.2, 0.4], seeds=(0, 1))
        ours = cell("gravitational_multi_timescale", [0.36], base, seeds=(2,)).improvement
        assert ours.points.mean == pytest.approx(0.06)
        assert math.isnan(ours.points.low)
        assert (ours.pairs, ours.shown) == (0, False)

    def test_no_improvement_without_baseline(self):
        assert cell("gravitational_multi_timescale", [0.3]).improvement is None
        assert (
            cell("gravitational_multi_timescale", [0.3], cell("softmax", [0.0])).improvement.points.mean
            == 0.3
        )

    def test_a_difference_is_shown_where_the_paired_test_finds_one(self):
        drawn = np.random.default_rng(0)
        verdicts = []
        for gap in np.linspace(0, 0.06, 40):
            theirs = 0.3 + 0.02 * drawn.standard_normal(4)
            ours = theirs + gap + 0.01 * drawn.standard_normal(4)
            between = difference(cell("a", ours.tolist()), cell("b", theirs.tolist()))
            verdicts.append(between.shown)
            assert between.shown == (stats.ttest_rel(ours, theirs).pvalue < 0.05)
            assert difference(cell("b", theirs.tolist()), cell("a", ours.tolist())).shown == between.shown
        assert 5 < sum(verdicts) < 35

    def test_one_seed_shows_nothing(self):
        assert not difference(cell("a", [0.9]), cell("b", [0.1])).shown
        assert not difference(cell("a", [0.9, 0.9], seeds=(0, 1)), cell("b", [0.1, 0.1], seeds=(1, 2))).shown

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
        assert learned(cell("gravitational_multi_timescale", accuracies)) is verdict


def timed(mechanism, seconds):
    """A cell whose runs took `seconds` per epoch."""
    made = cell(mechanism, [0.3] * len(seconds))
    runs = (
        replace(run, result={**run.result, "seconds_per_epoch": own})
        for run, own in zip(made.runs, seconds, strict=True)
    )
    return Cell(made.task, mechanism, tuple(runs))


class TestFindings:
    def test_an_interval_with_0_is_no_difference(self):
        text = " ".join(
            findings.best(
                [cell("softmax", [0.30, 0.34]), cell("gravitational_multi_timescale", [0.33, 0.36])]
            )
        )
        assert "Gravitational multi-timescale with 34.5%" in text
        assert (
            "No difference is shown between Gravitational multi-timescale and Softmax: the interval includes "
            "0." in text
        )
        assert "more accurate" not in text

    def test_an_interval_without_0_is_a_difference(self):
        """Though their own intervals overlap: seeds that are good for both do not count."""
        cells = [
            cell("softmax", [0.30, 0.40, 0.50]),
            cell("gravitational_multi_timescale", [0.32, 0.42, 0.521]),
        ]
        assert cells[0].accuracy.high > cells[1].accuracy.mean
        text = " ".join(findings.best(cells))
        assert (
            "Gravitational multi-timescale is more accurate than Softmax by +2.0 (+1.9 to +2.2) points"
            in text
        )
        assert "paired over 3 seeds" in text
        assert "No difference" not in text

    def test_one_seed_is_said(self):
        text = " ".join(findings.best([cell("softmax", [0.3]), cell("gravitational_multi_timescale", [0.9])]))
        assert "Softmax: fewer than two seeds in common with Gravitational multi-timescale" in text
        assert "more accurate" not in text

    def test_alone(self):
        assert "no other mechanism" in findings.best([cell("gravitational_multi_timescale", [0.3])])[1]

    def test_the_same_mean_is_said(self):
        text = findings.best(
            [cell("softmax", [0.3, 0.3]), cell("gravitational_multi_timescale", [0.3, 0.3])]
        )[0]
        assert "the same mean: Gravitational multi-timescale" in text

    def test_majority(self):
        cells = [
            cell("softmax", [0.19, 0.2]),
            cell("gravitational_multi_timescale", [0.203]),
            cell("rattention", [0.4]),
        ]
        no, unsure = findings.against_majority(cells)
        assert no.startswith("Softmax did not learn: its mean accuracy of 19.5%")
        assert unsure.startswith("Gravitational multi-timescale is not shown to have learned: 20.3%")
        assert "0.8 points" in unsure
        (every,) = findings.against_majority(cells[2:])
        assert every == "Every mechanism is above the majority class (20.0%)."

    def test_counts_of_tokens(self):
        cells = [
            cell("softmax", [0.3, 0.31, 0.32], bag_accuracy=0.25),
            cell("gravitational", [0.2, 0.3, 0.4], bag_accuracy=0.25),
            cell("rattention", [0.255], bag_accuracy=0.25),  # within what the choice of test samples can do
            cell("gated_delta", [0.4], bag_accuracy=0.25),
        ]
        (text,) = findings.against_bag(cells)
        assert "without their order, gets 25.0%" in text
        shown, not_shown = text.split("; ")[1:]
        assert shown == "shown to be above it: Softmax and Gated delta rule"
        assert not_shown == "not shown to be above it: Gravitational and RAttention."
        assert rows_of(cells)[0]["bag_accuracy"] == 0.25
        assert heading("listops", cells) == "ListOps (majority class 20.0%, counts of tokens 25.0%)"

    def test_results_without_counts_of_tokens(self):
        cells = [cell("softmax", [0.3, 0.31, 0.32])]
        assert findings.against_bag(cells) == []
        assert rows_of(cells)[0]["bag_accuracy"] is None
        assert heading("listops", cells) == "ListOps (majority class 20.0%)"

    def test_baseline(self):
        base = cell("softmax", [0.2, 0.21, 0.22])
        better, equal = (
            cell("gravitational_multi_timescale", [0.4, 0.42, 0.44], base),
            cell("rattention", [0.2, 0.22, 0.21], base),
        )
        texts = findings.against_baseline([base, better, equal, cell("gravitational", [0.5], base)])
        assert texts[0] == (
            "Gravitational multi-timescale: accuracy +21.0 (+18.5 to +23.5) points against softmax "
            "attention, paired over 3 "
            "seeds; a difference is shown."
        )
        assert "+0.0 (-2.5 to +2.5) points" in texts[1]
        assert texts[1].endswith("the interval includes 0: no difference is shown.")
        assert "fewer than two seeds in common" in texts[2]
        assert "+30.0 points against softmax attention, paired over 1 seed;" in texts[2]
        assert (
            "no finished run" in findings.against_baseline([cell("gravitational_multi_timescale", [0.4])])[0]
        )

    def test_costs_are_shown_to_differ_where_ranges_do_not_overlap(self):
        base, other = cell("softmax", [0.3, 0.3]), cell("rattention", [0.3, 0.3])
        slow = cell(
            "gravitational_multi_timescale",
            [0.3, 0.3],
            base,
            seconds_per_epoch=25.0,
            peak_memory_bytes=3 * 2**30,
        )
        time, memory, ratios = findings.speed([slow, base, other])
        assert time == (
            "Lowest mean time per epoch: Softmax with 10 s, 2 seeds; higher in every run of Gravitational "
            "multi-timescale (2.50 times); no difference is shown to RAttention."
        )
        assert memory.startswith("Lowest mean peak memory: Softmax with 1,024 MiB, 2 seeds; higher in every")
        assert "(3.00 times)" in memory
        assert ratios == (
            "Mean time per epoch and peak memory, as multiples of softmax attention's: Gravitational "
            "multi-timescale 2.50 and 3.00."
        )
        assert findings.speed([base, slow])[0].endswith(
            "every run of Gravitational multi-timescale (2.50 times)."
        )
        assert findings.speed([base]) == []

    @pytest.mark.parametrize(
        "seconds",
        [
            ((10.0,), (25.0,)),
            ((10.0,), (24.0, 26.0)),
            ((10.0, 20.0), (20.0, 30.0)),
            ((10.0, 24.0), (20.0, 21.0)),
        ],
        ids=["one run each", "one run of one", "ranges touch", "range within the other"],
    )
    def test_no_claim_of_time_from_one_run_or_ranges_that_overlap(self, seconds):
        fast, slow = (timed(*both) for both in zip(("softmax", "rattention"), seconds, strict=True))
        slow = Cell(slow.task, slow.mechanism, slow.runs, fast)
        time, _, ratios = findings.speed([fast, slow])
        assert time.endswith("; no difference is shown to RAttention.")
        assert "times" not in time
        assert "every run" not in time
        assert re.fullmatch(r".*RAttention \d\.\d\d\* and 1\.00\*; \*: no difference is shown\.", ratios)

    def test_what_was_measured_on_a_shared_machine_is_said(self):
        assert (
            "Times and memory were measured on a machine that other work may have shared" in findings.CAVEAT
        )
        assert findings.CAVEAT in findings.findings_markdown({})

    def test_convergence(self):
        late = cell("gravitational_multi_timescale", [0.3, 0.3], epochs_to_90_percent=6, best_epoch=10)
        flat = cell("rattention", [0.1], epochs_to_90_percent=1)
        first, ends = findings.convergence([cell("softmax", [0.3]), late, flat])
        assert first.endswith("2.0 for Softmax, 6.0 for Gravitational multi-timescale.")
        assert ends.endswith("Gravitational multi-timescale 2 of 2.")
        same = findings.convergence([cell("softmax", [0.3]), cell("gravitational_multi_timescale", [0.3])])
        assert same[0].endswith("all the same.")

    def test_sizes(self):
        base = cell("softmax", [0.3])
        larger = cell("gravitational_multi_timescale", [0.3], base, parameters={"total": 1101})
        assert (
            "Gravitational multi-timescale has 1.10 times the parameters" in findings.sizes([base, larger])[0]
        )
        assert (
            findings.sizes(
                [base, cell("gravitational_multi_timescale", [0.3], base, parameters={"total": 1100})]
            )
            == []
        )
