"""Each check fires on what it is for, keeps quiet otherwise, and says what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore import checks
from MedXlateCore.checks import check_roi, check_sources, check_volume, checked
from MedXlateCore.errors import InputError
from MedXlateCore.io import read_volume
from MedXlateCore.volume import Geometry, Modality, Source, Volume

SHAPE = (24, 20, 16)
LPS = np.diag([-1.0, -1.0, 2.0, 1.0])
LABELS = {"oedema": (2,), "core": (1, 3, 4)}
nan, inf = float("nan"), float("inf")


def head(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """An ellipsoid of noisy tissue in exact zero, float32."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return np.where((grid**2).sum(0) < 0.9, rng.normal(200, 40, shape).clip(1), 0).astype(np.float32)


def volume(
    array: np.ndarray | None = None, modality: Modality = Modality.T1, affine: np.ndarray = LPS, **more: object
) -> Volume:
    array = head() if array is None else array
    return Volume(array, Geometry(array.shape, affine), modality, Source("a.nii.gz"), **more)  # type: ignore[arg-type]


def error_of(call, *args: object) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert caught.value.found and caught.value.expected and caught.value.fix and caught.value.where
    return caught.value


def codes(warnings: list) -> list[str]:
    assert all(w.found and w.fix for w in warnings)
    return [w.code for w in warnings]


def test_a_good_volume_passes_unchanged_without_a_word() -> None:
    for modality in (Modality.T1, Modality.FLAIR, Modality.PET, Modality.OTHER):
        good = volume(modality=modality)
        same, warnings = checked(good)
        assert same is good and warnings == []


def test_the_rows_have_unique_codes_and_say_what_to_do() -> None:
    rows = checks._VOLUME_BATTERY
    assert len({row.code for row in rows}) == len(rows)
    assert all(row.expected and row.fix and row.code.startswith(("MX-IMG-", "MX-GEO-")) for row in rows)


# --- values ---


def spoilt(count: int, value: float, seed: int = 1) -> np.ndarray:
    array = head(shape=(50, 50, 40))
    flat = array.reshape(-1)
    flat[np.random.default_rng(seed).choice(flat.size, count, replace=False)] = value
    return array


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_more_than_a_ten_thousandth_of_bad_voxels_is_refused(value: float) -> None:
    error = error_of(check_volume, volume(spoilt(11, value)))  # of 100,000
    assert error.code == "MX-IMG-001" and "11 of 100000" in error.found and "(0.011 %)" in error.found
    assert error_of(checked, volume(np.full(SHAPE, value, np.float32))).code == "MX-IMG-001"


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_few_bad_voxels_are_repaired_from_their_neighbours_and_noted(value: float) -> None:
    bad = volume(spoilt(10, value), synthetic=False)
    repaired, warnings = checked(bad)
    assert codes(warnings) == ["MX-IMG-002"] and "10 NaN" in warnings[0].found
    was_bad = ~np.isfinite(bad.array)
    assert np.isfinite(repaired.array).all() and was_bad.sum() == 10
    np.testing.assert_array_equal(repaired.array[~was_bad], bad.array[~was_bad])
    assert repaired.geometry is bad.geometry and repaired.modality is bad.modality
    for i, j, k in np.argwhere(was_bad):
        near = bad.array[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2]
        assert near[np.isfinite(near)].min() <= repaired.array[i, j, k] <= near[np.isfinite(near)].max()


@pytest.mark.parametrize("at", [(0, 0, 0), (5, 6, 7), (49, 49, 39), (0, 20, 39), (1, 1, 1), (48, 2, 38)])
def test_the_repair_is_the_mean_of_the_touching_voxels(at: tuple[int, int, int]) -> None:
    array = np.random.default_rng(5).normal(100, 20, (50, 50, 40)).astype(np.float32)
    array[at] = nan
    touching = [
        float(array[i, j, k])
        for i in range(50) for j in range(50) for k in range(40)
        if (i, j, k) != at and max(abs(i - at[0]), abs(j - at[1]), abs(k - at[2])) == 1
    ]  # fmt: skip
    repaired, _ = checked(volume(array))
    assert repaired.array[at] == np.float32(np.mean(touching))


