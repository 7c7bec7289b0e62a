"""Each protocol against closed forms or an oracle of its own; refusals and warnings."""

import dataclasses
import json
import math

import numpy as np
import pytest

from MedXlateCore.errors import InputError, UsageError
from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.protocols import PROTOCOLS
from MedXlateCore.metrics.result import intensity_map
from MedXlateCore.volume import Geometry, Volume

RNG = np.random.default_rng(11)


def codes(result):
    return [warning.code for warning in result.warnings]


# --- volume3d -------------------------------------------------------------------------------------------------------


def test_region_figures_weighted_by_voxels_add_up_to_the_brain(head):
    result = evaluate(*head[:2], regions=head[2])
    brain, lesion, healthy = (result.regions[name] for name in ("brain", "lesion", "healthy"))
    assert brain["voxels"] == lesion["voxels"] + healthy["voxels"]
    for name in ("mae", "ssim"):
        total = lesion["voxels"] * lesion[name] + healthy["voxels"] * healthy[name]
        assert total / brain["voxels"] == pytest.approx(brain[name], rel=1e-12)
    assert {"oedema", "core", "enhancing"} <= set(result.regions)


def test_the_flat_figures_are_those_of_the_brain(head):
    result = evaluate(*head[:2], regions=head[2])
    assert result.metrics == {name: result.regions["brain"][name] for name in ("mae", "psnr", "ssim")}
    assert list(result.to_dict())[:4] == ["protocol", "mae", "psnr", "ssim"]


def test_a_known_offset_inside_the_range_gives_the_known_error(volume_of):
    inside = np.zeros((20, 20, 20), bool)
    inside[4:16, 4:16, 4:16] = True
    reference = np.where(inside, RNG.uniform(100, 200, inside.shape), 0)
    reference = np.where(inside & (reference > 150), 180, np.where(inside, 120, 0))
    reference[4, 4, :] = np.where(inside[4, 4, :], 100, 0)
    reference[5, 5, :] = np.where(inside[5, 5, :], 200, 0)
    result = evaluate(volume_of(reference), volume_of(np.where(inside, reference + 10.0, 0)))
    share = np.mean(reference[inside] < 200)  # what lies at the upper limit cannot get brighter
    assert result.details["scale"]["low"] == 100
    assert result.details["scale"]["high"] == 200
    assert result.metrics["mae"] == pytest.approx(0.1 * share, rel=1e-12)
    assert result.metrics["psnr"] == pytest.approx(-10 * math.log10(0.01 * share), rel=1e-12)


def test_both_images_are_scaled_by_the_reference_so_a_global_gain_counts(head):
    reference, _, _ = head
    brighter = reference.with_array(reference.array * np.float32(1.1))
    assert evaluate(reference, brighter).metrics["mae"] > 0.05


def test_matched_intensities_do_not_see_a_linear_map_and_say_so(head):
    reference, _, _ = head
    mapped = reference.with_array(np.where(reference.array > 0, reference.array * np.float32(3) + 50, 0))
    result = evaluate(reference, mapped, match_intensity=True)
    assert result.protocol.name == "volume3d+matched"
    assert result.metrics["mae"] < 1e-6
    assert intensity_map(result) == pytest.approx((1 / 3, -50 / 3), rel=1e-4)


def test_the_similarity_map_does_not_depend_on_the_crop_around_the_brain(head):
    from MedXlateCore.metrics import image

    reference, synthetic, _ = head
    result = evaluate(reference, synthetic)
    low, high = result.details["scale"]["low"], result.details["scale"]["high"]
    unit = [np.clip((v.array.astype(float) - low) / (high - low), 0, 1) for v in (reference, synthetic)]
    whole = image.ssim_map(*unit, PROTOCOLS["volume3d"].window, 1.0)
    mask = reference.array > 0
    assert result.metrics["ssim"] == pytest.approx(whole[mask].mean(), rel=1e-12)


def test_a_region_beyond_the_percentiles_is_said_to_be_cut_off(head):
    reference, synthetic, labels = head
    bright = np.where(labels.array == 4, 900, reference.array)
    result = evaluate(reference.with_array(bright), synthetic, regions=labels)
    assert any(w.code == "MX-MET-110" and "'enhancing'" in w.found for w in result.warnings)


def test_a_mask_restricts_the_measurement(volume_of, head):
    mask = np.zeros(head[0].array.shape, np.uint8)
    mask[10:18, 10:18, 8:14] = 1
    result = evaluate(*head[:2], mask=volume_of(mask, "label"))
    assert result.regions["brain"]["voxels"] == mask.sum()
    assert result.details["mask"] == "given"


