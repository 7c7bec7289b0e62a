"""Scans of one head with varied settings: drawn, told, rendered, held out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.io import read_volume
from MedXlateCore.phantom.cohort import CohortPlan, write_cohort
from MedXlateCore.phantom.head import build_subject
from MedXlateCore.phantom.hold_out import HoldOut
from MedXlateCore.phantom.scans import CTAcquisition, ScanPlan, render_scan
from MedXlateCore.phantom.tissues import Tissue
from MedXlateCore.prompts.acquisition_text import as_told, describe, misfits, parse
from MedXlateCore.volume import Modality

RULES = (HoldOut.parse("T1+contrast+fat_suppressed+1.5T"), HoldOut.parse("T2+te=90..110"))
SMALL = (24, 28, 20)


@pytest.fixture(scope="module")
def subject():
    return build_subject(3, (32, 38, 26))


def scans(plan: ScanPlan, split: str = "train", cases: int = 25):
    return [scan for n in range(cases) for scan in plan.draw(n, split, n)]


def test_every_protocol_occurs_in_each_head_and_settings_vary():
    plan = ScanPlan(8, with_ct=True)
    for seed in range(5):
        assert {scan.kind for scan in plan.draw(seed, "train", seed)} == set(plan.kinds)
    drawn = scans(plan)
    assert len({scan.facts for scan in drawn}) == len(drawn)
    t1 = [scan.facts for scan in drawn if scan.facts.sequence == "T1"]
    for fact in ("contrast_agent", "field_strength_t", "fat_suppressed", "scanning_sequence"):
        assert len({getattr(facts, fact) for facts in t1}) == 2
    assert {scan.modality for scan in drawn} == {
        Modality.T1, Modality.T1CE, Modality.T2, Modality.PD, Modality.FLAIR, Modality.CT
    }  # fmt: skip


def test_without_ct_all_is_mr():
    assert {scan.facts.modality for scan in scans(ScanPlan(6), cases=4)} == {"MR"}


def test_the_same_seed_gives_the_same_scans():
    plan = ScanPlan(8, True, RULES)
    assert plan.draw(5, "test", 1) == plan.draw(5, "test", 1)
    assert plan.draw(5, "train", 1) != plan.draw(6, "train", 1)


def test_sentences_tell_all_facts_exactly():
    for scan in scans(ScanPlan(8, with_ct=True)):
        assert as_told(scan.facts) == scan.facts
        assert misfits(scan.facts) == ()
        assert parse(describe(scan.facts)).facts == scan.facts


def test_facts_tell_what_is_simulated():
    for scan in scans(ScanPlan(8)):
        settings, facts = scan.settings, scan.facts
        assert facts.echo_time_ms == settings.echo_time_ms < settings.repetition_time_ms == facts.repetition_time_ms
        assert facts.fat_suppressed == settings.fat_suppressed
        assert facts.contrast_agent == (settings.agent_dose_mmol_per_kg > 0)
        assert facts.field_strength_t == settings.field_strength_t
        assert (facts.inversion_time_ms or 0) == settings.inversion_time_ms


def test_held_out_combinations_are_in_the_test_split_only():
    plan = ScanPlan(8, True, RULES)
    for split in ("train", "val"):
        for scan in scans(plan, split):
            assert not any(rule.matches(scan.facts) for rule in RULES)
            assert scan.held_out == ""
    tested = scans(plan, "test", cases=10)
    held = [scan for scan in tested if scan.held_out]
    assert len(held) == 20  # a quarter
    assert {scan.held_out for scan in held} == {rule.text for rule in RULES}
    for scan in tested:
        assert [rule.text for rule in RULES if rule.matches(scan.facts)] == ([scan.held_out] if scan.held_out else [])


def test_the_neighbours_of_a_held_out_combination_are_trained():
    trained = [scan.facts for scan in scans(ScanPlan(8, True, RULES), cases=60)]
    for rule in ("T1+contrast+fat_suppressed+3T", "T1+contrast+1.5T", "T1+fat_suppressed+1.5T", "T2+te=70..90"):
        assert any(HoldOut.parse(rule).matches(facts) for facts in trained), rule


def test_a_protocol_held_out_as_a_whole_is_replaced_by_others():
    drawn = ScanPlan(6, hold_out=(HoldOut.parse("PD"),)).draw(0, "train", 0)
    assert len(drawn) == 6
    assert "PD" not in {scan.kind for scan in drawn}


@pytest.mark.parametrize(
    ("plan", "code"),
    [((0,), "MX-USE-191"), ((101,), "MX-USE-191"), ((4, False, ("CT",)), "MX-USE-193"),
     ((4, False, ("T2+contrast",)), "MX-USE-193"), ((4, False, ("brain",)), "MX-USE-193")],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(plan, code):
    rules = tuple(HoldOut.parse(text) for text in (plan[2] if len(plan) > 2 else ()))
    with pytest.raises(UsageError) as caught:
        ScanPlan(*plan[:2], hold_out=rules)
    assert caught.value.code == code


def mean(image, subject, tissue):
    return float(image.array[subject.tissues == tissue].mean())


def test_images_show_the_settings(subject):
    plain = next(s for s in scans(ScanPlan(6)) if s.kind == "T1 spin echo" and not s.settings.fat_suppressed)
    quiet = replace(plain.settings, noise=0.0, bias_field=0.0)
    suppressed = replace(plain, settings=replace(quiet, fat_suppressed=True))
    images = [render_scan(subject, replace(plain, settings=s), 1) for s in (quiet, suppressed.settings)]
    fat = [mean(image, subject, Tissue.FAT) / mean(image, subject, Tissue.WHITE_MATTER) for image in images]
    assert fat[1] < 0.5 * fat[0]


def test_scans_with_one_setting_but_different_numbers_differ_by_their_noise(subject):
    scan = ScanPlan(1).draw(0, "train", 0)[0]
    first, again, second = (render_scan(subject, scan, n).array for n in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_less_charge_makes_a_noisier_ct(subject):
    ct = next(scan for scan in ScanPlan(6, with_ct=True).draw(0, "train", 0) if scan.kind == "CT")
    low, high = (
        float(render_scan(subject, replace(ct, settings=CTAcquisition(tube_current_ma=ma)), 1).array[:2, :2].std())
        for ma in (100.0, 400.0)
    )
    assert CTAcquisition().noise_hu == pytest.approx(3.0)
    assert CTAcquisition(80.0).noise_hu > CTAcquisition(140.0).noise_hu
    assert low > high


def test_a_cohort_of_scans_has_a_row_for_each_scan(tmp_path):
    plan = CohortPlan(
        cases=3, shape=SMALL, splits=(1, 1, 1), scans=ScanPlan(4, True, RULES), brain_only=True, write_mask=True
    )
    list(write_cohort(plan, tmp_path / "scans"))
    assert not (tmp_path / "scans" / "cases.csv").exists()
    with (tmp_path / "scans" / "scans.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["case", "patient", "split", "image", "seg", "mask", "facts", "held_out"]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert [bool(row["held_out"]) for row in rows] == [False] * 8 + [True] + [False] * 3
    for row in rows:
        facts = Acquisition.from_dict(json.loads(row["facts"]))
        assert facts.plane is None
        assert facts.preprocessing == ("skull removed",)
        volume, mask = (read_volume(tmp_path / "scans" / row[name]) for name in ("image", "mask"))
        assert volume.array.shape == SMALL
        air = -1000.0 if facts.modality == "CT" else 0.0
        assert (volume.array[mask.array == 0] == air).all()
    record = json.loads((tmp_path / "scans" / "phantom.json").read_text())
    assert record["hold_out"] == [rule.text for rule in RULES]
    assert record["cases"][2]["scans"][0]["facts"] == json.loads(rows[8]["facts"])