def test_whole_numbers_need_no_repair() -> None:
    for good in (volume((head() * 3).astype(np.int16)), volume(np.ones(SHAPE, np.uint8), Modality.LABEL)):
        assert checked(good)[0] is good


@pytest.mark.parametrize(("modality", "air"), [(Modality.T1, 0.0), (Modality.CT, -1000.0)])
def test_a_bad_voxel_among_bad_ones_becomes_air(modality: Modality, air: float) -> None:
    array = head(shape=(80, 80, 60)) - (1000 if modality is Modality.CT else 0)
    array[0:3, 0:3, 0:3] = nan
    repaired, _ = checked(volume(array, modality))
    assert repaired.array[1, 1, 1] == air


def test_the_callers_array_is_not_repaired_in_place() -> None:
    array = spoilt(5, nan)
    before = array.copy()
    checked(volume(array))
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("value", [0.0, -3.0, 1000.0])
def test_one_value_everywhere_is_no_image(value: float) -> None:
    error = error_of(check_volume, volume(np.full(SHAPE, value, np.float32)))
    assert error.code == "MX-IMG-003" and f"{value:g}" in error.found


@pytest.mark.parametrize("value", [1.1e12, -1.1e12, 1e30, -3e38])
def test_absurd_values_are_refused(value: float) -> None:
    array = head()
    array[3, 3, 3] = value
    assert error_of(check_volume, volume(array)).code == "MX-IMG-005"


def test_a_nearly_empty_volume_is_noted() -> None:
    array = np.zeros((40, 40, 40), np.float32)
    array[20, 20, 20:36] = np.linspace(1, 2, 16) * 1.1
    for spot in (volume(array), volume(array - 1000, Modality.CT)):
        (warning,) = [w for w in check_volume(spot) if w.code == "MX-IMG-004"]
        assert "only 0.025 % of the voxels" in warning.found  # 16 of 64,000
        assert "MX-IMG-006" not in codes(check_volume(spot))
    assert "differ from -1000" in warning.found
    array[20, :, 20:22] = 1.5
    assert "MX-IMG-004" not in codes(check_volume(volume(array)))
    assert "MX-IMG-004" not in codes(check_volume(volume(array - 1, Modality.T1)))  # -1 is not the MR's air


def filled(values: list[float], shape: tuple[int, int, int] = (10, 10, 10)) -> np.ndarray:
    """An image of the given values in turn."""
    return np.resize(np.array(values, np.float32), shape)


@pytest.mark.parametrize(
    ("low", "high", "plausible"),
    [
        (-100, 50, True), (-99.5, 50, False), (-100, 49.5, False), (-11_000, 70_000, True), (-11_001, 70_000, False),
        (-11_000, 70_010, False), (-1024, 3071, True),
    ],
)  # fmt: skip
def test_the_limits_of_hounsfield_units(low: float, high: float, plausible: bool) -> None:
    warnings = check_volume(volume(filled([low, high, 0.5]), Modality.CT))
    assert ("MX-IMG-008" not in codes(warnings)) == plausible
    assert all(f"{low:.4g} to {high:.4g}" in w.found for w in warnings if w.code == "MX-IMG-008")
    assert "MX-IMG-008" not in codes(check_volume(volume(filled([low, high, 0.5]), Modality.PET)))


def test_the_limits_of_a_label_like_image() -> None:
    def found(count: int, shape: tuple[int, int, int]) -> bool:
        return "MX-IMG-009" in codes(check_volume(volume(filled(list(range(count)), shape))))

    assert found(16, (10, 10, 10)) and not found(17, (10, 10, 10))
    assert found(3, (13, 5 + 3, 1)) and not found(3, (8, 8, 1))  # 64 voxels say nothing


def test_the_limit_of_absurd_values_and_of_hot_voxels() -> None:
    array = filled([1.5, 2.5, 3.5], (20, 20, 20))
    array[0, 0, 0] = 1e12
    assert codes(check_volume(volume(array))) == ["MX-IMG-006"]
    array[0, 0, 0] = 349.0  # 100 times the usual 3.5 is 350
    assert codes(check_volume(volume(array))) == []
    array[0, 0, 0] = 351.0
    assert "reach 351, the others stay below 3.5" in check_volume(volume(array))[0].found
    array[0, 0, 0] = -351.0
    assert "MX-IMG-006" in codes(check_volume(volume(array)))