def test_a_mask_on_the_background_has_no_range_to_scale_by(volume_of, head):
    mask = np.zeros(head[0].array.shape, np.uint8)
    mask[:2, :2, :2] = 1
    with pytest.raises(InputError, match="MX-MET-013"):
        evaluate(*head[:2], mask=volume_of(mask, "label"))


# --- tlp and medprompt: slices --------------------------------------------------------------------------------------


def test_tlp_agrees_with_scikit_image_slice_by_slice(volume_of):
    metrics = pytest.importorskip("skimage.metrics")
    reference = RNG.integers(0, 256, (20, 22, 5)).astype(np.uint8)
    synthetic = np.clip(reference + RNG.integers(-30, 30, reference.shape), 0, 255).astype(np.uint8)
    synthetic[..., 2] = reference[..., 2]
    result = evaluate(volume_of(reference), volume_of(synthetic), "tlp")
    pairs = [(reference[..., k], synthetic[..., k]) for k in range(5)]
    ssim = [metrics.structural_similarity(*pair) for pair in pairs]
    psnr = [metrics.peak_signal_noise_ratio(*pair) for k, pair in enumerate(pairs) if k != 2]
    nmse = [((r.astype(float) - s) ** 2).mean() / r.astype(float).var() for r, s in pairs]
    for name, values in (("ssim", ssim), ("psnr", psnr), ("nmse", nmse)):
        assert result.metrics[name] == pytest.approx(np.mean(values), rel=1e-12)
        assert result.metrics[f"{name}_std"] == pytest.approx(np.std(values), rel=1e-12)
    assert codes(result) == ["MX-MET-107", "MX-MET-104"]  # slice 2 is identical and left out of PSNR only


def test_predicting_each_slices_mean_gives_a_tlp_nmse_of_one(volume_of):
    reference = RNG.integers(0, 2, (16, 16, 3)) * 200  # 0 or 200: the mean is a whole number where half are 200
    reference = np.sort(reference.reshape(-1, 3), axis=0).reshape(16, 16, 3)
    reference[:8], reference[8:] = 0, 200
    flat = np.full_like(reference, 100)
    assert evaluate(volume_of(reference), volume_of(flat), "tlp").metrics["nmse"] == pytest.approx(1.0, rel=1e-12)


def test_tlp_truncates_by_the_references_range(volume_of):
    level = 1000.0 / 255
    reference = (np.arange(256).reshape(16, 16, 1) + 0.1) * level
    reference[0, 0, 0], reference[-1, -1, 0] = 0.0, 1000.0
    synthetic = np.minimum(reference + 0.8 * level, 1000.0)  # rounding would give the next level
    result = evaluate(volume_of(reference), volume_of(synthetic), "tlp")
    assert result.metrics["mse"] == 0.0
    assert result.metrics["psnr"] is None
    assert result.metrics["ssim"] == 1.0


def test_slices_are_axial_whatever_the_axis_order():
    array = RNG.random((10, 12, 9)).astype(np.float32)
    other = (array + 0.1 * RNG.random(array.shape)).astype(np.float32)
    sagittal = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # i to A, j to S, k to R
    turned = Geometry(array.shape, sagittal)
    result = evaluate(Volume(array, turned), Volume(other, turned), "tlp")
    assert result.details["slice_axis"] == "J"
    upright = Geometry((10, 9, 12), np.eye(4))
    again = evaluate(Volume(array.transpose(0, 2, 1), upright), Volume(other.transpose(0, 2, 1), upright), "tlp")
    assert again.metrics == pytest.approx(result.metrics)


def test_a_single_slice_is_measured_in_its_own_plane(volume_of):
    array = RNG.random((1, 14, 15))
    result = evaluate(volume_of(array), volume_of(array * 0.9), "medprompt")
    assert result.details["slice_axis"] == "I"
    assert len(result.per_slice) == 1


def test_medprompt_agrees_with_scikit_image(volume_of):
    metrics = pytest.importorskip("skimage.metrics")
    reference, synthetic = RNG.random((24, 20, 3)), RNG.random((24, 20, 3))
    reference[0, 0, 0], reference[0, 0, 1] = 0.0, 1.0
    result = evaluate(volume_of(reference), volume_of(synthetic), "medprompt")
    pairs = [(reference[..., k], synthetic[..., k]) for k in range(3)]
    ssim = [
        metrics.structural_similarity(*p, data_range=1.0, gaussian_weights=True, use_sample_covariance=False)
        for p in pairs
    ]
    assert result.metrics["ssim"] == pytest.approx(np.mean(ssim), rel=1e-12)
    assert result.metrics["mae"] == pytest.approx(255 * np.abs(reference - synthetic).mean(), rel=1e-12)


