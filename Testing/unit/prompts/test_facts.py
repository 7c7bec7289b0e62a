"""What a file says about its acquisition becomes a text that leads to the same image as the file's facts."""

from __future__ import annotations

import json

import pytest
from acquisitions import ANY
from hypothesis import assume, given, settings

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import InputError, MedXlateError
from MedXlateCore.inference.wanted import facts_like, wanted_image
from MedXlateCore.prompts import facts as module
from MedXlateCore.prompts.acquisition_text import as_told, parse
from MedXlateCore.prompts.facts import text_like

SIDECAR = {
    "Modality": "MR", "BodyPartExamined": "BRAIN", "EchoTime": 0.0895, "MagneticFieldStrength": 3, "ScanOptions": "FS",
    "ImageOrientationPatientDICOM": [1, 0, 0, 0, 0, -1], "PatientName": "Jane Doe",
}  # fmt: skip
TEXT = "T2-weighted MR image of the brain. Acquired at 3.0 T. Scan options: fat saturation. Echo time 89.5 ms."


def image(path, sidecar=None):
    path.write_bytes(b"voxels")  # the facts lie beside them
    if sidecar is not None:
        path.with_name(f"{path.name.removesuffix('.nii.gz')}.json").write_text(json.dumps(sidecar))
    return path


def asked(model, **how):
    """Return all that voxels depend on, or the code of the error."""
    try:
        wanted = wanted_image(model, **how)
    except MedXlateError as error:
        return error.code
    return wanted.described["sentence"], wanted.modality, wanted.scale_of


def test_a_file_is_told_without_its_plane_and_reads_back(tmp_path, speaking_model):
    path = image(tmp_path / "sub-07_T2w.nii.gz", SIDECAR)
    text, facts = text_like(path), facts_like(path, speaking_model)
    assert text == TEXT
    assert facts.plane == "coronal"
    assert parse(text).facts == as_told(facts).with_facts(plane=None)
    by_text, by_facts = asked(speaking_model, target_text=text), asked(speaking_model, target_like=facts)
    assert by_text == by_facts
    assert by_text[0] == f"{TEXT} Axial plane."


@given(ANY)
@settings(max_examples=30, deadline=None)
def test_any_facts_lead_to_the_same_image_in_words(speaking_model, facts):
    assume(facts != Acquisition())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "facts_of", lambda path: facts)
        text = text_like("scan.nii.gz")
    assert asked(speaking_model, target_text=text) == asked(speaking_model, target_like=facts)


@pytest.mark.parametrize(
    ("name", "sidecar", "code"),
    [("scan.nii.gz", None, "MX-TXT-020"), ("scan.nii.gz", {"Modality": "CT", "EchoTime": 0.09}, "MX-TXT-022"),
     ("scan.nii.gz", "{", "MX-TXT-020"), ("scan.dcm", None, "MX-DCM-004")],
)  # fmt: skip
def test_a_file_that_says_nothing_usable_is_refused_by_its_name(tmp_path, name, sidecar, code):
    path = image(tmp_path / name, sidecar)
    with pytest.raises(InputError, match=code) as caught:
        text_like(path)
    assert name in caught.value.where
    assert caught.value.fix