def test_the_limit_of_negative_mr_values() -> None:
    array = filled([1.5, 2.5, 3.5], (20, 20, 10))
    array[0, 0, :4] = -0.5  # 4 of 4,000
    assert codes(check_volume(volume(array))) == []
    array[0, 0, :8] = -0.5
    assert "0.2 % of the voxels are negative, down to -0.5" in check_volume(volume(array))[0].found


def test_a_few_hot_voxels_are_noted() -> None:
    array = head(shape=(40, 40, 40))
    array[20, 20, 20] = 1e6
    assert codes(check_volume(volume(array))) == ["MX-IMG-006"]
    array[20, 20, 20] = 2000
    assert codes(check_volume(volume(array))) == []


def test_negative_mr_values_are_noted_and_negative_hounsfield_units_are_not() -> None:
    array = head() - 100
    assert codes(check_volume(volume(array))) == ["MX-IMG-007"]
    assert codes(check_volume(volume(array, Modality.OTHER))) == []
    air = np.where(head() == 0, -1000, head() - 150)
    assert codes(check_volume(volume(air.astype(np.float32), Modality.CT))) == []


@pytest.mark.parametrize("modality", [Modality.CT, Modality.CBCT])
@pytest.mark.parametrize(("scale", "shift"), [(1 / 400, 0), (1, 0), (10, 0), (1, -90), (100, -40_000)])
def test_a_ct_that_is_not_in_hounsfield_units_is_noted(modality: Modality, scale: float, shift: float) -> None:
    assert codes(check_volume(volume(head() * np.float32(scale) + np.float32(shift), modality))) == ["MX-IMG-008"]


def test_an_image_that_looks_like_a_label_map_is_noted() -> None:
    labels = (head() > 0).astype(np.float32) + (head() > 220)
    assert codes(check_volume(volume(labels))) == ["MX-IMG-009"]
    assert codes(check_volume(volume(labels.astype(np.uint8), Modality.LABEL))) == []
    assert codes(check_volume(volume(labels * 0.37))) == []


def test_a_synthetic_input_is_noted() -> None:
    assert codes(check_volume(volume(synthetic=True))) == ["MX-IMG-012"]


def test_a_label_map_may_be_empty_or_of_one_value() -> None:
    for value in (0, 3):
        assert check_volume(volume(np.full(SHAPE, value, np.uint8), Modality.LABEL)) == []


# --- shape and geometry ---


def test_a_single_slice_is_noted() -> None:
    assert codes(check_volume(volume(head(shape=(24, 20, 16))[:, :, 8:9]))) == ["MX-IMG-010"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 7, 60), (1, 7, 60), (60, 7, 1), (2, 2, 2)])
def test_too_few_voxels_in_the_plane_are_refused(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).normal(100, 9, shape).astype(np.float32)
    assert error_of(check_volume, volume(array)).code == "MX-IMG-011"


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 8), (8, 1, 8), (8, 9, 2)])
def test_eight_by_eight_is_enough(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).normal(100, 9, shape).astype(np.float32)
    check_volume(volume(array))


@pytest.mark.parametrize(("cosine", "code"), [(2e-4, "MX-GEO-016"), (0.04, "MX-GEO-016"), (5e-5, None)])
def test_a_slight_shear_is_noted(cosine: float, code: str | None) -> None:
    affine = LPS.copy()
    affine[0, 1] = cosine
    assert codes(check_volume(volume(affine=affine))) == ([code] if code else [])


@pytest.mark.parametrize("cosine", [0.06, 0.5, -0.3])
def test_a_strong_shear_is_refused(cosine: float) -> None:
    affine = LPS.copy()
    affine[1, 2] = cosine * 2
    assert error_of(check_volume, volume(affine=affine)).code == "MX-GEO-017"


def test_the_limits_of_the_voxel_size() -> None:
    for spacing in (0.05, 50.0):
        assert "MX-GEO-018" not in codes(check_volume(volume(affine=np.diag([-spacing, -spacing, spacing, 1]))))


