"""Statistics over patients."""

import json

import numpy as np
import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.statistics import bootstrap_interval, paired_test, patient_means, summarise, summarise_cohort


def test_the_bootstrap_is_reproducible_and_depends_on_the_seed():
    values = np.random.default_rng(0).normal(size=15).tolist()
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval(rng.normal(3.0, 1.0, size=40).tolist(), resamples=400, seed=trial)
        hits += interval.low <= 3.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_higher_level_gives_a_wider_interval():
    values = np.random.default_rng(2).normal(size=20).tolist()
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_patient_has_a_mean_and_nothing_else():
    summary = summarise([0.7])
    assert (summary.mean, summary.std, summary.interval.low, summary.interval.high) == (0.7, None, None, None)
    assert summary.as_text() == "0.700"


def test_missing_values_are_counted_and_left_out():
    summary = summarise([1.0, None, 3.0, float("nan")])
    assert (summary.mean, summary.count, summary.missing) == (2.0, 2, 2)
    assert summary.std == pytest.approx(np.sqrt(2))
    assert summarise([None]).as_text() == "no value"


def test_cases_of_one_patient_are_averaged_before_patients_are(head):
    reference, synthetic, labels = head
    worse = synthetic.with_array(synthetic.array * np.float32(1.3))
    good, bad = (evaluate(reference, image, regions=labels) for image in (synthetic, worse))
    cohort = summarise_cohort([good, good, good, bad], ["a", "a", "a", "b"])
    assert cohort.patients == 2
    expected = (good.metrics["mae"] + bad.metrics["mae"]) / 2
    assert cohort.metrics["mae"].mean == pytest.approx(expected)
    assert cohort.regions["lesion"]["mae"].count == 2
    json.dumps(cohort.to_dict(), allow_nan=False)


def test_a_case_without_a_value_neither_counts_nor_spoils_its_patients_mean():
    values = [1.0, None, 4.0, float("nan"), 3.0]
    assert patient_means(values, ["a", "b", "a", "a", "c"]) == [2.5, None, 3.0]


def test_a_cohort_of_two_protocols_is_refused(head):
    results = [evaluate(*head[:2]), evaluate(*head[:2], "medprompt")]
    with pytest.raises(UsageError, match="MX-MET-002"):
        summarise_cohort(results)


def test_cases_and_patients_must_agree_in_number(head):
    with pytest.raises(UsageError, match="MX-MET-006"):
        summarise_cohort([evaluate(*head[:2])], ["a", "b"])


def test_the_exact_sign_flip_test_counts_all_flips():
    test = paired_test([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], "sign_flip")
    assert test.p_value == 2 / 16  # only all signs kept and all signs flipped reach the observed mean
    assert test.mean_difference == 2.5


def test_many_pairs_are_flipped_at_random_but_reproducibly():
    rng = np.random.default_rng(8)
    first = rng.normal(size=30)
    second = first + rng.normal(0.0, 1.0, size=30)
    tests = [paired_test(first.tolist(), second.tolist(), "sign_flip", seed=1) for _ in range(2)]
    assert tests[0] == tests[1]
    assert 0.01 < tests[0].p_value < 1.0
    shifted = paired_test(first.tolist(), (first + 1 + 0.1 * second).tolist(), "sign_flip")
    assert shifted.p_value < 0.001


def test_wilcoxon_agrees_with_the_exact_distribution():
    assert paired_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).p_value == pytest.approx(2 / 32)


@pytest.mark.parametrize("method", ["wilcoxon", "sign_flip"])
def test_equal_pairs_do_not_differ(method):
    assert paired_test([1.0, 2.0], [1.0, 2.0], method).p_value == 1.0


@pytest.mark.parametrize("first, second", [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, float("nan")], [1.0, 2.0])])
def test_a_paired_test_needs_two_complete_pairs(first, second):
    with pytest.raises(UsageError, match="MX-MET-006"):
        paired_test(first, second)
