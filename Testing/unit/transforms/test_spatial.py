"""The spatial plan: orientation, spacing, crop, padding, warnings, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.transforms.foreground import foreground_mask, tissue_mask
from MedXlateCore.transforms.spatial import CropPolicy, GridSpec, SpatialPlan, reorient, resample, respace
from MedXlateCore.volume import Geometry, Modality, Source, Volume

REAL_DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
BRATS_CROP = CropPolicy("fixed", (160, 192, None), centre="grid", offset_voxels=(0, 10, 0), grow=False)


def grid(
    shape, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0), signs=(-1, -1, 1)
) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ np.diag(signs) @ np.diag(spacing)
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def box_volume(geometry: Geometry, start, stop, modality=Modality.T1, seed=0) -> Volume:
    array = np.zeros(geometry.shape, np.float32)
    part = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    array[part] = np.random.default_rng(seed).uniform(50, 150, array[part].shape)
    return Volume(array, geometry, modality, Source(name="box"))


def test_the_brats_crop_of_the_authors_is_columns_40_to_200_and_rows_34_to_226():
    geometry = grid((240, 240, 155))
    volume = box_volume(geometry, (60, 50, 10), (180, 210, 150))
    plan = SpatialPlan.make(geometry, GridSpec(crop=BRATS_CROP), [volume])
    assert plan.box == ((40, 34, 0), (200, 226, 155))
    assert plan.grid.shape == (160, 192, 155)
    assert plan.is_exact and plan.warnings == ()
    np.testing.assert_array_equal(plan.to_model(volume), volume.array[40:200, 34:226])


def test_the_brats_crop_finds_the_same_voxels_in_a_ras_file():
    lps = box_volume(grid((24, 26, 15)), (6, 6, 2), (18, 20, 14))
    ras = Volume(lps.array[::-1, ::-1], grid((24, 26, 15), origin=(-23.0, -25.0, 0), signs=(1, 1, 1)), Modality.T1)
    spec = GridSpec(crop=CropPolicy("fixed", (16, 20, None), centre="grid", offset_voxels=(0, 1, 0), grow=False))
    first, second = (SpatialPlan.make(v.geometry, spec, [v]) for v in (lps, ras))
    assert first.grid.allclose(second.grid, 1e-6)
    np.testing.assert_array_equal(first.to_model(lps), second.to_model(ras))


def test_a_foreground_that_the_crop_cuts_is_warned_about():
    geometry = grid((40, 40, 20))
    volume = box_volume(geometry, (3, 5, 2), (36, 33, 18))
    policy = CropPolicy("fixed", (30, 30, None), centre="grid", grow=False)
    plan = SpatialPlan.make(geometry, GridSpec(crop=policy), [volume])
    assert plan.grid.shape == (30, 30, 20)
    assert [warning.code for warning in plan.warnings] == ["MX-GEO-024"]
    assert "[2, 0, 0] voxels before and [1, 0, 0] after" in plan.warnings[0].found


def test_a_crop_that_may_grow_keeps_the_whole_foreground_and_no_more():
    geometry = grid((40, 40, 20))
    volume = box_volume(geometry, (3, 5, 2), (36, 33, 18))
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("fixed", (30, 30, None), centre="grid")), [volume])
    assert plan.box == ((3, 5, 0), (36, 35, 20))
    assert plan.warnings == ()


def test_a_fixed_crop_can_be_centred_on_the_foreground_and_reach_outside_the_grid():
    geometry = grid((40, 40, 20))
    volume = box_volume(geometry, (0, 5, 2), (10, 15, 18))
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("fixed", (16, 16, None), margin_mm=1.0)), [volume])
    assert plan.box == ((-3, 2, 1), (13, 18, 19))
    model = plan.to_model(volume, fill=-7.0)
    assert (model[:3] == -7).all()
    np.testing.assert_array_equal(model[3:], volume.array[:13, 2:18, 1:19])


@pytest.mark.parametrize(("margin", "start", "stop"), [(0.0, (8, 9, 4), (20, 30, 12)), (3.0, (5, 6, 2), (23, 33, 14))])
def test_the_foreground_crop_is_the_box_and_its_margin_in_mm(margin, start, stop):
    geometry = grid((40, 40, 20), (1, 1, 2))
    volume = box_volume(geometry, (8, 9, 4), (20, 30, 12))
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy(margin_mm=margin)), [volume])
    assert plan.box == (start, stop)


def test_the_margin_stays_within_the_grid():
    geometry = grid((20, 20, 10))
    plan = SpatialPlan.make(geometry, GridSpec(), [box_volume(geometry, (1, 2, 0), (20, 18, 10))])
    assert plan.box == ((0, 0, 0), (20, 20, 10))


def test_the_foreground_of_several_sources_is_united_across_their_grids():
    reference = grid((40, 40, 20))
    first = box_volume(reference, (10, 10, 5), (20, 20, 10))
    finer = respace(reference, (0.5, 0.5, 1.0))
    second = box_volume(finer, (30, 20, 5), (60, 40, 15))
    plan = SpatialPlan.make(reference, GridSpec(crop=CropPolicy(margin_mm=0)), [first, second])
    assert plan.box == ((10, 10, 5), (30, 20, 15))


def test_sizes_are_padded_on_both_sides_to_the_multiple():
    geometry = grid((21, 30, 10))
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("none"), size_multiple=(8, 16, 1)))
    assert plan.box == ((-1, -1, 0), (23, 31, 10))
    array = np.random.default_rng(1).random(geometry.shape, dtype=np.float32)
    model = plan.to_model(Volume(array, geometry))
    assert model.shape == (24, 32, 10)
    np.testing.assert_array_equal(plan.to_reference(model, fill=0.0), array)


def test_the_way_back_fills_what_the_crop_left_out():
    geometry = grid((20, 22, 10), rotation=(5, 10, 15), signs=(1, -1, 1))
    volume = box_volume(geometry, (6, 7, 3), (12, 13, 6))
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy(margin_mm=0)), [volume])
    back = plan.to_reference(plan.to_model(volume) + 1000, fill=-1.0)
    expected = np.full(geometry.shape, -1, np.float32)
    expected[6:12, 7:13, 3:6] = volume.array[6:12, 7:13, 3:6] + 1000
    np.testing.assert_array_equal(back, expected)
    assert plan.reference is geometry


@pytest.mark.parametrize(("wish", "exact"), [(1.009, True), (0.991, True), (1.02, False), (2.0, False), (None, True)])
def test_a_spacing_within_one_percent_stays_on_the_lattice(wish, exact):
    geometry = grid((20, 21, 10))
    plan = SpatialPlan.make(geometry, GridSpec(spacing_mm=(wish, wish, None), crop=CropPolicy("none")))
    assert plan.is_exact is exact
    assert plan.grid.spacing_mm[0] == pytest.approx(1.0 if exact else wish)


@pytest.mark.parametrize("spacing", [(0.7, 1.3, 3.0), (2.0, 2.0, 0.9), (40.0, 1.0, 1.0)])
def test_a_respaced_grid_has_the_same_centre_and_covers_the_field_of_view(spacing):
    geometry = grid((17, 23, 11), (1, 1.1, 2), (3, -9, 20), (12, 5, 20))
    new = respace(geometry, spacing)
    assert new.spacing_mm == pytest.approx(spacing)
    np.testing.assert_allclose(new.corners_ras().mean(axis=0), geometry.corners_ras().mean(axis=0), atol=1e-9)
    old_extent = np.multiply(geometry.shape, geometry.spacing_mm)
    extent = np.multiply(new.shape, spacing)
    assert (extent > old_extent - 2e-3 * np.array(spacing)).all() and (extent < old_extent + spacing).all()


def test_no_voxel_of_the_reference_is_lost_on_the_way_back_from_another_spacing():
    geometry = grid((17, 23, 11), (1, 1.1, 2), rotation=(10, 0, 20))
    volume = Volume(np.full(geometry.shape, 5.0, np.float32), geometry)
    plan = SpatialPlan.make(geometry, GridSpec(spacing_mm=(1.7, 2.3, 5.1), crop=CropPolicy("none")))
    np.testing.assert_allclose(plan.to_reference(plan.to_model(volume), fill=-99.0), 5.0, atol=1e-5)


def test_the_foreground_box_covers_the_same_tissue_on_another_spacing():
    geometry = grid((40, 40, 20))
    volume = box_volume(geometry, (10, 12, 5), (30, 33, 15))
    plan = SpatialPlan.make(geometry, GridSpec(spacing_mm=(0.8, 1.5, 2.0), crop=CropPolicy(margin_mm=0)), [volume])
    to_index = np.linalg.inv(geometry.affine_ras) @ plan.grid.affine_ras  # the axes agree: outer edges are enough
    first = (to_index @ [-0.5, -0.5, -0.5, 1])[:3] + 0.5
    last = (to_index @ [*(np.array(plan.grid.shape) - 0.5), 1])[:3] + 0.5
    one_voxel = np.array(plan.grid.spacing_mm) + 1e-3
    assert (first <= [10.001, 12.001, 5.001]).all() and (last >= [29.999, 32.999, 14.999]).all()
    assert (first + one_voxel >= [10, 12, 5]).all() and (last - one_voxel <= [30, 33, 15]).all()
    assert plan.warnings == ()


def test_a_source_on_another_grid_is_interpolated_once_from_its_own_grid():
    reference = grid((20, 20, 10))
    other = grid((25, 25, 14), (0.9, 0.9, 0.8), (2, 2, -1), (8, -5, 10))
    volume = box_volume(other, (4, 4, 3), (20, 20, 11))
    plan = SpatialPlan.make(reference, GridSpec(crop=CropPolicy("none")), [])
    expected = resample(volume.array, other, plan.grid, fill=0.0)
    np.testing.assert_array_equal(plan.to_model(volume), expected)


def test_a_much_finer_source_is_averaged_on_its_way_in():
    geometry = grid((30, 30, 30), (0.4, 0.4, 0.4))
    noise = np.random.default_rng(0).normal(100, 10, geometry.shape).astype(np.float32)
    plan = SpatialPlan.make(geometry, GridSpec(spacing_mm=(1.3, 1.3, 1.3), crop=CropPolicy("none")))
    sampled = resample(noise, geometry, plan.grid)
    assert plan.to_model(Volume(noise, geometry)).std() < 0.6 * sampled.std()


def test_outside_a_ct_is_air_by_default():
    geometry = grid((8, 8, 8))
    array = np.random.default_rng(0).normal(-1000, 5, geometry.shape).astype(np.float32)
    array[2:6, 2:6, 2:6] = 40
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("none"), size_multiple=(16, 16, 16)))
    model = plan.to_model(Volume(array, geometry, Modality.CT))
    assert model[0, 0, 0] == -1000 and model.dtype == np.float32


def test_labels_keep_their_type_and_their_values():
    geometry = grid((12, 12, 12), rotation=(0, 0, 12))
    labels = np.random.default_rng(2).choice(np.array([0, 1, 2, 4], np.int16), geometry.shape)
    spec = GridSpec(spacing_mm=(0.6, 1.4, 1.0), crop=CropPolicy("none"))
    result = SpatialPlan.make(geometry, spec).labels_to_model(Volume(labels, geometry, Modality.LABEL))
    assert result.dtype == np.int16
    assert set(np.unique(result)) <= {0, 1, 2, 4}


def test_a_mask_is_cut_at_one_half_and_can_be_made_from_labels():
    geometry = grid((12, 12, 12))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[4:8, 4:8, 4:8] = 4
    labels[:2] = 2
    plan = SpatialPlan.make(geometry, GridSpec(spacing_mm=(0.5, 0.5, 0.5), crop=CropPolicy("none")))
    mask = plan.mask_to_model(Volume(labels, geometry, Modality.LABEL), labels=[1, 4])
    assert mask.dtype == bool
    assert mask.sum() == pytest.approx(8 * 64, rel=0.2)
    soft = plan.mask_to_model(Volume((labels == 4) * 0.4, geometry))
    assert not soft.any()
    np.testing.assert_array_equal(plan.mask_to_model(Volume(labels == 4, geometry)), mask)


def test_a_blank_source_is_refused():
    geometry = grid((8, 8, 8))
    with pytest.raises(InputError) as caught:
        SpatialPlan.make(geometry, GridSpec(), [Volume(np.zeros((8, 8, 8)), geometry, Modality.T1, Source("blank"))])
    assert caught.value.code == "MX-IMG-024" and "blank" in caught.value.where


def test_a_foreground_outside_the_reference_is_refused():
    volume = box_volume(grid((10, 10, 10), origin=(500, 0, 0)), (2, 2, 2), (8, 8, 8))
    with pytest.raises(InputError) as caught:
        SpatialPlan.make(grid((8, 8, 8)), GridSpec(), [volume])
    assert caught.value.code == "MX-IMG-024"


@pytest.mark.parametrize("crop", [CropPolicy(), CropPolicy("fixed", (8, 8, 8))])
def test_a_crop_that_follows_the_foreground_needs_a_volume(crop):
    with pytest.raises(UsageError) as caught:
        SpatialPlan.make(grid((8, 8, 8)), GridSpec(crop=crop))
    assert caught.value.code == "MX-USE-065"


@pytest.mark.parametrize("spec", [GridSpec(spacing_mm=(1e-5, 1e-5, 1e-5), crop=CropPolicy("none")),
                                  GridSpec(crop=CropPolicy("fixed", (10**6, 10**6, 1), centre="grid"))])  # fmt: skip
def test_an_absurdly_large_model_grid_is_refused_before_anything_is_allocated(spec):
    with pytest.raises(InputError) as caught:
        SpatialPlan.make(grid((8, 8, 8)), spec)
    assert caught.value.code == "MX-GEO-021"


def test_a_strong_tilt_is_warned_about():
    spec = GridSpec(crop=CropPolicy("none"))
    assert SpatialPlan.make(grid((8, 8, 8), rotation=(29, 0, 0)), spec).warnings == ()
    plan = SpatialPlan.make(grid((8, 8, 8), rotation=(33, 0, 0)), spec)
    assert [warning.code for warning in plan.warnings] == ["MX-GEO-025"]


def test_an_array_of_another_shape_does_not_go_back():
    plan = SpatialPlan.make(grid((8, 8, 8)), GridSpec(crop=CropPolicy("none")))
    with pytest.raises(InputError) as caught:
        plan.to_reference(np.zeros((8, 8, 7), np.float32), fill=0.0)
    assert caught.value.code == "MX-GEO-004"


def test_inputs_are_never_modified():
    geometry = grid((12, 12, 12))
    volume = box_volume(geometry, (2, 2, 2), (10, 10, 10))
    before = volume.array.copy()
    plan = SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("none")), [volume])
    model = plan.to_model(volume)
    model[:] = 0
    plan.labels_to_model(volume)[:] = 0
    np.testing.assert_array_equal(volume.array, before)


def test_a_single_slice_keeps_its_plane():
    geometry = grid((16, 18, 1), (1, 1, 5))
    volume = box_volume(geometry, (4, 4, 0), (12, 14, 1))
    plan = SpatialPlan.make(geometry, GridSpec(size_multiple=(8, 8, 1)), [volume])
    assert plan.grid.shape == (16, 16, 1)
    back = plan.to_reference(plan.to_model(volume), fill=0.0)
    np.testing.assert_array_equal(back, volume.array)


def test_the_description_is_json_and_tells_plans_apart():
    geometry = grid((16, 18, 10), rotation=(5, 0, 0))
    volume = box_volume(geometry, (4, 4, 2), (12, 14, 8))
    plan = SpatialPlan.make(geometry, GridSpec(), [volume])
    facts = json.loads(json.dumps(plan.describe()))
    assert facts["exact"] is True and facts["grid"]["orientation"] == "LPS"
    assert GridSpec.from_dict(facts["spec"]) == plan.spec
    other = SpatialPlan.make(geometry, GridSpec(size_multiple=(8, 8, 1)), [volume])
    assert other.describe() != plan.describe()


def real(path: str, modality: Modality) -> Volume:
    nibabel = pytest.importorskip("nibabel")
    if not (REAL_DATA / path).exists():
        pytest.skip(f"the real volume {path} is not there")
    image = nibabel.load(REAL_DATA / path)
    array = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(array, Geometry(array.shape, image.affine), modality, Source(name=path))


@pytest.mark.real_data
def test_a_real_brats_t2_keeps_its_whole_brain_and_returns_bit_for_bit():
    volume = real("brats-like/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz", Modality.T2)
    np.testing.assert_array_equal(tissue_mask(volume.array, volume.modality), volume.array != 0)
    plan = SpatialPlan.make(volume.geometry, GridSpec(crop=BRATS_CROP, size_multiple=(16, 16, 1)), [volume])
    assert plan.box == ((40, 34, 0), (200, 226, 155)) and plan.warnings == ()
    np.testing.assert_array_equal(plan.to_reference(plan.to_model(volume), fill=0.0), volume.array)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "file", "modality"), [("STS_024", "MR_T1", Modality.T1), ("STS_042", "PET", Modality.PET)]
)
def test_the_real_limb_foreground_agrees_with_the_body_on_ct(case, file, modality):
    body = real(f"ibsi-sts/{case}/CT_image.nii.gz", Modality.CT)
    volume = real(f"ibsi-sts/{case}/{file}_image.nii.gz", modality)
    truth = resample(foreground_mask(body.array, Modality.CT), body.geometry, volume.geometry, 0)
    mask = foreground_mask(volume.array, modality)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_reorient_is_part_of_the_plan():
    geometry = grid((9, 10, 11), signs=(1, 1, -1))
    assert SpatialPlan.make(geometry, GridSpec(crop=CropPolicy("none"))).grid.allclose(reorient(geometry, "LPS"), 1e-9)
