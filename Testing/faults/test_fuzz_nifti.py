"""Damaged files: an error with a code, or exactly the volume that was written. Nothing else, and never a hang."""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from mutators import MUTATORS, garble_nifti_header, mutate

from MedXlateCore.errors import MedXlateError
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.io.nifti import encode_nifti
from MedXlateCore.volume import Geometry, Volume

COUNT, LONG_COUNT = 1_500, 12_500


def originals() -> list[Volume]:
    """Small volumes of different shapes, number types and contents."""
    rng = np.random.default_rng(7)
    affine = np.array([[-1.0, 0.25, 0, 10], [0.25, 1, 0, -20], [0, 0, 3, 5.5], [0, 0, 0, 1]])
    arrays = [
        rng.normal(100, 30, (9, 8, 7)).astype(np.float32),
        np.zeros((12, 12, 3), np.float32),
        rng.integers(0, 4, (10, 9, 8)).astype(np.float32),
        np.linspace(0, 1, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6),
        rng.normal(0, 1, (33, 3, 20)).astype(np.float32),
    ]
    return [Volume(a, Geometry(a.shape, np.diag([n + 1, 1, 1, 1]) @ affine)) for n, a in enumerate(arrays)]


@lru_cache(maxsize=1)
def packed_nifti() -> list[tuple[Volume, bytes]]:
    """The volumes as gzip files of several levels and kinds (with a name field, in two members, big-endian)."""
    files = []
    for n, volume in enumerate(originals()):
        head = encode_nifti(volume.array, volume.geometry)
        data = head + volume.array.tobytes(order="F")
        files.append((volume, gzip.compress(data, compresslevel=(1, 6, 9)[n % 3], mtime=0)))
    volume = files[0][0]
    data = gzip.decompress(files[0][1])
    files.append((volume, gzip.compress(data[:500], 6, mtime=0) + gzip.compress(data[500:], 1, mtime=0)))
    files.append((volume, gzip.compress(data, 0, mtime=0)))  # stored blocks: the voxels lie in the open
    return files


def same(first: Volume, second: Volume) -> bool:
    return np.array_equal(first.array, second.array) and np.array_equal(
        first.geometry.affine_ras, second.geometry.affine_ras
    )


def survey(folder: Path, count: int, name: str, damage: Callable[[int], tuple[Volume | None, bytes]]) -> Counter[str]:
    """Read ``count`` damaged files; count coded errors, unchanged volumes and others. Any other exception escapes."""
    totals: Counter[str] = Counter()
    path = folder / name
    for seed in range(count):
        original, data = damage(seed)
        path.write_bytes(data)
        try:
            volume = read_volume(path)
        except MedXlateError as error:
            assert error.code.startswith("MX-") and error.found and error.where, f"seed {seed}"
            totals["refused"] += 1
            totals[error.code] += 1
            continue
        assert np.isfinite(volume.geometry.affine_ras).all(), f"seed {seed}"
        totals["unchanged" if original is not None and same(volume, original) else "other"] += 1
    print(dict(totals))
    return totals