@pytest.mark.parametrize("spacing", [0.049, 51.0, 1e-6, 1e6])
def test_absurd_voxel_sizes_are_refused_along_any_axis(spacing: float) -> None:
    for axis in range(3):
        affine = LPS.copy()
        affine[axis, axis] = spacing
        assert error_of(check_volume, volume(affine=affine)).code == "MX-GEO-018"


def test_the_distance_of_two_slices_counts() -> None:
    affine = np.diag([-1.0, -1.0, 60.0, 1.0])
    assert error_of(check_volume, volume(head()[:, :, 8:10], affine=affine)).code == "MX-GEO-018"


def test_the_thickness_of_a_single_slice_does_not_count() -> None:
    affine = np.diag([-1.0, -1.0, 60.0, 1.0])
    assert codes(check_volume(volume(head()[:, :, 8:9], affine=affine))) == ["MX-IMG-010"]


def test_needle_shaped_voxels_are_noted() -> None:
    (warning,) = check_volume(volume(affine=np.diag([-0.5, -0.5, 4.1, 1])))
    assert warning.code == "MX-GEO-019" and "8.2 times" in warning.found
    assert codes(check_volume(volume(affine=np.diag([-0.5, -0.5, 4.0, 1])))) == []


def test_a_grid_ten_metres_away_is_noted() -> None:
    affine = LPS.copy()
    affine[2, 3] = 10_500 - 30
    (warning,) = check_volume(volume(affine=affine))
    assert warning.code == "MX-GEO-008" and "10.5 m" in warning.found
    affine[2, 3] = 10_000 - 30  # the last slice lies at 10 m
    assert check_volume(volume(affine=affine)) == []


# --- several sources ---


def test_good_sources_pass_without_a_word() -> None:
    pair = [volume(head(1)), volume(head(2), Modality.T2)]
    assert check_sources(pair, [Modality.T1, Modality.T2]) == []
    assert check_sources(pair[::-1], [Modality.T1, Modality.T2]) == []


def test_a_missing_modality_is_named() -> None:
    error = error_of(check_sources, [volume(head(1))], [Modality.T1, Modality.T2, Modality.FLAIR])
    assert error.code == "MX-IMG-030" and error.found.startswith("T2, FLAIR is missing") and "T1" in error.found
    assert error_of(check_sources, [], [Modality.T1]).code == "MX-IMG-030"


def test_a_modality_given_twice_is_refused() -> None:
    error = error_of(check_sources, [volume(head(1)), volume(head(2))], [Modality.T1])
    assert error.code == "MX-IMG-031" and "T1" in error.found


def test_a_source_the_model_does_not_use_is_noted() -> None:
    sources = [volume(head(1)), volume(head(2), Modality.PD)]
    assert codes(check_sources(sources, [Modality.T1])) == ["MX-IMG-032"]
    assert check_sources(sources, [Modality.T1], [Modality.PD]) == []


def test_one_image_under_two_names_is_refused() -> None:
    first = volume(head(1))
    assert error_of(check_sources, [first, replace(first, modality=Modality.T2)], [Modality.T1]).code == "MX-IMG-033"
    moved = LPS.copy()
    moved[0, 3] = 0.5
    copy = volume(head(1).copy(), Modality.T2, moved)
    assert error_of(check_sources, [first, copy], [Modality.T1]).code == "MX-IMG-033"


def test_two_frames_of_one_file_may_be_two_sources() -> None:
    first = replace(volume(head(1)), source=Source("a", sha256="1" * 64))
    other_frame = replace(volume(head(2), Modality.T2), source=Source("a", sha256="1" * 64))
    assert check_sources([first, other_frame], [Modality.T1, Modality.T2]) == []


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (0.01, 5.0)])
def test_one_image_rescaled_under_two_names_is_noted(scale: float, shift: float) -> None:
    pair = [volume(head(1)), volume(head(1) * np.float32(scale) + np.float32(shift), Modality.T2)]
    assert codes(check_sources(pair, [Modality.T1, Modality.T2])) == ["MX-IMG-034"]
    inverted = [volume(head(1)), volume(1000 - head(1), Modality.T2)]
    assert check_sources(inverted, [Modality.T1, Modality.T2]) == []


