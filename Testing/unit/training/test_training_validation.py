"""Validation: three conditions, baselines, averages over patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from MedXlateCore.errors import InputError
from MedXlateCore.training.cache import PreparedCase
from MedXlateCore.training.config import TrainingConfig
from MedXlateCore.training.data import prepare_data
from MedXlateCore.training.validation import Predictor, ValidationResult, baselines, validate_case


class Paint(nn.Module):
    """Returns the first source, brightened by ``gain`` x prompt."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.passes = 0

    def forward(self, images: Tensor, roi: Tensor) -> Tensor:
        self.passes += len(images)
        return images[:, :1] + self.gain * roi


@pytest.fixture(scope="module")
def case(configure: Callable[..., TrainingConfig], shared_cache: Path) -> PreparedCase:
    return prepare_data(configure(), shared_cache).val[0]


def predictor(network: nn.Module, **changes: object) -> Predictor:
    return Predictor(network, torch.device("cpu"), **changes)  # type: ignore[arg-type]


def test_a_network_that_ignores_prompts_scores_the_same_under_all_conditions(case: PreparedCase):
    figures = validate_case(predictor(Paint(0.0)), case).figures
    assert figures["none.mae"] == figures["given.mae"] == figures["sham.mae"] > 0
    assert figures["sham.change"] == 0


def test_a_network_that_paints_what_it_is_told_is_caught_by_the_sham_prompt(case: PreparedCase):
    result = validate_case(predictor(Paint(0.4)), case)
    inside = result.prompts["sham"] > 0
    expected = 0.4 * result.prompts["sham"][inside].mean() / 2  # [-1, 1] to [0, 1]
    assert result.figures["sham.change"] == pytest.approx(expected, rel=1e-5)
    assert result.figures["sham.mae"] > result.figures["none.mae"]


def test_figures_are_those_of_the_definition(case: PreparedCase):
    figures = validate_case(predictor(Paint(0.0)), case).figures
    slices = list(case.slices)
    difference = (case.images[slices, 0].astype(np.float64) - case.images[slices, 2]) / 2
    inside = case.masks[slices, 2] > 0
    assert figures["none.mae"] == pytest.approx(np.abs(difference[inside]).mean(), rel=1e-6)
    assert figures["none.psnr"] == pytest.approx(-10 * np.log10(np.square(difference[inside]).mean()), rel=1e-6)
    lesion = case.masks[slices, :2].any(axis=1)
    assert figures["none.lesion_mae"] == pytest.approx(np.abs(difference[lesion]).mean(), rel=1e-6)


def test_the_sham_region_lies_in_healthy_tissue_and_is_the_same_every_time(case: PreparedCase):
    first, second = (validate_case(predictor(Paint(0.1)), case).prompts["sham"] for _ in range(2))
    assert np.array_equal(first, second)
    lesion = case.masks[:, :2].any(axis=1)
    assert first.any()
    assert not (first[lesion] > 0).any()
    assert not (first[case.masks[:, 2] == 0] > 0).any()


def test_prompts_are_computed_only_where_there_are_any(case: PreparedCase):
    network = Paint(0.1)
    result = validate_case(predictor(network), case)
    prompted = sum(int((prompt.any(axis=(1, 2))).sum()) for prompt in result.prompts.values())
    assert network.passes == len(case.slices) + prompted


def test_a_case_without_annotation_gets_sham_prompts_but_no_given_ones(case: PreparedCase, tmp_path: Path):
    import dataclasses

    masks = np.array(case.masks)
    masks[:, :2] = 0
    np.save(tmp_path / "masks.npy", masks)
    bare = dataclasses.replace(case, paths=(case.paths[0], tmp_path / "masks.npy"))
    result = validate_case(predictor(Paint(0.3)), bare)
    assert set(result.predictions) == {"none", "sham"}
    assert result.figures["sham.change"] > 0
    assert result.score == result.figures["none.mae"]
    assert "none.lesion_mae" not in result.figures


def test_a_network_without_prompts_is_measured_without(case: PreparedCase):
    result = validate_case(predictor(Paint(0.0), encoding=None), case)
    assert set(result.predictions) == {"none"}


def test_a_window_of_slices_limits_what_is_measured(case: PreparedCase):
    result = validate_case(predictor(Paint(0.0)), case, (2, 4))
    assert np.all(result.predictions["none"][[0, 1, 4, 5]] == -1)


def test_the_score_is_the_mean_of_both_conditions(case: PreparedCase):
    result = validate_case(predictor(Paint(0.2)), case)
    assert result.score == pytest.approx((result.figures["none.mae"] + result.figures["given.mae"]) / 2)


def test_output_that_is_not_finite_is_refused(case: PreparedCase):
    with pytest.raises(InputError) as caught:
        validate_case(predictor(Paint(float("nan"))), case)
    assert caught.value.code == "MX-TRN-007"


def test_baselines_are_the_first_source_and_the_mean_image(case: PreparedCase):
    mean = np.full((40, 40), 0.25, dtype=np.float32)  # larger than the case: its middle is used
    ((_, figures),) = baselines([case], mean)
    assert figures["identity.mae"] == validate_case(predictor(Paint(0.0)), case).figures["none.mae"]
    slices = list(case.slices)
    inside = case.masks[slices, 2] > 0
    expected = np.abs(0.25 - case.images[slices, 2].astype(np.float64))[inside].mean() / 2
    assert figures["mean.mae"] == pytest.approx(expected, rel=1e-6)


def test_patients_count_once_however_many_cases_they_have():
    result = ValidationResult()
    for patient, error in (("p", 1.0), ("p", 3.0), ("q", 4.0), ("r", None)):
        result.add(patient, {"mae": error}, error)
    assert result.score == pytest.approx(3.0)
    summary = result.summaries()["mae"]
    assert (summary.mean, summary.count, summary.missing) == (pytest.approx(3.0), 2, 1)


def test_a_latent_model_is_measured_against_its_own_ceiling(case: PreparedCase):
    class Latent(nn.Module):
        def forward(self, images: Tensor, roi: Tensor) -> Tensor:
            return images[:, :1] * 0

        def reconstruct(self, images: Tensor) -> Tensor:
            return images * 0.5

    network = Latent().train()
    figures = validate_case(predictor(network, encoding=None), case).figures
    inside = case.masks[list(case.slices), 2] > 0
    truth = case.images[list(case.slices), -1][inside]
    assert figures["ceiling.mae"] == pytest.approx(np.abs(truth).mean() / 4, rel=1e-5)  # half the way, on [0, 1]
    assert network.training