def damaged_gzip(seed: int) -> tuple[Volume, bytes]:
    files = packed_nifti()
    original, data = files[(seed // len(MUTATORS)) % len(files)]
    _, damaged = mutate(data, seed, files[(seed // 3) % len(files)][1])
    return original, damaged


def check_gzip(folder: Path, count: int) -> None:
    totals = survey(folder, count, "damaged.nii.gz", damaged_gzip)
    assert totals["other"] == 0  # no silently wrong voxel
    assert totals["refused"] > 0.8 * count
    assert totals["refused"] + totals["unchanged"] == count


def test_1500_damaged_nii_gz_are_refused_or_unchanged(tmp_path: Path) -> None:
    check_gzip(tmp_path, COUNT)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_12500_damaged_nii_gz_are_refused_or_unchanged(tmp_path: Path) -> None:
    check_gzip(tmp_path, LONG_COUNT)


def agrees_with_nibabel(volume: Volume, data: bytes) -> bool:
    """Compare with an independent reader; what it cannot read proves nothing, but must not be common."""
    try:
        image = nib.Nifti1Image.from_bytes(data)
        expected = np.asarray(image.dataobj, dtype=np.float64).astype(np.float32)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, ValueError, OSError):
        return False
    np.testing.assert_array_equal(volume.array.ravel(), expected.ravel())
    if not volume.notes:
        np.testing.assert_array_equal(volume.geometry.affine_ras, image.affine)
    return True


@pytest.mark.parametrize("name", ["garbled.nii", "garbled.nii.gz"])
def test_a_whole_file_with_a_garbled_header_is_refused_or_read_as_nibabel_reads_it(tmp_path: Path, name: str) -> None:
    """A changed header in a whole file is another file; it may be read, to what that header says."""
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    refused = agreed = 0
    for seed in range(COUNT // 2):
        data = garble_nifti_header(gzip.decompress(packed_nifti()[seed % 5][1]), seed)
        (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        try:
            volume = read_volume(tmp_path / name)
        except MedXlateError:
            refused += 1
            continue
        agreed += agrees_with_nibabel(volume, data)
    print({"refused": refused, "agreed": agreed})
    assert refused > 100
    assert refused + agreed > 0.95 * (COUNT // 2)


def test_damaged_uncompressed_nii_never_escape_the_codes(tmp_path: Path) -> None:
    """Without a checksum changed voxels cannot be seen; exceptions and hangs can."""
    files = [(volume, gzip.decompress(data)) for volume, data in packed_nifti()[:5]]

    def damage(seed: int) -> tuple[Volume, bytes]:
        original, data = files[(seed // len(MUTATORS)) % 5]
        return original, mutate(data, seed, files[seed % 5][1])[1]

    survey(tmp_path, COUNT // 2, "damaged.nii", damage)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_damaged_mha_and_nrrd_are_refused_or_read_as_simpleitk_reads_them(tmp_path: Path, suffix: str) -> None:
    """Their headers are text without a checksum: a changed digit is another file, with its own right reading.

    Where SimpleITK gives other voxels, the written ones are right: it ignores that its own inflating failed.
    """
    rng = np.random.default_rng(3)
    files = []
    for shape in ((6, 7, 8), (9, 3, 5)):
        volume = Volume(rng.normal(size=shape).astype(np.float32), Geometry(shape, np.diag([0.5, 2, 3, 1])))
        write_volume(volume, tmp_path / f"whole{suffix}")
        files.append((volume, (tmp_path / f"whole{suffix}").read_bytes()))
    path = tmp_path / f"damaged{suffix}"
    refused = 0
    for seed in range(COUNT // 2):
        original, data = files[(seed // len(MUTATORS)) % 2]
        path.write_bytes(mutate(data, seed, files[seed % 2][1])[1])
        try:
            volume = read_volume(path)
        except MedXlateError:
            refused += 1
            continue
        image = sitk.ReadImage(str(path))
        if not np.array_equal(volume.array, original.array):
            np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).transpose(2, 1, 0), str(seed))
        last = np.array(volume.geometry.shape) - 1
        there = np.array(image.TransformIndexToPhysicalPoint(last.tolist())) * [-1, -1, 1]
        np.testing.assert_allclose((volume.geometry.affine_ras @ [*last, 1])[:3], there, rtol=1e-6, err_msg=str(seed))
    print({"refused": refused, "agreed": COUNT // 2 - refused})
    assert refused > 0.8 * COUNT // 2


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_damage_behind_the_header_of_mha_and_nrrd_is_never_silent(tmp_path: Path, suffix: str) -> None:
    volume = originals()[0]
    write_volume(Volume(volume.array, Geometry(volume.array.shape, np.eye(4))), tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    split = whole.index(b"\n\n") + 2 if suffix == ".nrrd" else whole.index(b"LOCAL\n") + 6
    reference = read_volume(tmp_path / f"whole{suffix}")

    def damage(seed: int) -> tuple[Volume, bytes]:
        return reference, whole[:split] + mutate(whole[split:], seed, whole)[1]

    totals = survey(tmp_path, COUNT // 2, f"damaged{suffix}", damage)
    assert totals["other"] == 0


def test_every_mutation_follows_from_its_seed_and_changes_the_file() -> None:
    data, other = packed_nifti()[0][1], packed_nifti()[1][1]
    names = set()
    for seed in range(100):
        name, damaged = mutate(data, seed, other)
        assert (name, damaged) == mutate(data, seed, other)
        names.add(name)
        assert garble_nifti_header(gzip.decompress(data), seed) == garble_nifti_header(gzip.decompress(data), seed)
    assert names == {m.__name__ for m in MUTATORS}
