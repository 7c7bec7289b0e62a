"""Metrics on arrays against closed forms and against scikit-image as an independent oracle."""

import math

import numpy as np
import pytest
from scipy.signal import fftconvolve

from MedXlateCore.errors import InputError
from MedXlateCore.metrics import image
from MedXlateCore.metrics.protocols import PROTOCOLS, SsimWindow

RNG = np.random.default_rng(3)
GAUSSIAN_2D = SsimWindow("gaussian", 11, 1.5, sample_covariance=False, dimensions=2, borders="cropped")
UNIFORM_2D = SsimWindow("uniform", 7, None, sample_covariance=True, dimensions=2, borders="cropped")


def noisy_pair(shape):
    reference = RNG.random(shape)
    return reference, np.clip(reference + 0.2 * RNG.standard_normal(shape), 0, 1)


def test_a_known_offset_gives_the_known_psnr():
    reference = RNG.random((8, 9))
    error = image.mean_squared_error(reference, reference + 0.1)
    assert error == pytest.approx(0.01)
    assert image.peak_signal_to_noise(error, 1.0) == pytest.approx(20.0)
    assert image.peak_signal_to_noise(0.01, 255.0) == pytest.approx(20.0 + 20 * math.log10(255))


def test_psnr_of_identical_images_is_infinite():
    assert image.peak_signal_to_noise(0.0, 1.0) == math.inf


def test_mean_absolute_error_is_in_the_unit_of_the_images():
    assert image.mean_absolute_error(np.array([0.0, 10.0]), np.array([2.0, 4.0])) == 4.0


def test_predicting_the_mean_gives_a_variance_nmse_of_one():
    reference = RNG.random((20, 20)) * 255
    flat = np.full_like(reference, reference.mean())
    assert image.normalised_mean_squared_error(reference, flat, "variance") == pytest.approx(1.0, rel=1e-12)


def test_predicting_zero_gives_an_energy_nmse_of_one():
    reference = RNG.random((20, 20))
    assert image.normalised_mean_squared_error(reference, np.zeros_like(reference), "energy") == pytest.approx(1.0)


def test_nmse_of_a_flat_reference_is_zero_by_variance_and_undefined_by_energy():
    flat = np.zeros((4, 4))
    assert image.normalised_mean_squared_error(flat, flat + 1, "variance") == 0.0
    assert image.normalised_mean_squared_error(flat, flat + 1, "energy") is None


def test_quantisation_truncates_or_rounds():
    unit = np.array([0.0, 0.4999, 0.999, 1.0])
    np.testing.assert_array_equal(image.quantise(unit, "truncate_uint8"), [0, 127, 254, 255])
    np.testing.assert_array_equal(image.quantise(unit, "round_uint8"), [0, 127, 255, 255])
    np.testing.assert_array_equal(image.quantise(unit, "none"), unit)


@pytest.mark.parametrize("shape", [(32, 28), (20, 18, 16)])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_ssim_agrees_with_scikit_image(shape, kind):
    metrics = pytest.importorskip("skimage.metrics")
    reference, synthetic = noisy_pair(shape)
    if kind == "uniform":
        window = SsimWindow("uniform", 7, None, sample_covariance=True, dimensions=len(shape), borders="cropped")
        expected = metrics.structural_similarity(reference, synthetic, data_range=1.0)
    else:
        window = SsimWindow("gaussian", 11, 1.5, sample_covariance=False, dimensions=len(shape), borders="cropped")
        expected = metrics.structural_similarity(
            reference, synthetic, data_range=1.0, gaussian_weights=True, use_sample_covariance=False
        )
    assert image.ssim(reference, synthetic, window, 1.0) == pytest.approx(expected, rel=1e-12)


def test_ssim_of_identical_images_is_one_everywhere():
    reference, _ = noisy_pair((16, 17, 18))
    np.testing.assert_array_equal(image.ssim_map(reference, reference, PROTOCOLS["volume3d"].window, 1.0), 1.0)


def test_the_mirrored_mean_covers_the_borders_and_the_cropped_one_does_not():
    reference = np.full((24, 24), 0.5)
    synthetic = reference.copy()
    synthetic[0, :] = 0.0
    mirrored = SsimWindow("gaussian", 11, 1.5, sample_covariance=False, dimensions=2, borders="mirrored")
    assert image.ssim(reference, synthetic, mirrored, 1.0) < image.ssim(reference, synthetic, GAUSSIAN_2D, 1.0)


def test_one_slice_under_the_3d_window_is_the_2d_ssim():
    reference, synthetic = noisy_pair((32, 30))
    flat = image.ssim_map(reference, synthetic, GAUSSIAN_2D, 1.0)
    thick = image.ssim_map(reference[..., None], synthetic[..., None], PROTOCOLS["volume3d"].window, 1.0)
    np.testing.assert_allclose(thick[..., 0], flat, atol=1e-12)


def test_an_image_smaller_than_the_window_is_refused():
    small = RNG.random((6, 40))
    with pytest.raises(InputError, match="MX-MET-014"):
        image.ssim(small, small, UNIFORM_2D, 1.0)


def test_multiscale_ssim_of_identical_images_is_one():
    window = PROTOCOLS["synthrad2025"].window
    reference = RNG.random((40, 30, 20)) * 4095
    assert image.multiscale_ssim(reference, reference, np.ones(reference.shape, bool), window, 4095.0) == 1.0


def test_multiscale_ssim_has_no_value_where_the_mask_vanishes_at_a_coarser_scale():
    window = PROTOCOLS["synthrad2025"].window
    reference = RNG.random((40, 30, 20)) * 4095
    mask = np.zeros(reference.shape, bool)
    mask[21, 15, 10] = True  # an odd index after padding: gone at the second scale
    assert image.multiscale_ssim(reference, reference * 0.9, mask, window, 4095.0) is None


@pytest.mark.parametrize("shape", [(8, 9, 10), (7, 7, 8)])
def test_halving_is_the_evaluators_box_filter_and_stride(shape):
    array = RNG.random(shape)
    expected = fftconvolve(array, np.ones((2, 2, 2)) / 8, mode="same")[::2, ::2, ::2]
    np.testing.assert_allclose(image._halve(array), expected, atol=1e-12)