def test_constant_sources_have_no_correlation() -> None:
    pair = [volume(np.full(SHAPE, value, np.float32), m) for value, m in ((1.0, Modality.T1), (2.0, Modality.T2))]
    assert check_sources(pair, [Modality.T1]) == check_sources([pair[0], volume(head(1), Modality.T2)], [Modality.T1])


def test_sources_that_barely_meet_are_refused_and_cut_ones_noted() -> None:
    reference = volume(head(1))

    def shifted(millimetres: float) -> Volume:
        affine = LPS.copy()
        affine[0, 3] += millimetres
        return volume(head(2), Modality.T2, affine)

    both = [Modality.T1, Modality.T2]
    error = error_of(check_sources, [reference, shifted(4)], both)
    assert error.code == "MX-GEO-030" and "only 86 % of the reference" in error.found and "90 %" in error.expected
    assert "only 0 %" in error_of(check_sources, [reference, shifted(500)], both).found
    (warning,) = check_sources([reference, shifted(1.6)], both)
    assert warning.code == "MX-GEO-031" and "2.3 % of the reference" in warning.found
    assert check_sources([reference, shifted(0.3)], both) == []


def test_a_larger_and_turned_source_covers_the_reference() -> None:
    turn = np.array([[0, -2.0, 0, 30], [-2.0, 0, 0, 30], [0, 0, 2.0, -10], [0, 0, 0, 1]])
    around = volume(head(2, (40, 40, 40)), Modality.T2, turn)
    assert check_sources([volume(head(1)), around], [Modality.T1, Modality.T2]) == []
    # the other way round the small one is not enough
    assert error_of(check_sources, [around, volume(head(1))], [Modality.T1]).code == "MX-GEO-030"


def test_only_the_references_tissue_must_be_covered() -> None:
    roomy = np.zeros((48, 40, 32), np.float32)
    roomy[12:36, 10:30, 8:24] = head(1)
    affine = LPS.copy()
    affine[:3, 3] = LPS[:3, :3] @ [-12, -10, -8]
    small = volume(head(2), Modality.T2)
    assert check_sources([volume(roomy, affine=affine), small], [Modality.T1, Modality.T2]) == []


# --- regions ---


def lesion(values: object = 1, affine: np.ndarray = LPS, dtype: str = "uint8") -> Volume:
    array = np.zeros(SHAPE, dtype)
    array[8:12, 8:12, 6:9] = values
    return Volume(array, Geometry(SHAPE, affine), Modality.LABEL, Source("roi.nii.gz"))


def test_a_good_region_passes_without_a_word() -> None:
    assert check_roi(lesion(), volume(), LABELS) == []
    assert check_roi(lesion(), volume().geometry, LABELS) == []
    assert check_roi(lesion(True, dtype="bool"), volume(), LABELS) == []
    assert check_roi(lesion(2.0, dtype="float32"), volume(), LABELS) == []


def test_an_empty_region_is_the_same_as_none() -> None:
    assert codes(check_roi(lesion(0), volume(), LABELS)) == ["MX-ROI-015"]


@pytest.mark.parametrize("value", [0.5, nan, inf])
def test_fractions_are_refused(value: float) -> None:
    error = error_of(check_roi, lesion(value, dtype="float32"), volume(), LABELS)
    assert error.code == "MX-ROI-001" and f"{value:g} (48 voxels" in error.found


@pytest.mark.parametrize("value", [5, 255, 7])
def test_labels_without_a_meaning_are_listed(value: int) -> None:
    array = np.where(lesion().array, value, 0).astype(np.uint8)
    array[0, 0, 0] = 2
    error = error_of(check_roi, Volume(array, Geometry(SHAPE, LPS), Modality.LABEL, Source("x")), volume(), LABELS)
    assert error.code == "MX-ROI-013" and f"[2, {value}]" in error.found
    assert "oedema = 2" in error.expected and "core = 1 or 3 or 4" in error.expected


def test_a_region_elsewhere_is_refused_and_one_that_sticks_out_noted() -> None:
    away = LPS.copy()
    away[0, 3] = 100
    assert error_of(check_roi, lesion(affine=away), volume(), LABELS).code == "MX-ROI-011"
    edge = LPS.copy()
    edge[0, 3] = 10
    warnings = check_roi(lesion(affine=edge), volume(), LABELS)
    assert codes(warnings) == ["MX-ROI-012"] and "50.0 %" in warnings[0].found


