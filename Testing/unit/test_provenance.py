"""What a run record says of inputs and software."""

from __future__ import annotations

import sys
import types
from importlib import metadata

import numpy as np

from MedXlateCore import __version__, provenance
from MedXlateCore.errors import Warned
from MedXlateCore.provenance import describe_volume, software_versions, warnings_as_dicts
from MedXlateCore.volume import Geometry, Modality, Source, Volume


def test_versions_of_loaded_packages_are_named_and_no_others(monkeypatch):
    monkeypatch.delitem(sys.modules, "SimpleITK", raising=False)
    versions = software_versions()
    assert versions["medxlate"] == __version__
    assert versions["numpy"] == np.__version__
    assert "SimpleITK" not in versions


def test_a_package_without_metadata_as_in_3d_slicer_is_named_by_its_own_version(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(provenance.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "SimpleITK", types.SimpleNamespace(__version__="2.5.slicer"))
    monkeypatch.setitem(sys.modules, "nibabel", types.SimpleNamespace())
    versions = software_versions()
    assert (versions["SimpleITK"], versions["nibabel"]) == ("2.5.slicer", "unknown")


def test_a_volume_is_described_without_its_folder(tmp_path):
    geometry = Geometry((4, 5, 6), np.diag([-1.0, -2.0, 3.0000000004, 1.0]))
    source = Source("t1.nii.gz", tmp_path / "t1.nii.gz", "ab" * 32)
    facts = describe_volume(Volume(np.zeros((4, 5, 6)), geometry, Modality.T1, source))
    assert facts == {
        "role": "T1", "name": "t1.nii.gz", "sha256": "ab" * 32, "shape": [4, 5, 6], "spacing_mm": [1.0, 2.0, 3.0],
        "synthetic": False,
    }  # fmt: skip


def test_warnings_are_listed_once_in_order():
    first, second = Warned("MX-IMG-010", "a"), Warned("MX-IMG-002", "b")
    assert [w["code"] for w in warnings_as_dicts([first, second, first])] == ["MX-IMG-010", "MX-IMG-002"]
