"""Promises of the spatial part that hold for every grid: orientation never matters, lattices are exact, grids return.

Grids are oblique (up to 40 degrees), anisotropic, odd-sized, off-origin, left- or right-handed, one is sheared.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedXlateCore.transforms.foreground import foreground_box, foreground_mask
from MedXlateCore.transforms.intensity import Percentile
from MedXlateCore.transforms.orientation import AxisOrder
from MedXlateCore.transforms.resampling import is_lattice_map, resample
from MedXlateCore.transforms.spatial import CropPolicy, GridSpec, SpatialPlan, reorient
from MedXlateCore.volume import Geometry, Modality, Volume

SHAPES = [(17, 23, 11), (16, 12, 9), (13, 13, 13), (21, 10, 7), (8, 19, 15)]
ORDERS = [AxisOrder(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
RANDOM = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def make_grid(seed: int, shear: float = 0.0) -> Geometry:
    rng = np.random.default_rng(seed)
    turn = rng.normal(size=3)
    rotation = Rotation.from_rotvec(turn / np.linalg.norm(turn) * np.radians(rng.uniform(0, 39))).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(rng.uniform(0.4, 3.5, 3) * rng.choice([-1, 1], 3))
    affine[:3, 2] += shear * affine[:3, 0]
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return Geometry(SHAPES[seed % len(SHAPES)], affine)


AXIAL = Geometry((17, 23, 11), np.diag([-1.0, -1.0, 1.0, 1.0]))
GRIDS = [AXIAL, make_grid(40, shear=0.1), *map(make_grid, range(1, 9))]


def head(geometry: Geometry, seed: int = 0, modality: Modality = Modality.T1) -> Volume:
    """An ellipsoid of noisy tissue, a little off the centre, on exactly black background."""
    rng = np.random.default_rng(seed)
    radius = sum(
        ((x - 0.47 * n) / (0.36 * n)) ** 2 for x, n in zip(np.indices(geometry.shape), geometry.shape, strict=True)
    )
    array = np.where(radius < 1, rng.uniform(40, 160, geometry.shape), 0.0).astype(np.float32)
    return Volume(array, geometry, modality)


def reordered(volume: Volume, order: AxisOrder) -> Volume:
    array = np.ascontiguousarray(order.apply_to_array(volume.array))
    return Volume(array, order.apply_to_geometry(volume.geometry), volume.modality)


def translated(plan: SpatialPlan, volumes: list[Volume]) -> np.ndarray:
    """Stands for a translation: plan, normalise, a voxel-wise model, and back."""
    channels = []
    for volume in volumes:
        array = plan.to_model(volume)
        channels.append(Percentile(1, 99).fit(array).apply(array))
    return plan.to_reference(np.tanh(sum(channels)), fill=-1.0)


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize(
    "crop",
    [CropPolicy(), CropPolicy("none"), CropPolicy("fixed", (14, 16, None), centre="grid", offset_voxels=(0, 1, -1))],
)
def test_48_axis_orders_give_the_same_model_grid_and_the_same_result_bit_for_bit(number, crop):
    volume = head(GRIDS[number], seed=number)
    spec = GridSpec(crop=crop, size_multiple=(4, 4, 1))
    plan = SpatialPlan.make(volume.geometry, spec, [volume])
    model, result = plan.to_model(volume), translated(plan, [volume])
    assert plan.is_exact
    for order in ORDERS:
        other = reordered(volume, order)
        other_plan = SpatialPlan.make(other.geometry, spec, [other])
        assert other_plan.box == plan.box and other_plan.is_exact
        np.testing.assert_allclose(other_plan.grid.affine_ras, plan.grid.affine_ras, atol=1e-6)
        np.testing.assert_array_equal(other_plan.to_model(other), model)
        np.testing.assert_array_equal(translated(other_plan, [other]), order.apply_to_array(result))


@pytest.mark.parametrize("number", range(10))
def test_48_axis_orders_with_another_spacing_and_a_second_grid_agree_to_1e_5(number):
    reference, second = head(GRIDS[number], seed=1), head(make_grid(100 + number), seed=2, modality=Modality.T2)
    centre = GRIDS[number].corners_ras().mean(axis=0) - second.geometry.corners_ras().mean(axis=0)
    moved = second.geometry.affine_ras.copy()
    moved[:3, 3] += centre
    second = Volume(second.array, Geometry(second.array.shape, moved), second.modality)
    spec = GridSpec(spacing_mm=(1.1, 0.9, 2.2), size_multiple=(4, 4, 1))
    plan = SpatialPlan.make(reference.geometry, spec, [reference, second])
    models, result = [plan.to_model(v) for v in (reference, second)], translated(plan, [reference, second])
    labels = plan.labels_to_model(Volume((second.array > 90).astype(np.uint8), second.geometry))
    for order, second_order in zip(ORDERS, reversed(ORDERS), strict=True):
        others = [reordered(reference, order), reordered(second, second_order)]
        other_plan = SpatialPlan.make(others[0].geometry, spec, others)
        assert other_plan.box == plan.box
        for other, model in zip(others, models, strict=True):
            np.testing.assert_allclose(other_plan.to_model(other), model, atol=1e-5 * model.max())
        np.testing.assert_allclose(translated(other_plan, others), order.apply_to_array(result), atol=1e-5)
        other_labels = other_plan.labels_to_model(Volume((others[1].array > 90).astype(np.uint8), others[1].geometry))
        np.testing.assert_array_equal(other_labels, labels)


@RANDOM
@given(seed=st.integers(0, 10**6), shear=st.sampled_from([0.0, 0.0, 0.05]))
def test_200_random_obliques_return_on_their_own_grid_bit_for_bit(seed, shear):
    volume = head(make_grid(seed, shear), seed=seed)
    plan = SpatialPlan.make(volume.geometry, GridSpec(size_multiple=(8, 8, 1)), [volume])
    back = plan.to_reference(plan.to_model(volume), fill=0.0)
    assert plan.is_exact
    assert back.shape == volume.geometry.shape
    assert plan.reference is volume.geometry
    np.testing.assert_array_equal(back, volume.array)


def test_the_identity_plan_is_bit_exact():
    geometry = AXIAL
    array = np.random.default_rng(0).normal(size=geometry.shape).astype(np.float32)
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("none")))
    assert plan.grid.allclose(geometry, 0.0)
    np.testing.assert_array_equal(plan.to_model(Volume(array, geometry)), array)
    np.testing.assert_array_equal(plan.to_reference(array, fill=0.0), array)


@RANDOM
@given(seed=st.integers(0, 10**6))
def test_linear_interpolation_of_a_ramp_is_exact_inside(seed):
    rng = np.random.default_rng(seed)
    source, slope = make_grid(seed), rng.normal(size=3)
    ramp = np.tensordot(world(source), slope, 1) + 3
    target = within(source, rng)
    expected = np.tensordot(world(target), slope, 1) + 3
    error = np.abs(resample(ramp.astype(np.float32), source, target) - expected).max()
    assert error <= 2e-6 * np.abs(ramp).max()


@settings(RANDOM, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_agrees_with_simpleitk_inside(seed):
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(seed)
    source, target = make_grid(seed), make_grid(seed + 1)
    moved = target.affine_ras.copy()
    moved[:3, 3] += source.corners_ras().mean(axis=0) - target.corners_ras().mean(axis=0) + rng.normal(size=3)
    target = Geometry(target.shape, moved)
    array = rng.random(source.shape, dtype=np.float32)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(as_sitk(sitk, array, source), as_sitk(sitk, np.zeros(target.shape, np.float32), target),
                      sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, -9.0)
    ).transpose(2, 1, 0)  # fmt: skip
    index = (world(target) - source.affine_ras[:3, 3]) @ np.linalg.inv(source.affine_ras[:3, :3]).T
    inside = ((index > 0.001) & (index < np.array(source.shape) - 1.001)).all(axis=-1)
    assert inside.any()
    np.testing.assert_allclose(resample(array, source, target)[inside], theirs[inside], atol=1e-4)


@RANDOM
@given(seed=st.integers(0, 10**6), order=st.sampled_from([0, 1]))
def test_resampling_never_leaves_the_range_of_the_values_nor_invents_labels(seed, order):
    rng = np.random.default_rng(seed)
    source, target = make_grid(seed), make_grid(seed + 7)
    labels = rng.choice(np.array([1, 2, 4], np.uint8), source.shape)
    result = resample(labels, source, Geometry(target.shape, source.affine_ras @ small_move(rng)), order, fill=0)
    inside = result[result > 0]
    if order == 0:
        assert set(np.unique(inside)) <= {1, 2, 4}
    else:
        assert inside.size == 0 or (inside.min() >= 1 - 1e-5 and inside.max() <= 4 + 1e-5)


@RANDOM
@given(seed=st.integers(0, 10**6), shift=st.tuples(*[st.integers(-30, 30)] * 3))
def test_whole_voxel_shifts_in_any_order_are_lattice_maps_and_invert(seed, shift):
    geometry, order = make_grid(seed), ORDERS[seed % 48]
    move = np.eye(4)
    move[:3, 3] = shift
    other = order.apply_to_geometry(Geometry(geometry.shape, geometry.affine_ras @ move))
    array = np.random.default_rng(seed).integers(1, 99, geometry.shape).astype(np.int16)
    assert is_lattice_map(geometry, other) and is_lattice_map(other, geometry)
    there = resample(array, geometry, other, fill=0)
    back = resample(there, other, geometry, fill=0)
    kept = back != 0
    np.testing.assert_array_equal(back[kept], array[kept])
    assert kept.sum() == np.prod([max(0, n - abs(s)) for n, s in zip(geometry.shape, shift, strict=True)])


@settings(RANDOM, max_examples=60)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.0, 1e-4, 2e-3]))
def test_noise_specks_do_not_widen_the_foreground(seed, density):
    rng = np.random.default_rng(seed)
    clean = head(make_grid(seed), seed).array
    noisy = np.where(rng.random(clean.shape) < density, 500, clean)
    assert foreground_box([noisy]) == foreground_box([clean])
    assert foreground_mask(noisy).sum() <= (clean > 0).sum() * 1.05 + 5


@pytest.mark.parametrize("seed", [3, 7, 10, 11])
def test_voxels_midway_between_two_labels_are_decided_alike_in_every_axis_order(seed):
    geometry = Geometry((16, 18, 12), make_grid(seed).affine_ras)
    labels = np.random.default_rng(0).integers(0, 200, geometry.shape).astype(np.uint8)
    i, j, k = reorient(geometry).spacing_mm
    spec = GridSpec(spacing_mm=(2 * i, 2 * j, 2 * k), crop=CropPolicy("none"))
    volume = Volume(labels, geometry, Modality.LABEL)
    expected = SpatialPlan.make(geometry, spec).labels_to_model(volume)
    for order in ORDERS:
        other = reordered(volume, order)
        np.testing.assert_array_equal(SpatialPlan.make(other.geometry, spec).labels_to_model(other), expected)


def world(geometry: Geometry) -> np.ndarray:
    """Voxel centres in RAS mm, [I, J, K, 3]."""
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    return index @ geometry.affine_ras[:3, :3].T + geometry.affine_ras[:3, 3]


def within(source: Geometry, rng: np.random.Generator) -> Geometry:
    """A small random grid whose voxels all lie inside the outer voxel centres of ``source``."""
    rotation = Rotation.from_rotvec(rng.normal(size=3) * 0.5).as_matrix()
    centre = source.corners_ras().mean(axis=0)
    reach = min((n - 1) / 2 * s for n, s in zip(source.shape, source.spacing_mm, strict=True)) * 0.9
    affine = np.eye(4)
    affine[:3, :3] = rotation * (2 * reach / np.sqrt(3) / 6)
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, 3.0)
    return Geometry((7, 7, 7), affine)


def small_move(rng: np.random.Generator) -> np.ndarray:
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.2).as_matrix() @ np.diag(rng.uniform(0.6, 1.6, 3))
    move[:3, 3] = rng.normal(size=3) * 3
    return move


def as_sitk(sitk, array: np.ndarray, geometry: Geometry):
    flip = np.diag([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin((flip @ geometry.affine_ras[:3, 3]).tolist())
    image.SetDirection((flip @ geometry.affine_ras[:3, :3] / geometry.spacing_mm).ravel().tolist())
    return image


def test_reorienting_twice_is_the_same_as_once():
    for geometry in GRIDS:
        assert reorient(reorient(geometry, "SRP"), "LPS").allclose(reorient(geometry, "LPS"), 1e-9)
