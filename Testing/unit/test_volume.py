"""Geometry and volumes: what cannot be true cannot be built."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.volume import Geometry, Modality, Source, Volume

nan, inf = float("nan"), float("inf")


def error_of(call, *args: object, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert caught.value.found and caught.value.expected and caught.value.fix
    assert "\n" not in caught.value.found
    return caught.value


# --- modalities ---


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("t1n", "T1"), ("T1w", "T1"), ("T1", "T1"), ("MP-RAGE", "T1"),
        ("t1c", "T1ce"), ("T1Gd", "T1ce"), ("T1+C", "T1ce"), ("T1C+", "T1ce"), ("ce-T1w", "T1ce"), ("T1CE", "T1ce"),
        ("t2w", "T2"), ("T2", "T2"), ("t2f", "FLAIR"), ("T2-FLAIR", "FLAIR"), ("flair", "FLAIR"),
        ("PDw", "PD"), ("CT", "CT"), ("cbct", "CBCT"), ("FDG-PET", "PET"),
        ("seg", "label"), ("Mask", "label"), ("other", "other"),
    ],
)  # fmt: skip
def test_the_fields_names_are_understood(text: str, modality: str) -> None:
    assert Modality.parse(text).value == modality


@pytest.mark.parametrize("modality", list(Modality))
def test_every_modality_understands_its_own_name(modality: Modality) -> None:
    for text in (modality.value, modality.value.upper(), modality.value.lower(), f" {modality.value} "):
        assert Modality.parse(text) is modality
    assert Modality.parse(modality) is modality


@pytest.mark.parametrize("text", ["", "t7", "T1T2", "🧠"])
def test_unknown_names_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Modality.parse(text)
    assert caught.value.code == "MX-USE-010" and "FLAIR" in caught.value.expected


def test_units_and_air() -> None:
    assert [m.unit for m in (Modality.T1, Modality.CT, Modality.CBCT, Modality.PET)] == ["arbitrary", "HU", "HU", "SUV"]
    assert [m.air_value for m in (Modality.T1, Modality.CT, Modality.CBCT, Modality.PET)] == [0, -1000, -1000, 0]
    assert {m for m in Modality if m.is_mr} == {Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR, Modality.PD}


# --- geometry ---


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), nan),
        np.diag([1, inf, 1, 1]),
        np.diag([1, 1, 1, 2.0]),
        np.eye(4)[::-1],
        np.eye(3),
        np.ones(16),
    ],
)
def test_an_affine_that_is_none_is_refused(affine: np.ndarray) -> None:
    assert error_of(Geometry, (2, 2, 2), affine).code == "MX-GEO-001"


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([0.0, 1, 1]),
        np.zeros((3, 3)),
        [[1, 1, 0], [0, 0, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 1e-8, 0], [0, 0, 1]],
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    ],
)
def test_axes_without_length_or_direction_of_their_own_are_refused(matrix: object) -> None:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    assert error_of(Geometry, (2, 2, 2), affine).code == "MX-GEO-002"


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, -1, 1), (2, 2), (2, 2, 2, 2), ()])
def test_a_shape_that_is_none_is_refused(shape: tuple[int, ...]) -> None:
    assert error_of(Geometry, shape, np.eye(4)).code == "MX-GEO-003"


def test_tiny_and_huge_spacings_are_geometry_all_the_same() -> None:
    for size in (1e-6, 1e6):
        assert Geometry((2, 2, 2), np.diag([size, size, size, 1])).spacing_mm == pytest.approx((size,) * 3)


def test_the_affine_is_a_read_only_copy() -> None:
    affine = np.eye(4)
    geometry = Geometry((2, 2, 2), affine)
    affine[0, 0] = 9
    assert geometry.affine_ras[0, 0] == 1 and geometry.affine_ras.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine_ras[0, 0] = 2


def test_spacing_volume_shear_and_corners() -> None:
    affine = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])
    geometry = Geometry((2, 3, 4), affine)
    assert geometry.spacing_mm == (3.0, 2.0, 4.0)
    assert geometry.voxel_volume_mm3 == pytest.approx(24.0)
    assert geometry.shear == 0
    corners = {tuple(c) for c in geometry.corners_ras().tolist()}
    assert corners == set(itertools.product((5.0, 1.0), (6.0, 9.0), (7.0, 19.0)))
    leaning = affine.copy()
    leaning[:3, 2] = [0, 4 * np.sin(0.1), 4 * np.cos(0.1)]
    assert Geometry((2, 3, 4), leaning).shear == pytest.approx(np.sin(0.1))


def test_closeness_is_judged_at_the_corners() -> None:
    geometry = Geometry((101, 101, 101), np.eye(4))
    stretched = Geometry((101, 101, 101), np.diag([1.00002, 1, 1, 1]))
    assert not geometry.allclose(stretched)  # 0.002 mm at the far end
    assert geometry.allclose(stretched, 0.0021)
    assert not geometry.allclose(Geometry((101, 101, 100), np.eye(4)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3.14, 3.14), min_size=3, max_size=3), st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_turning_a_grid_changes_neither_spacing_nor_volume_nor_shear(angles: list[float], sizes: list[float]) -> None:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = turn @ np.roll(np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], axis, 0), axis, 1)
    affine = np.eye(4)
    affine[:3, :3] = turn * sizes
    geometry = Geometry((3, 4, 5), affine)
    assert geometry.spacing_mm == pytest.approx(sizes)
    assert geometry.voxel_volume_mm3 == pytest.approx(np.prod(sizes))
    assert geometry.shear < 1e-12


# --- volumes ---

GRID = Geometry((2, 3, 4), np.eye(4))


@pytest.mark.parametrize("shape", [(4, 3, 2), (2, 3), (2, 3, 4, 1), (24,)])
def test_array_and_geometry_must_agree(shape: tuple[int, ...]) -> None:
    error = error_of(Volume, np.zeros(shape), GRID)
    assert error.code == "MX-GEO-004" and str(shape) in error.found


def test_the_volumes_array_is_read_only_and_the_callers_is_not() -> None:
    array = np.zeros((2, 3, 4))
    volume = Volume(array, GRID)
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    array[0, 0, 0] = 2
    assert array.flags.writeable


def test_a_volume_is_known_by_modality_and_source() -> None:
    assert Volume(np.zeros((2, 3, 4)), GRID, Modality.T1).name == "T1"
    assert Volume(np.zeros((2, 3, 4)), GRID, Modality.T1, Source("a.nii.gz")).name == "T1 'a.nii.gz'"


def test_new_voxels_keep_the_grid_and_everything_else() -> None:
    notes = (Warned("a", "b"),)
    volume = Volume(np.zeros((2, 3, 4)), GRID, Modality.CT, Source("s"), synthetic=True, notes=notes)
    other = volume.with_array(np.ones((2, 3, 4), np.uint8), synthetic=False)
    assert other.geometry is GRID and other.modality is Modality.CT and other.source == Source("s")
    assert other.notes == notes and not other.synthetic and other.array.dtype == np.uint8
    assert error_of(volume.with_array, np.zeros((4, 3, 2))).code == "MX-GEO-004"
