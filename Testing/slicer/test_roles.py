"""Which volume is which sequence: by name, by DICOM, with the doubtful left to the user."""

import mrml
import pytest
from MedXlateSlicerLib.bridge import SYNTHETIC_ATTRIBUTE
from MedXlateSlicerLib.roles import detect_roles, role_from_name, role_of

from MedXlateCore.volume import Modality

NAMES = {
    "BraTS-GLI-00001-000-t1c": "T1ce",
    "BraTS-GLI-00001-000-t1n": "T1",
    "BraTS-PED-00030-000-t2f": "FLAIR",
    "BraTS-SSA-00002-000-t2w": "T2",
    "BraTS20_Training_001_t1ce": "T1ce",
    "BraTS20_Training_001_flair": "FLAIR",
    "sub-01_ses-02_T1w": "T1",
    "sub-01_ce-gad_T1w": "T1ce",
    "sub-01_ce-gadolinium_acq-mprage_T1w": "T1ce",
    "sub-01_FLAIR": "FLAIR",
    "sub-01_PDw": "PD",
    "sub-01_T1map": None,
    "AX T2 FLAIR": "FLAIR",
    "T2_SPACE_FLAIR_sag": "FLAIR",
    "T1 FLAIR tra": "T1",
    "Sag T1 MPRAGE": "T1",
    "T1 MPRAGE +C": "T1ce",
    "t1_mprage_sag_p2_iso Gd": "T1ce",
    "Ax T1 post contrast": "T1ce",
    "T1 postcontrast": "T1ce",
    "T1 pre contrast": "T1",
    "T1 without contrast": "T1",
    "T1+C": "T1ce",
    "T1_KM": "T1ce",
    "5: T1W_3D_TFE": "T1",
    "MRHead": None,
    "CTChest": None,
    "CT head": "CT",
    "CBCT": "CBCT",
    "FDG PET": "PET",
    "PET CT fused": None,
    "PD T2 dual echo": None,
    "T2* GRE": None,
    "T2star": None,
    "ADC map of T2": None,
    "T1_seg": None,
    "T1 T2 both": None,
    "": None,
    "ünïcödé": None,
}


@pytest.mark.parametrize(("name", "role"), NAMES.items(), ids=lambda value: str(value) or "nothing")
def test_names_are_read_as_people_give_them(name, role):
    assert role_from_name(name) == (None if role is None else Modality.parse(role))


def test_each_wanted_role_is_found_missing_or_ambiguous(slicer_scene):
    nodes = [mrml.add_volume(slicer_scene, name=name) for name in ("a_T1w", "a_T2w", "b_T2w", "x")]
    roles = detect_roles(nodes, ["T1", Modality.T2, "FLAIR"])
    assert (roles[Modality.T1].state, roles[Modality.T1].node) == ("found", nodes[0])
    assert (roles[Modality.T2].state, roles[Modality.T2].node) == ("ambiguous", None)
    assert roles[Modality.T2].candidates == tuple(nodes[1:3])
    assert (roles[Modality.FLAIR].state, roles[Modality.FLAIR].candidates) == ("missing", ())


def test_results_and_label_maps_are_no_sources(slicer_scene):
    synthetic = mrml.add_volume(slicer_scene, name="SYNTHETIC T1 (starter)")
    synthetic.SetAttribute(SYNTHETIC_ATTRIBUTE, "1")
    labels = mrml.add_volume(slicer_scene, mrml.pattern().astype("uint8"), name="T1", kind="LabelMap")
    assert detect_roles([synthetic, labels], ["T1"])[Modality.T1].state == "missing"


DICOM = {
    "series description": ({"0008,103e": "Ax FLAIR", "0008,0060": "MR"}, "FLAIR"),
    "protocol": ({"0008,103e": "301", "0018,1030": "T2 TSE", "0008,0060": "MR"}, "T2"),
    "agent": ({"0008,103e": "T1 MPRAGE", "0018,0010": "Gadovist", "0008,0060": "MR"}, "T1ce"),
    "no agent": ({"0008,103e": "T1 MPRAGE", "0018,0010": "NONE", "0008,0060": "MR"}, "T1"),
    "ct": ({"0008,103e": "Head 5mm T1 registered", "0008,0060": "CT"}, "CT"),
    "cbct": ({"0008,103e": "CBCT daily", "0008,0060": "CT"}, "CBCT"),
    "pet": ({"0008,103e": "WB", "0008,0060": "PT"}, "PET"),
    "silent": ({}, "PD"),
}


@pytest.mark.parametrize("case", DICOM)
def test_dicom_counts_more_than_the_nodes_name(slicer_scene, case):
    values, role = DICOM[case]
    node = mrml.add_volume(slicer_scene, name="PDw")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")

    class Known:
        def instanceValue(self, uid: str, tag: str) -> str:
            return values.get(tag, "") if uid == "1.2.3" else ""

    assert role_of(node, Known()) == Modality.parse(role)


def test_without_a_database_the_name_decides(slicer_scene):
    node = mrml.add_volume(slicer_scene, name="PDw")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert role_of(node) is Modality.PD
