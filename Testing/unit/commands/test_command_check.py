"""``medxlate check``: a list for a folder of several volumes, facts and warnings for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_made import write_series

from MedXlateCore.cli import main

AXIAL = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 5, -20], [0, 0, 0, 1]])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 900, (12, 10, 4)).astype(np.int16)
    write_series(tmp_path / "s" / "a", array, AXIAL, SeriesDescription="Mrs Famous")
    write_series(
        tmp_path / "s" / "b", array, AXIAL, series="1.2.3.2", SeriesNumber=7, EchoTime=100.0, RepetitionTime=4000.0
    )
    (tmp_path / "s" / "note.txt").write_text("x")
    return tmp_path / "s"


def test_a_folder_of_several_volumes_is_listed_without_a_name_of_anyone(study: Path, capsys):
    assert main(["check", str(study)]) == 0
    out = capsys.readouterr().out
    first, second = out.splitlines()[1:3]
    assert first.split()[1:5] == ["1", "MR", "T1", "axial"]
    assert second.split()[1:5] == ["7", "MR", "T2", "axial"]
    assert "12 x 10 x 4" in first and "2 x 1.5 x 5" in first
    assert "2 volumes" in out
    assert "MX-DCM-101" in out
    assert "Famous" not in out and "7777" not in out and "1.2.3.2" not in out


def test_a_listed_name_shows_the_facts_of_that_volume(study: Path, capsys):
    main(["check", str(study)])
    name = capsys.readouterr().out.splitlines()[2].split()[0]
    assert main(["check", f"{study}#{name}"]) == 0
    out = capsys.readouterr().out
    assert "echo_time_ms: 100.0" in out
    assert "sequence: T2" in out


def test_a_role_chooses_and_a_contradiction_is_a_warning(study: Path, capsys):
    assert main(["check", str(study), "--role", "T1"]) == 0
    assert "echo_time_ms: 12.0" in capsys.readouterr().out
    assert main(["check", str(study / "b"), "--role", "T1"]) == 0
    assert "warning: MX-DCM-113" in capsys.readouterr().out


def test_any_volume_file_is_looked_over(tmp_path: Path, capsys, patient_files):
    assert main(["check", str(patient_files["T1"]), "--role", "T1"]) == 0
    out = capsys.readouterr().out
    assert "24 x 28 x 10 voxels of 8 x 8 x 12 mm" in out
    assert "no remarks" in out


def test_a_series_that_cannot_be_read_is_listed_with_its_reason(study: Path, capsys):
    sorted((study / "a").iterdir())[1].unlink()
    assert main(["check", str(study)]) == 0
    assert "MX-DCM-012: 1 of 4 slices are missing" in capsys.readouterr().out
