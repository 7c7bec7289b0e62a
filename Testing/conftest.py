"""Fixtures for all tests: a tiny untrained model package and small patients made of numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny_card, make_tiny_network

from MedXlateCore.volume import Geometry, Modality, Source, Volume

# torch and what needs it are imported inside the fixtures: most tests do without

STUBS = Path(__file__).resolve().parent / "stubs"
AXIAL = Geometry((24, 28, 10), np.array([[-8.0, 0, 0, 92], [0, -8, 0, 100], [0, 0, 12, -50], [0, 0, 0, 1]]))


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny untrained package; nobody changes it."""
    from MedXlateCore.models.package import save_package

    folder = tmp_path_factory.mktemp("packages") / "tiny"
    save_package(folder, make_tiny_card(), make_tiny_network())
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_package: Path):
    """Return the tiny package, loaded; nobody changes it."""
    from MedXlateCore.models.package import load_package

    return load_package(tiny_package)


@pytest.fixture
def drawing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a package whose method draws samples; workers that start now know the method, too."""
    import importlib

    import MedXlateCore.models
    from MedXlateCore.models import registry
    from MedXlateCore.models.package import save_package

    paths = [str(STUBS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(MedXlateCore.models, "__path__", [*MedXlateCore.models.__path__, str(STUBS / "methods")])
    module = importlib.import_module("MedXlateCore.models.drawing")
    card = make_tiny_card(name="drawing", method="drawing", prompts="none")
    save_package(tmp_path / "drawing", card, module.Drawing())
    yield tmp_path / "drawing"
    registry._METHODS.pop("drawing")
    del sys.modules[module.__name__]


@pytest.fixture(scope="session")
def altered(tiny_model) -> Callable:
    """Return a function that makes the tiny model with another network or other entries in its card."""
    import dataclasses

    def make(network=None, **card):
        return dataclasses.replace(
            tiny_model, network=network or tiny_model.network, card=dataclasses.replace(tiny_model.card, **card)
        )

    return make


@pytest.fixture(scope="session")
def make_patient() -> Callable[..., dict[str, Volume]]:
    """Return a function from a grid and a seed to T1, T2 and a lesion's label map of an egg-shaped head.

    Air is exactly 0, tissue textured; the lesion (core 1, oedema 2) is darker in T1 and brighter in T2.
    """

    def make(geometry: Geometry = AXIAL, seed: int = 0, labels: tuple[int, int] = (1, 2)) -> dict[str, Volume]:
        rng = np.random.default_rng(seed)
        i, j, k = (
            (x - 0.48 * n) / (0.4 * n)
            for x, n in zip(np.indices(geometry.shape, dtype=float), geometry.shape, strict=True)
        )
        head = i**2 + j**2 + k**2 < 1
        distance = np.sqrt((i - 0.3) ** 2 + (j + 0.2) ** 2 + k**2)
        oedema, core = head & (distance < 0.4), head & (distance < 0.22)
        wave = 0.15 * np.cos(5 * i) * np.sin(6 * j) * np.cos(3 * k)
        t1 = head * (600 * (1 + wave - 0.3 * oedema) + rng.normal(0, 15, geometry.shape))
        t2 = head * (450 * (1 - wave + 0.6 * oedema) + rng.normal(0, 15, geometry.shape))
        label_map = np.where(core, labels[0], np.where(oedema, labels[1], 0)).astype(np.uint8)
        return {
            "T1": Volume(t1.astype(np.float32), geometry, Modality.T1, Source("t1.nii.gz", sha256="1" * 64)),
            "T2": Volume(t2.astype(np.float32), geometry, Modality.T2, Source("t2.nii.gz", sha256="2" * 64)),
            "region": Volume(label_map, geometry, Modality.LABEL, Source("region.nii.gz", sha256="3" * 64)),
        }

    return make


@pytest.fixture(scope="session")
def patient(make_patient: Callable[..., dict[str, Volume]]) -> dict[str, Volume]:
    """Return T1, T2 and a region of one patient, 24 x 28 x 10 voxels; nobody changes them."""
    return make_patient()


@pytest.fixture(scope="session")
def patient_files(patient: dict[str, Volume], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the patient as NIfTI files; nobody changes them."""
    from MedXlateCore.io import write_volume

    folder = tmp_path_factory.mktemp("patient")
    for name, volume in patient.items():
        write_volume(volume, folder / f"{name}.nii.gz")
    return {name: folder / f"{name}.nii.gz" for name in patient}