def test_a_region_on_another_grid_is_judged_by_its_place() -> None:
    turned = np.array([[0, -1.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    assert check_roi(lesion(affine=turned), volume(), LABELS) == []


def test_a_region_over_most_of_the_volume_is_noted() -> None:
    whole = Volume(np.ones(SHAPE, np.uint8), Geometry(SHAPE, LPS), Modality.LABEL)
    (warning,) = check_roi(whole, volume(), LABELS)
    assert warning.code == "MX-ROI-014" and "100 %" in warning.found
    half = np.zeros(SHAPE, np.uint8)
    half[: SHAPE[0] // 2] = 1
    assert check_roi(Volume(half, Geometry(SHAPE, LPS), Modality.LABEL), volume(), LABELS) == []


def test_what_lies_outside_covers_nothing() -> None:
    aside = LPS.copy()
    aside[0, 3] = SHAPE[0] / 2
    whole = Volume(np.ones(SHAPE, np.uint8), Geometry(SHAPE, aside), Modality.LABEL)
    (warning,) = check_roi(whole, volume(), LABELS)
    assert warning.code == "MX-ROI-012" and "50.0 %" in warning.found


def test_coverage_is_measured_in_cubic_millimetres() -> None:
    fine = np.diag([-0.5, -0.5, 1.0, 1.0])
    small = Volume(np.ones(SHAPE, np.uint8), Geometry(SHAPE, fine), Modality.LABEL)
    assert check_roi(small, volume(), LABELS) == []  # an eighth of the volume


# --- real volumes ---

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real = [pytest.mark.real_data, pytest.mark.skipif(not DATA.is_dir(), reason=f"the real volumes are not at {DATA}")]


def test_real_mr_ct_and_pet_pass_without_a_word() -> None:
    folder = DATA / "ibsi-sts" / "STS_042"
    for name, modality in (("MR_T1_image", "T1"), ("CT_image", "CT"), ("PET_image", "PET")):
        assert check_volume(read_volume(folder / f"{name}.nii.gz", modality)) == []
    roi = read_volume(folder / "MR_T1_mask.nii.gz", "label")
    assert check_roi(roi, read_volume(folder / "MR_T1_image.nii.gz", "T1"), LABELS) == []


def test_real_ct_and_mr_of_one_patient_fit_and_of_two_patients_do_not() -> None:
    def pair(mr: str, ct: str) -> list[Volume]:
        names = (mr, "MR_T1_image", "T1"), (ct, "CT_image", "CT")
        return [read_volume(DATA / "ibsi-sts" / patient / f"{name}.nii.gz", m) for patient, name, m in names]

    both = [Modality.T1, Modality.CT]
    assert check_sources(pair("STS_042", "STS_042"), both) == []
    assert error_of(check_sources, pair("STS_042", "STS_010"), both).code == "MX-GEO-030"


@pytest.mark.parametrize(
    ("name", "modality", "expected"),
    [
        ("nan_inf_float32", "T1", "MX-IMG-001"),
        ("constant_zero", "T1", "MX-IMG-003"),
        ("uint8_bool_mask_as_image", "T1", ["MX-IMG-009"]),
        ("single_slice", "T1", ["MX-IMG-010"]),
        ("int16_slope_inter", "T1", ["MX-IMG-007"]),
        ("oblique23", "T1", []),
        ("permuted_axes", "T1", []),
        ("oblique23", "CT", ["MX-IMG-008"]),
    ],
)
def test_awkward_volumes_get_the_words_they_deserve(name: str, modality: str, expected: str | list[str]) -> None:
    loaded = read_volume(DATA / "awkward" / "derived" / f"{name}.nii.gz", modality)
    if isinstance(expected, str):
        assert error_of(check_volume, loaded).code == expected
    else:
        assert codes(check_volume(loaded)) == expected


for _test in (
    test_real_mr_ct_and_pet_pass_without_a_word,
    test_real_ct_and_mr_of_one_patient_fit_and_of_two_patients_do_not,
    test_awkward_volumes_get_the_words_they_deserve,
):
    for _mark in real:
        _mark(_test)
