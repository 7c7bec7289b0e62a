"""DICOM folders where volume files go: ``translate`` and ``batch`` give the same voxels as from the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from dicom_made import write_series

from MedXlateCore.cli import main
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.volume import Volume

T2_FACTS = {"EchoTime": 100.0, "RepetitionTime": 4000.0, "SeriesNumber": 2}


@pytest.fixture
def study(tmp_path: Path, patient: dict[str, Volume]) -> Path:
    """Return a patient's folder with a T1 and a T2 series, and the same images as NIfTI files beside it."""
    for role, series, facts in (("T1", "1.2.3.1", {}), ("T2", "1.2.3.2", T2_FACTS)):
        volume = patient[role]
        array = np.rint(volume.array).astype(np.int16)
        write_series(tmp_path / "study" / role, array, volume.geometry.affine_ras, series=series, **facts)
        write_volume(volume.with_array(array.astype(np.float32)), tmp_path / f"{role}.nii.gz")
    return tmp_path / "study"


def test_a_translation_from_a_dicom_folder_has_the_voxels_of_one_from_files(study: Path, tiny_package: Path):
    folder = study.parent
    rows = {"dicom": (study, study), "files": (folder / "T1.nii.gz", folder / "T2.nii.gz")}
    for name, (t1, t2) in rows.items():
        line = ["translate", "--model", tiny_package, f"--source=T1={t1}", f"--source=T2={t2}", "--quiet"]
        assert main([str(word) for word in [*line, "--output", folder / f"{name}.nii.gz", "--device", "cpu"]]) == 0
    made = {name: read_volume(folder / f"{name}.nii.gz") for name in rows}
    assert np.array_equal(made["dicom"].array, made["files"].array)
    assert made["dicom"].geometry.allclose(made["files"].geometry, tolerance_mm=1e-4)
    record = json.loads((folder / "dicom.json").read_text())
    assert record["warnings"] == []
    assert [item["name"] for item in record["inputs"]] == ["study", "study"]
    assert record["inputs"][0]["sha256"] != record["inputs"][1]["sha256"]
    text = json.dumps(record)
    assert "Famous" not in text and "7777" not in text and "1.2.3." not in text


def test_a_batch_takes_dicom_folders_and_knows_them_again(study: Path, tiny_package: Path, capsys):
    table = study.parent / "cases.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["case", "T1", "T2"], ["a", "study", "study#1.2.3.2"], ["b", "study", "nowhere"]])
    line = ["batch", "--input", table, "--model", tiny_package, "--output", study.parent / "out", "--device", "cpu"]
    assert main([str(word) for word in line]) == 3
    assert "2 cases: 1 done, 0 skipped, 1 failed" in capsys.readouterr().out
    assert main([str(word) for word in line]) == 3
    assert "2 cases: 0 done, 1 skipped, 1 failed" in capsys.readouterr().out
