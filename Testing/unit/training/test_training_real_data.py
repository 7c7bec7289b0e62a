"""Real volumes become training data: brain tumours, single slices, MR to CT on different grids."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedXlateCore.training.config import TrainingConfig, load_config
from MedXlateCore.training.data import SliceData, output_scale, prepare_data

TABLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "cases.csv"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not TABLE.exists(), reason=f"the real volumes are not there ({TABLE.parent})"),
]


def config(*overrides: str, preset: str = "tlp-tiny") -> TrainingConfig:
    return load_config(preset=preset, table=TABLE, overrides=overrides)


def test_single_slices_of_tumours_become_training_data(tmp_path: Path):
    settings = config(
        "data.where={ group = 'brain-tumour-2d' }",
        "data.labels={ oedema = [4], core = [5, 6, 7] }",
        "data.ignored_labels=[1, 2, 3]",
    )
    prepared = prepare_data(settings, tmp_path)
    assert all(case.images.shape[0] == 1 for case in prepared.train)
    assert len(SliceData(prepared.train)) == len(prepared.train) == 4
    assert all(case.masks[:, :2].any() for case in prepared.train)


def test_the_published_crop_fits_its_grid(tmp_path: Path):
    prepared = prepare_data(config("data.where={ group = 'brain-tumour' }", preset="tlp-code"), tmp_path)
    assert {case.images.shape for case in prepared.train} == {(155, 3, 192, 160)}
    assert len(SliceData(prepared.train, (27, 127))) == 200
    assert all(case.grid.spacing_mm == pytest.approx((1, 1, 1)) for case in prepared.train)


def test_ct_on_another_grid_is_brought_to_the_mr_and_keeps_its_unit(tmp_path: Path):
    settings = config(
        "data.where={ group = 'limb-sarcoma' }",
        "data.sources=['T1']",
        "model.config.inputs=1",
        "data.target=CT",
        "intensity.CT={ kind = 'window', low = -1000, high = 2000 }",
    )
    prepared = prepare_data(settings, tmp_path)
    assert (len(prepared.train), len(prepared.val)) == (10, 2)
    assert output_scale(prepared.train, "T1", "CT") == {"kind": "absolute", "low": -1000.0, "high": 2000.0}
