"""Random fields."""

import numpy as np

from MedXlateCore.phantom.fields import BandNoise, Grid, generator, gradient, smooth_noise


def grid(n, spacing):
    axis = ((np.arange(n) - (n - 1) / 2) * spacing).astype(np.float32)
    return Grid((-axis, -axis, axis))


def test_noise_has_about_unit_variance():
    field = smooth_noise(generator(1, "a"), grid(60, 4.0), 9.0)
    assert 0.85 < field.std() < 1.15


def test_noise_is_the_same_at_any_resolution():
    coarse = smooth_noise(generator(1, "a"), grid(9, 8.0), 20.0)
    fine = smooth_noise(generator(1, "a"), grid(17, 4.0), 20.0)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)


def test_parts_draw_different_numbers():
    assert not np.array_equal(generator(1, "a").random(4), generator(1, "b").random(4))
    assert not np.array_equal(generator(1, "a").random(4), generator(2, "a").random(4))


def test_band_noise_has_its_wavelength():
    x = np.arange(0, 200, 0.5, dtype=np.float32)
    crossings = []
    for seed in range(20):
        values = BandNoise(generator(seed, "w"), 30.0).at((x - 100, np.zeros_like(x), np.zeros_like(x)))
        crossings.append(np.count_nonzero(np.diff(np.sign(values))))
    # along a line, an isotropic field of one wavelength crosses zero every sqrt(3)/2 wavelengths
    assert abs(200 / np.mean(crossings) - 30.0 * np.sqrt(3) / 2) < 3.0


def test_gradient_is_per_mm_in_space_whatever_the_index_direction():
    g = grid(5, 2.0)
    x = np.broadcast_to(g.axes[0][:, None, None], g.shape)
    dx, dy, dz = gradient(x, g)
    np.testing.assert_allclose(dx, 1.0)
    np.testing.assert_allclose(dy, 0.0)
    np.testing.assert_allclose(dz, 0.0)
