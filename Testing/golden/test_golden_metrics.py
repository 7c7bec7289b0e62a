"""Challenge and paper metrics against values computed with the published evaluation code, to 1e-6 relative."""

import json
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.volume import Geometry, Modality, Volume

FOLDER = Path(__file__).parent
EXPECTED = json.loads((FOLDER / "metrics_case3.json").read_text())
RELATIVE = 1e-6


@pytest.fixture(scope="module")
def volumes():
    with np.load(FOLDER / "metrics_case3.npz") as arrays:
        return {name: as_volume(name, arrays[name]) for name in arrays.files}


def as_volume(name, array):
    array = array if array.ndim == 3 else array[..., None]
    modality = {"ct": Modality.CT, "ct_pred": Modality.CT, "mask": Modality.LABEL, "seg": Modality.LABEL}
    return Volume(array, Geometry(array.shape, np.eye(4)), modality.get(name, Modality.OTHER))


def test_synthrad2025_gives_the_evaluators_values(volumes):
    result = evaluate(volumes["ct"], volumes["ct_pred"], "synthrad2025", mask=volumes["mask"])
    assert result.metrics == pytest.approx(EXPECTED["synthrad2025"], rel=RELATIVE)
    assert result.warnings == ()


def test_brasyn_gives_the_evaluators_values(volumes):
    result = evaluate(volumes["mr"], volumes["mr_pred"], "brasyn", regions=volumes["seg"])
    assert result.metrics == pytest.approx(EXPECTED["brasyn"], rel=RELATIVE)


def test_tlp_gives_the_papers_values_on_a_slice(volumes):
    result = evaluate(volumes["tlp_gt_u8"], volumes["tlp_pred_u8"], "tlp")
    expected = {name: value for name, value in EXPECTED["tlp_slice"].items() if name != "slice"}
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, rel=RELATIVE)
    assert all(result.metrics[f"{name}_std"] == 0.0 for name in expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_no_axis_of_the_volumes_is_special(volumes, order):
    turned = {
        name: as_volume(name, volume.array.transpose(order))
        for name, volume in volumes.items()
        if volume.array.shape[2] > 1
    }
    synthrad = evaluate(turned["ct"], turned["ct_pred"], "synthrad2025", mask=turned["mask"])
    brasyn = evaluate(turned["mr"], turned["mr_pred"], "brasyn", regions=turned["seg"])
    assert synthrad.metrics == pytest.approx(EXPECTED["synthrad2025"], rel=RELATIVE)
    assert brasyn.metrics == pytest.approx(EXPECTED["brasyn"], rel=RELATIVE)
