"""Damaged DICOM files: an error with a code, or a volume; no lost slice without a warning, and never a crash."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from dicom_made import write_enhanced, write_series

from MedXlateCore.errors import MedXlateError
from MedXlateCore.io import read_volume
from MedXlateCore.io.dicom_read import list_stacks

AXIAL = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 5, -20], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)
PREAMBLE = 132


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut the end off, or put random bytes somewhere behind the preamble."""
    spoiled = bytearray(data)
    kind = rng.integers(3)
    if kind == 0:
        for place in rng.integers(PREAMBLE, len(data), rng.integers(1, 8)):
            spoiled[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del spoiled[int(rng.integers(PREAMBLE, len(data))) :]
    else:
        place = int(rng.integers(PREAMBLE, len(data) - 8))
        spoiled[place : place + 8] = rng.integers(0, 256, 8).astype(np.uint8).tobytes()
    return bytes(spoiled)


def try_damages(folder: Path, seed: int, count: int) -> int:
    """Damage one file after the other and read; return how many were refused."""
    array = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    files = write_series(folder / "classic", array, AXIAL)
    files.append(write_enhanced(folder / "enhanced" / "e.dcm", array, AXIAL))
    rng = np.random.default_rng(seed)
    refused = 0
    for n in range(count):
        path = files[-1] if n % 2 else files[int(rng.integers(len(files) - 1))]
        sound = path.read_bytes()
        path.write_bytes(damaged(sound, rng))
        try:
            list_stacks(path.parent)
            volume = read_volume(path.parent, "T1")
            assert volume.array.shape == SHAPE or volume.notes, f"seed {seed}, number {n}"
            assert np.isfinite(volume.array).all()
        except MedXlateError as error:
            assert error.fix
            refused += 1
        path.write_bytes(sound)
    return refused


def test_a_few_damaged_files_are_refused_or_read(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom's remarks quote values, which may be names
        assert try_damages(tmp_path, seed=0, count=30) >= 5


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(1, 11))
def test_five_thousand_damaged_files_are_refused_or_read(tmp_path: Path, seed: int):
    assert try_damages(tmp_path, seed, count=500) > 100
