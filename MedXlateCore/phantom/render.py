"""Images from a painted head: MR by the sequence equations, CT, cone-beam CT and FDG-PET."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from MedXlateCore.phantom.canvas import Layer
from MedXlateCore.phantom.fields import Array, Grid, generator, smooth_noise
from MedXlateCore.phantom.physics import MRAcquisition, signal
from MedXlateCore.phantom.tissues import Tissue, TissueProperties

__all__ = ["cone_beam_ct", "ct", "mix", "mr_image", "pet", "texture"]

_BRIGHTEST_BRAIN = 800.0
_REFERENCE_TISSUES = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CSF, Tissue.FAT)
_PET_FWHM_MM = 5.5
_CBCT_FIELD_MM = 125.0

Properties = Mapping[Tissue, TissueProperties]


def texture(seed: int, grid: Grid) -> Array:
    """Return the local water content, in spreads of each tissue: slow drift plus fine grain, one field per subject."""
    field = 0.65 * smooth_noise(generator(seed, "texture", 0), grid, 14.0)
    field += 0.55 * smooth_noise(generator(seed, "texture", 1), grid, 5.0)
    field += 0.50 * smooth_noise(generator(seed, "texture", 2), grid, 2.0)
    return field.clip(-2.5, 2.5)


def mix(
    layers: Sequence[Layer],
    properties: Properties,
    grain: Array,
    values: Callable[[TissueProperties], tuple[float, float]],
) -> Array:
    """Return the image in which each layer covers what lies beneath it.

    Args:
        layers: painted layers, bottom first.
        properties: the subject's tissues.
        grain: local water content, ``[I, J, K]``.
        values: returns a tissue's mean value and its change per unit of ``grain``.
    """
    image = np.full(grain.shape, values(properties[Tissue.AIR])[0], np.float32)
    for layer in layers:
        mean, slope = values(layer.properties or properties[layer.tissue])
        part = image[layer.box]
        target = grain[layer.box] * np.float32(slope) if slope else np.zeros(part.shape, np.float32)
        target += np.float32(mean)
        target -= part
        target *= layer.coverage
        part += target
    return image


def mr_image(
    layers: Sequence[Layer],
    properties: Properties,
    grain: Array,
    grid: Grid,
    scan: MRAcquisition,
    rng: np.random.Generator,
) -> Array:
    """Return an MR magnitude image, float32, 0 to about 1200 (arbitrary units).

    The receiver gain sets the strongest of grey matter, white matter, CSF and fat to 800, as a prescan does; then come
    coil shading and Rician noise (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995).
    """

    def values(tissue: TissueProperties) -> tuple[float, float]:
        """Return a tissue's signal and its change per unit of grain."""
        low, high = signal(tissue, scan, -1.0), signal(tissue, scan, 1.0)
        return signal(tissue, scan), (high - low) / 2.0

    image = mix(layers, properties, grain, values)
    strongest = max(signal(properties[t], scan) for t in _REFERENCE_TISSUES)
    gain = _BRIGHTEST_BRAIN / max(strongest, 1e-6) * rng.uniform(0.85, 1.15)
    image = ndimage.gaussian_filter(image, 0.45, truncate=3.0)
    shading = smooth_noise(rng, grid, 80.0)
    image *= np.float32(gain) * np.exp(np.float32(0.6 * scan.bias_field) * shading)
    return _add_rician_noise(image, scan.noise * _BRIGHTEST_BRAIN, rng)


def _add_rician_noise(image: Array, deviation: float, rng: np.random.Generator) -> Array:
    real = rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(image + np.float32(deviation) * real, np.float32(deviation) * imaginary)


def _attenuation(tissue: TissueProperties) -> tuple[float, float]:
    return tissue.attenuation_hu, tissue.attenuation_spread_hu


def ct(
    layers: Sequence[Layer], properties: Properties, grain: Array, rng: np.random.Generator, noise_hu: float = 3.0
) -> Array:
    """Return a CT image without contrast agent, float32 in HU, -1024 to about 2000."""
    image = ndimage.gaussian_filter(mix(layers, properties, grain, _attenuation), 0.4, truncate=3.0)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.6, 0.6, 0.0))  # the reconstruction kernel correlates neighbours in plane
    image += noise * np.float32(noise_hu / 0.48)
    return np.clip(image, -1024.0, 3071.0)


def cone_beam_ct(
    layers: Sequence[Layer],
    properties: Properties,
    grain: Array,
    grid: Grid,
    rng: np.random.Generator,
    noise_hu: float = 28.0,
) -> Array:
    """Return a cone-beam CT image, float32 in uncalibrated HU: scatter (cupping), less contrast, streaks, noise.

    The artefacts are an image-space imitation, not a simulation of projections.
    """
    image = ndimage.gaussian_filter(mix(layers, properties, grain, _attenuation), 0.7, truncate=3.0)
    head = ndimage.gaussian_filter((image > -400).astype(np.float32), [9.0 / s for s in grid.spacing_mm], truncate=2.0)
    soft = np.clip((image + 600.0) / 500.0, 0.0, 1.0)
    image = np.where(image > 100, 100 + 0.78 * (image - 100), 0.9 * image).astype(np.float32)
    deep = ndimage.gaussian_filter(head, [18.0 / s for s in grid.spacing_mm], truncate=2.0)
    image -= soft * np.float32(110.0) * (deep - 0.55) - np.float32(20.0) * (1.0 - soft)
    image += soft * _streaks(image, rng)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0.5, 0.5, 0.3))
    image += noise * np.float32(noise_hu / 0.5) * (0.35 + 0.65 * soft)
    x, y = grid.axes[0][:, None], grid.axes[1][None, :]
    seen = np.hypot(x, y + 8.0) < _CBCT_FIELD_MM
    return np.where(seen[..., None], np.clip(image, -1000.0, 3071.0), np.float32(-1000.0)).astype(np.float32)


def _streaks(image: Array, rng: np.random.Generator) -> Array:
    """Return streaks in HU: dark and bright bands where rays cross much bone, and fine lines in four directions."""
    bone = np.clip((image - 300.0) / 700.0, 0.0, 1.0)
    total = np.zeros_like(image)
    for axis in (0, 1):
        path = bone.mean(axis=axis)
        band = path - ndimage.gaussian_filter(path, (6.0, 1.0))
        total -= np.expand_dims(220.0 * band, axis).astype(np.float32)
    ni, nj, nk = image.shape
    i, j = np.arange(ni)[:, None], np.arange(nj)[None, :]
    for index in (j + 0 * i, i + 0 * j, i + j, i - j + nj):
        lines = rng.standard_normal((ni + nj, nk), dtype=np.float32)
        total += np.float32(7.0) * lines[index]
    return total


def pet(layers: Sequence[Layer], properties: Properties, grain: Array, grid: Grid, rng: np.random.Generator) -> Array:
    """Return an FDG-PET image, float32 in SUV: uptake blurred by the scanner (5.5 mm FWHM), with correlated noise."""

    def uptake(tissue: TissueProperties) -> tuple[float, float]:
        """Return a tissue's uptake and its change per unit of grain, SUV."""
        return tissue.uptake_suv, 0.05 * tissue.uptake_suv

    sigma = [_PET_FWHM_MM / 2.3548 / s for s in grid.spacing_mm]
    image = ndimage.gaussian_filter(mix(layers, properties, grain, uptake), sigma, truncate=3.0)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), [0.8 * s for s in sigma])
    noise /= max(float(noise.std()), 1e-6)
    image += np.float32(0.12) * np.sqrt(np.maximum(image, 0.05)) * noise
    return np.maximum(image, 0.0)
