"""The starter model that comes with MedXlate, on phantoms that no training saw: small, described, better than nothing.

These are the only tests that need the trained package; without it they fail, as the program without it would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from MedXlateCore.demo import sham_label_map
from MedXlateCore.models.catalogue import bundled_models_folder
from MedXlateCore.models.package import load_package
from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.pipeline import translate
from MedXlateCore.volume import Modality

pytestmark = pytest.mark.xdist_group("starter")  # one worker: what they share is made once

MAX_BYTES = 8 * 10**6
SEEDS = (7_100_003, 7_100_008)  # `medxlate phantom` draws from the first 100,000 of each million: in no cohort
SPACING_MM = (2.0, 2.0, 9.0)


@dataclass(frozen=True)
class Case:
    """An unseen head and what the model made of it; arrays [I, J, K]."""

    t1: np.ndarray
    truth: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray
    sham: np.ndarray
    made: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def starter():
    return load_package("starter", [bundled_models_folder()])


@pytest.fixture(scope="module")
def cases(starter):
    return [make_case(starter, seed) for seed in SEEDS]


def make_case(model, seed):
    subject = build_subject(seed, spacing_mm=SPACING_MM, lesion_count=1)
    images = render_subject(subject, (Modality.T1, Modality.T2, Modality.T1CE))
    region = subject.label_volume()
    sham = sham_label_map(region, images[Modality.T1])
    sources = [images[Modality.T1], images[Modality.T2]]
    made = {
        name: translate(sources, model, roi=roi, device="cpu").run().array
        for name, roi in {"none": None, "given": region, "sham": sham}.items()
    }
    truth = images[Modality.T1CE].array
    return Case(sources[0].array, truth, subject.brain_mask, region.array > 0, sham.array > 0, made)


def mae(image, case):
    """Return the mean absolute error inside the brain, at the image's best factor: MR has no unit (decision 1)."""
    image, truth = (array[case.brain].astype(np.float64) for array in (image, case.truth))
    return float(np.abs(float(image @ truth / (image @ image)) * image - truth).mean())


def test_the_package_is_small(starter):
    assert sum(path.stat().st_size for path in starter.path.iterdir()) < MAX_BYTES


def test_the_card_is_complete(starter):
    card = starter.card
    assert (card.name, card.method, card.prompts) == ("starter", "tlp", "region")
    assert (card.sources, card.targets) == (("T1", "T2"), ("T1ce",))
    assert card.licence == "Apache-2.0"
    assert card.citation
    assert "not for diagnosis" in card.intended_use
    assert "diagnosis" in card.not_for
    assert "phantom" in card.training["data"].lower()
    assert card.training["train"]["cases"] > card.training["validation"]["cases"] > 0
    assert card.training["steps"] > 0
    assert card.metrics["figures"]
    assert card.metrics["baselines"]
    assert card.output["T1ce"]["kind"] == "relative"


def test_it_beats_the_identity_inside_the_brain_even_if_that_is_allowed_its_best_scale(cases):
    model = np.mean([mae(case.made["none"], case) for case in cases])
    assert model < np.mean([mae(case.t1, case) for case in cases])


def test_the_region_given_does_not_make_the_lesion_worse(cases):
    errors = {
        name: np.mean([np.abs(case.made[name] - case.truth)[case.lesion].mean() for case in cases])
        for name in ("none", "given")
    }
    assert errors["given"] <= errors["none"]


def test_a_sham_region_changes_healthy_tissue_less_than_the_true_region_changes_the_lesion(cases):
    for case in cases:
        assert case.lesion.any()
        assert not (case.sham & case.lesion).any()
    changes = {
        name: np.mean([np.abs(case.made[name] - case.made["none"])[getattr(case, area)].mean() for case in cases])
        for name, area in (("given", "lesion"), ("sham", "sham"))
    }
    assert changes["sham"] < changes["given"]
