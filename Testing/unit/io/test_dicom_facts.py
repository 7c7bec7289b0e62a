"""Facts from DICOM attributes and from BIDS sidecars: units, codes, what is left out."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from MedXlateCore.io.bids import facts_from_sidecar
from MedXlateCore.io.dicom_facts import facts_of_frame, plane_of


def facts(**tags):
    dataset = Dataset()
    for keyword, value in ({"Modality": "MR"} | tags).items():
        setattr(dataset, keyword, value)
    return facts_of_frame(dataset, 0, "a series").acquisition


def item(**tags) -> Sequence:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def test_times_angles_and_codes_are_taken_as_they_are():
    found = facts(
        ScanningSequence=["SE", "IR"], SequenceVariant=["SK", "SP"], ScanOptions="FS", EchoTime=120.0,
        RepetitionTime=9000.0, InversionTime=2500.0, FlipAngle=150.0, ReceiveCoilName="HEAD_20",
        BodyPartExamined="BRAIN", ManufacturerModelName="Prisma", MagneticFieldStrength=3.0,
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )  # fmt: skip
    assert found.known() == {
        "modality": "MR", "sequence": "FLAIR", "organ": "brain", "plane": "axial", "scanner_model": "Prisma",
        "field_strength_t": 3.0, "coil": "HEAD_20", "scanning_sequence": ("SE", "IR"), "sequence_variant": ("SK", "SP"),
        "scan_options": ("FS",), "flip_angle_deg": 150.0, "echo_time_ms": 120.0, "repetition_time_ms": 9000.0,
        "inversion_time_ms": 2500.0,
    }  # fmt: skip
    assert found.fat_suppressed


def test_gauss_become_tesla_and_zero_times_are_unknown():
    assert facts(MagneticFieldStrength=15000).field_strength_t == 1.5
    assert facts(InversionTime=0, EchoTime=0).known() == {"modality": "MR"}


@pytest.mark.parametrize(
    ("agent", "expected"), [("GADOVIST", True), ("NONE", False), ("no", False), ("", None), (None, None)]
)
def test_a_contrast_agent_is_given_not_given_or_not_known(agent, expected):
    assert facts(**({} if agent is None else {"ContrastBolusAgent": agent})).contrast_agent is expected


def test_enhanced_objects_say_the_same_facts_in_their_own_places():
    found = facts(
        EchoPulseSequence="GRADIENT", InversionRecovery="YES", Spoiling="RF", SteadyStatePulseSequence="NONE",
        SharedFunctionalGroupsSequence=item(
            MREchoSequence=item(EffectiveEchoTime=3.0),
            MRTimingAndRelatedParametersSequence=item(RepetitionTime=8.0, FlipAngle=9.0),
            MRModifierSequence=item(InversionTimes=[900.0], SpectrallySelectedSuppression="FAT"),
            MRReceiveCoilSequence=item(ReceiveCoilName="HEAD"),
        ),
    )  # fmt: skip
    assert found.sequence == "T1"
    assert found.scanning_sequence == ("GR", "IR")
    assert found.sequence_variant == ("SP",)
    assert (found.echo_time_ms, found.repetition_time_ms, found.inversion_time_ms) == (3.0, 8.0, 900.0)
    assert found.fat_suppressed
    assert found.coil == "HEAD"


def test_a_stated_contrast_is_believed_and_a_map_is_no_sequence():
    stated = item(MRImageFrameTypeSequence=item(AcquisitionContrast="PROTON_DENSITY", FrameType=["ORIGINAL"]))
    assert facts(SharedFunctionalGroupsSequence=stated).sequence == "PD"
    kind = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    assert facts(ImageType=kind, EchoTime=60.0, RepetitionTime=4000.0).sequence == "ADC"


def test_ct_and_pet_have_their_own_facts():
    ct = facts(Modality="CT", KVP=120, XRayTubeCurrent=200, ExposureTime=500, EchoTime=5.0)
    assert (ct.tube_voltage_kv, ct.tube_current_ma, ct.exposure_time_ms, ct.echo_time_ms) == (120, 200, 500, None)
    drug = item(Radiopharmaceutical="FDG -- fluorodeoxyglucose")
    assert facts(Modality="PT", RadiopharmaceuticalInformationSequence=drug).sequence == "FDG"


def test_what_cannot_be_is_left_out_and_said():
    dataset = Dataset()
    dataset.Modality, dataset.FlipAngle, dataset.EchoTime, dataset.RepetitionTime = "MR", 900.0, 80.0, 20.0
    found = facts_of_frame(dataset, 0, "a series")
    assert found.acquisition.known() == {"modality": "MR"}
    assert [note.code for note in found.notes] == ["MX-DCM-111"] * 2


def test_a_description_is_no_fact_where_parameters_speak_and_only_named_apart_where_they_do_not():
    dataset = Dataset()
    dataset.Modality, dataset.SeriesDescription = "MR", "T2 of somebody"
    found = facts_of_frame(dataset, 0, "a series")
    assert found.acquisition.sequence is None
    assert found.described == "T2"
    assert facts(ScanningSequence="SE", EchoTime=10.0, RepetitionTime=500.0, SeriesDescription="T2").sequence == "T1"


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        ((1, 0, 0, 0, 1, 0), "axial"), ((1, 0, 0, 0, 0, -1), "coronal"), ((0, 1, 0, 0, 0, -1), "sagittal"),
        ((1, 0, 0, 0, 0.9, -0.436), "axial"), ((1, 0, 0, 1, 0, 0), None), ((1, 0, 0), None), (None, None),
    ],
)  # fmt: skip
def test_the_plane_is_the_nearest_one(orientation, plane):
    assert plane_of(orientation) == plane


# --- BIDS ----------------------------------------------------------------------------------------------------------


def test_a_bids_sidecar_gives_milliseconds():
    found, notes = facts_from_sidecar(
        {
            "Modality": "MR", "EchoTime": 0.1, "RepetitionTime": 9, "InversionTime": 2.5, "FlipAngle": 150,
            "MagneticFieldStrength": 3, "ManufacturersModelName": "Prisma", "BodyPartExamined": "BRAIN",
            "ScanningSequence": "SE_IR", "SequenceVariant": "SK\\SP", "ScanOptions": ["PFP", "FS"],
            "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0], "ReceiveCoilName": "HEAD",
            "InstitutionName": "Clinic X", "SeriesDescription": "Mrs Famous",
        }
    )  # fmt: skip
    assert (found.echo_time_ms, found.repetition_time_ms, found.inversion_time_ms) == (100, 9000, 2500)
    assert found.sequence == "FLAIR"
    assert found.plane == "axial"
    assert found.scanning_sequence == ("SE", "IR")
    assert found.sequence_variant == ("SK", "SP")
    assert found.fat_suppressed
    assert notes == ()
    assert "Famous" not in repr(found) and "Clinic" not in repr(found)


def test_the_name_of_a_bids_file_says_weighting_and_contrast_agent():
    found, _ = facts_from_sidecar({"Modality": "MR"}, "sub-01_ce-gadolinium_T1w.nii.gz")
    assert (found.sequence, found.contrast_agent) == ("T1", True)
    assert facts_from_sidecar({}, "sub-01_FLAIR.nii.gz")[0].sequence == "FLAIR"
    assert facts_from_sidecar({}, "anything.nii.gz")[0].known() == {}


def test_impossible_values_and_wrong_types_in_a_sidecar_are_left_out():
    found, notes = facts_from_sidecar(
        {"EchoTime": "soon", "FlipAngle": -5, "ScanOptions": 7, "ManufacturersModelName": ["x"], "RepetitionTime": True}
    )
    assert found.known() == {}
    assert [note.code for note in notes] == ["MX-DCM-111"]
