"""``medxlate describe`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.cli import main
from MedXlateCore.errors import InputError
from MedXlateCore.io import write_volume
from MedXlateCore.prompts.acquisition_text import parse
from MedXlateCore.prompts.facts import facts_of
from MedXlateCore.volume import Geometry, Modality, Volume

SIDECAR = {
    "Modality": "MR", "MagneticFieldStrength": 3, "ManufacturersModelName": "Skyra", "EchoTime": 0.00252,
    "RepetitionTime": 1.9, "InversionTime": 0.9, "FlipAngle": 9, "ScanningSequence": "GR_IR", "ScanOptions": ["FS"],
    "SequenceVariant": "SP_MP", "BodyPartExamined": "BRAIN", "ReceiveCoilName": "HeadNeck_20",
    "PatientName": "Doe^Jane", "InstitutionName": "Somewhere", "AcquisitionTime": "10:11:12",
}  # fmt: skip


def image(path: Path, sidecar: object = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = Geometry((4, 4, 4), np.eye(4))
    write_volume(Volume(np.zeros((4, 4, 4), np.float32), grid, Modality.T1), path)
    if sidecar is not None:
        (path.parent / (path.name.removesuffix(".nii.gz") + ".json")).write_text(json.dumps(sidecar))
    return path


def test_facts_and_sentence_are_printed(tmp_path, capsys):
    path = image(tmp_path / "sub-01_ce-gadolinium_T1w.nii.gz", SIDECAR)
    assert main(["describe", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}\n  modality: MR\n  sequence: T1\n  organ: brain\n  contrast_agent: true\n")
    assert "  repetition_time_ms: 1900\n" in printed
    assert "T1-weighted MR image of the brain. Contrast-enhanced. Acquired on a Skyra scanner at 3.0 T." in printed


def test_nothing_that_identifies_is_printed(tmp_path, capsys):
    main(["describe", str(image(tmp_path / "sub-01_T1w.nii.gz", SIDECAR)), "--json"])
    printed = capsys.readouterr().out
    assert not any(secret in printed for secret in ("Doe", "Somewhere", "10:11"))


def test_json_holds_facts_and_a_sentence_that_can_be_read_back(tmp_path, capsys):
    path = image(tmp_path / "sub-01_T2w.nii.gz", {"EchoTime": 0.095})
    assert main(["describe", str(path), "--json", "--plane", "axial", "--short"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["image"] == str(path)
    assert entry["facts"] == {"modality": "MR", "sequence": "T2", "echo_time_ms": 95.0}
    assert parse(entry["text"]).facts == Acquisition(modality="MR", sequence="T2", plane="axial")


def test_every_image_of_a_folder_of_which_something_is_known_is_described(tmp_path, capsys):
    image(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    image(tmp_path / "sub-01" / "ct" / "sub-01_ct.nii.gz", {"KVP": 120, "XRayTubeCurrent": 200})
    image(tmp_path / "mystery.nii.gz")
    assert main(["describe", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "T1-weighted MR image." in printed
    assert "CT image. X-ray tube at 120 kV with 200 mA." in printed
    assert "mystery" not in printed


def test_one_image_is_asked_for_where_a_folder_has_several(tmp_path):
    image(tmp_path / "sub-01_T1w.nii.gz")
    assert facts_of(tmp_path) == Acquisition(modality="MR", sequence="T1")
    image(tmp_path / "sub-01_T2w.nii.gz")
    with pytest.raises(InputError, match="MX-TXT-021"):
        facts_of(tmp_path)


def test_values_that_cannot_be_are_left_out(tmp_path):
    odd = {"EchoTime": "short", "FlipAngle": 9000, "MagneticFieldStrength": True, "ScanOptions": [None, "fs"],
           "RepetitionTime": None, "ManufacturersModelName": " "}  # fmt: skip
    assert facts_of(image(tmp_path / "x.nii.gz", odd)) == Acquisition(scan_options=("FS",))


def test_a_text_is_said_back_with_what_was_not_understood(capsys):
    assert main(["describe", "--text", "fancy T1 after gadolinium at 3T"]) == 0
    printed = capsys.readouterr().out
    assert "T1-weighted MR image. Contrast-enhanced. Acquired at 3.0 T." in printed
    assert "MX-TXT-010: not understood: 'fancy'" in printed


@pytest.mark.parametrize(
    ("name", "sidecar", "code"),
    [("mystery.nii.gz", None, "MX-TXT-020"), ("mystery.nii.gz", [], "MX-TXT-020"),
     ("absent.nii.gz", None, "MX-FIL-001"), ("absent", None, "MX-FIL-001"), ("x.nii.gz", "{", "MX-FIL-")],
)  # fmt: skip
def test_files_of_which_nothing_is_known_exit_with_3(tmp_path, capsys, name, sidecar, code):
    path = tmp_path / name
    if not name.startswith("absent"):
        image(path, sidecar)
    if sidecar == "{":
        (tmp_path / "x.json").write_text("{")
    assert main(["describe", str(path)]) == 3
    assert capsys.readouterr().err.startswith(code)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], "MX-USE-001"), (["--text", "T1 and T2"], "MX-TXT-004"), (["--text", ""], "MX-TXT-001"),
     (["x.nii.gz", "--text", "T1"], "MX-USE-001")],
)  # fmt: skip
def test_wrong_options_and_texts_exit_with_2(capsys, arguments, code):
    assert main(["describe", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == code