# --- hinet, brasyn, synthrad2025 ------------------------------------------------------------------------------------


def test_hinet_hides_a_linear_intensity_error_and_blanks_the_background(volume_of):
    reference = np.where(RNG.random((12, 12, 12)) > 0.3, RNG.uniform(10, 100, (12, 12, 12)), 0.0)
    result = evaluate(volume_of(reference), volume_of(reference * 7 + 3), "hinet")
    assert result.metrics["nmse"] == pytest.approx(0.0, abs=1e-20)
    assert result.metrics["ssim"] == pytest.approx(1.0)
    dirty = np.where(reference == 0, 50.0, reference)  # changes nothing but the background
    dirty[tuple(np.argwhere(reference > 0)[0])] = 0.0  # keeps the minimum
    lone = (reference[tuple(np.argwhere(reference > 0)[0])] / reference.max()) ** 2
    energy = np.square(reference / reference.max()).sum()
    assert evaluate(volume_of(reference), volume_of(dirty), "hinet").metrics["nmse"] == pytest.approx(lone / energy)


def test_hinet_agrees_with_scikit_image(volume_of):
    metrics = pytest.importorskip("skimage.metrics")
    reference, synthetic = RNG.random((10, 11, 12)), RNG.random((10, 11, 12))
    result = evaluate(volume_of(reference), volume_of(synthetic), "hinet")
    unit = [(a - a.min()) / (a.max() - a.min()) for a in (reference, synthetic)]
    unit[1][unit[0] == 0] = 0
    assert result.metrics["ssim"] == pytest.approx(metrics.structural_similarity(*unit, data_range=2.0), rel=1e-12)
    assert result.metrics["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(*unit, data_range=1.0), rel=1e-12)


def test_brasyn_does_not_see_a_global_gain(head):
    reference, synthetic, labels = head
    brighter = synthetic.with_array(synthetic.array * np.float32(4))
    first, second = (evaluate(reference, image, "brasyn", regions=labels).metrics for image in (synthetic, brighter))
    assert first == pytest.approx(second, rel=1e-6)


def test_brasyn_agrees_with_the_definition_in_torch(head):
    torch = pytest.importorskip("torch")
    reference, synthetic, labels = head
    result = evaluate(reference, synthetic, "brasyn", regions=labels)

    def unit(array):
        low, high = np.percentile(array, [0.5, 99.5])
        return (np.clip(array, max(low, 0), high) - max(low, 0)) / (high - max(low, 0))

    def ssim(first, second):  # a dense 3D kernel on reflected data, averaged over the whole grid
        taps = torch.exp(-((torch.arange(-5, 6, dtype=torch.float64) / 1.5) ** 2) / 2)
        taps = taps / taps.sum()
        kernel = (taps[:, None, None] * taps[None, :, None] * taps)[None, None]
        a, b = (torch.as_tensor(x)[None, None] for x in (first, second))
        span = max(a.max() - a.min(), b.max() - b.min())
        pad = [torch.nn.functional.pad(x, (5,) * 6, mode="reflect") for x in (a, b)]
        ux, uy, xx, yy, xy = (
            torch.nn.functional.conv3d(x, kernel) for x in (*pad, pad[0] ** 2, pad[1] ** 2, pad[0] * pad[1])
        )
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        top = (2 * ux * uy + c1) * (2 * (xy - ux * uy) + c2)
        return float((top / ((ux**2 + uy**2 + c1) * (xx - ux**2 + yy - uy**2 + c2))).mean())

    a, b, tumour = unit(reference.array.astype(float)), unit(synthetic.array.astype(float)), labels.array > 0
    assert result.metrics["ssim_tumor"] == pytest.approx(ssim(a * tumour, b * tumour), rel=1e-10)
    assert result.metrics["ssim_non_tumor"] == pytest.approx(ssim(a * ~tumour, b * ~tumour), rel=1e-10)


def test_brasyn_takes_the_mask_for_the_tumour_if_there_is_no_segmentation(head):
    reference, synthetic, labels = head
    by_mask = evaluate(reference, synthetic, "brasyn", mask=labels)
    assert by_mask.metrics == evaluate(reference, synthetic, "brasyn", regions=labels).metrics
    assert codes(by_mask) == []


def test_brasyn_without_a_tumour_has_no_tumour_figure(volume_of, head):
    empty = volume_of(np.zeros(head[0].array.shape, np.uint8), "label")
    result = evaluate(*head[:2], "brasyn", regions=empty)
    assert result.metrics["ssim_tumor"] is None
    assert result.metrics["ssim_non_tumor"] is not None
    assert codes(result) == ["MX-MET-108"]


def test_brasyn_needs_a_segmentation(head):
    with pytest.raises(UsageError, match="MX-MET-005"):
        evaluate(*head[:2], "brasyn")


def test_synthrad_error_is_in_hu_inside_the_mask_and_not_clipped(volume_of):
    reference = RNG.uniform(-1000, 1500, (30, 28, 26)).astype(np.float32)
    mask = np.zeros(reference.shape, np.uint8)
    mask[5:25, 5:23, 5:21] = 1
    synthetic = np.where(mask > 0, reference + 5000, -3000).astype(np.float32)
    result = evaluate(
        volume_of(reference, "CT"), volume_of(synthetic, "CT"), "synthrad2025", mask=volume_of(mask, "label")
    )
    inside = mask > 0
    clipped = 3071.0 - reference[inside].astype(float)
    assert result.metrics["mae"] == pytest.approx(5000, rel=1e-6)
    assert result.metrics["psnr"] == pytest.approx(20 * math.log10(4095) - 10 * math.log10((clipped**2).mean()))
    assert codes(result) == []


def test_synthrad_without_a_mask_or_without_hu_is_warned_of(volume_of):
    reference = RNG.uniform(0, 300, (20, 20, 20))
    result = evaluate(volume_of(reference, "T1"), volume_of(reference + 1, "T1"), "synthrad2025")
    assert codes(result) == ["MX-MET-106", "MX-MET-105"]
    assert result.metrics["mae"] == pytest.approx(1.0)


# --- refusals and warnings of all protocols -------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_identical_images_have_no_psnr_and_are_said_to_be_identical(volume_of, head, protocol):
    reference, _, labels = head
    result = evaluate(reference, reference, protocol, mask=labels, regions=labels)
    assert "MX-MET-101" in codes(result)
    assert result.metrics.get("psnr") is None
    assert not any("undefined" in warning.found for warning in result.warnings)
    for name, value in result.metrics.items():
        if "ssim" in name and not name.endswith("_std"):
            assert value == pytest.approx(1.0, abs=1e-12)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("shift, refused", [(0.0009, False), (0.002, True)])
def test_grids_may_differ_by_a_thousandth_of_a_millimetre(head, shift, refused):
    reference, synthetic, _ = head
    affine = reference.geometry.affine_ras.copy()
    affine[0, 3] += shift
    moved = Volume(synthetic.array, Geometry(synthetic.array.shape, affine))
    if refused:
        with pytest.raises(InputError, match=r"MX-MET-010.*0\.002 mm apart"):
            evaluate(reference, moved)
    else:
        evaluate(reference, moved)


def test_another_shape_is_refused(volume_of, head):
    with pytest.raises(InputError, match="MX-MET-010") as caught:
        evaluate(head[0], volume_of(np.ones((5, 5, 5))))
    assert "resample" in caught.value.fix


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(head, which, value):
    volumes = list(head[:2])
    spoiled = volumes[which].array.copy()
    spoiled[3, 3, 3] = value
    volumes[which] = volumes[which].with_array(spoiled)
    with pytest.raises(InputError, match="MX-MET-011: 1 of"):
        evaluate(*volumes)


def test_exchanged_files_are_suspected_where_the_reference_is_synthetic(head):
    reference, synthetic, _ = head
    assert "MX-MET-109" in codes(evaluate(dataclasses.replace(synthetic, synthetic=True), reference))


def test_a_constant_synthetic_image_is_warned_of(head):
    reference, synthetic, _ = head
    assert "MX-MET-112" not in codes(evaluate(reference, synthetic))
    flat = synthetic.with_array(np.full_like(synthetic.array, 7))
    found = [warning for warning in evaluate(reference, flat).warnings if warning.code == "MX-MET-112"]
    assert len(found) == 1
    assert "the value 7" in found[0].found


def test_labels_named_without_a_segmentation_are_refused(head):
    with pytest.raises(UsageError, match="MX-MET-007"):
        evaluate(*head[:2], region_labels={"core": [1]})


def test_a_mask_that_the_protocol_does_not_use_is_said(head):
    assert "MX-MET-111" in codes(evaluate(*head[:2], "medprompt", mask=head[2]))


def test_inputs_are_not_modified(head):
    before = [volume.array.copy() for volume in head]
    for protocol in PROTOCOLS:
        evaluate(*head[:2], protocol, mask=head[2], regions=head[2])
    for volume, array in zip(head, before, strict=True):
        np.testing.assert_array_equal(volume.array, array)
