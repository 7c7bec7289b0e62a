"""Image metrics on arrays: MAE, MSE, PSNR, NMSE, SSIM and multi-scale SSIM, in float64.

What the arrays are scaled to, masked with and averaged over is the business of a protocol (``protocols.py``).
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedXlateCore.errors import InputError
from MedXlateCore.metrics.protocols import Quantisation, SsimWindow

__all__ = [
    "mean_absolute_error",
    "mean_squared_error",
    "multiscale_ssim",
    "normalised_mean_squared_error",
    "peak_signal_to_noise",
    "quantise",
    "ssim",
    "ssim_map",
]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

_MULTISCALE_SIDE = 97  # five scales with a 7-voxel window need this many voxels a side (SynthRAD2025)


def mean_absolute_error(reference: Float64Array, synthetic: Float64Array) -> float:
    """Return the mean of |synthetic - reference|, in the unit of the arrays."""
    return float(np.mean(np.abs(synthetic - reference)))


def mean_squared_error(reference: Float64Array, synthetic: Float64Array) -> float:
    """Return the mean of (synthetic - reference)², in the squared unit of the arrays."""
    return float(np.mean(np.square(synthetic - reference)))


def peak_signal_to_noise(squared_error: float, peak: float) -> float:
    """Return PSNR in dB for a mean squared error; infinite for an error of zero."""
    return float(10 * np.log10(peak**2 / squared_error)) if squared_error > 0 else float("inf")


def normalised_mean_squared_error(
    reference: Float64Array, synthetic: Float64Array, denominator: Literal["variance", "energy"]
) -> float | None:
    """Return the squared error relative to the reference.

    ``variance``: MSE / Var(reference), 0 where the reference has no variance (TLP). ``energy``: Σ(s-r)² / Σr² (HiNet),
    None where the reference is zero everywhere.
    """
    error = mean_squared_error(reference, synthetic)
    if denominator == "variance":
        variance = float(np.var(reference))
        return error / variance if variance > 0 else 0.0
    energy = float(np.mean(np.square(reference)))
    return error / energy if energy > 0 else None


def quantise(unit: Float64Array, how: Quantisation) -> Float64Array:
    """Map [0, 1] to 0-255, cut (``truncate_uint8``) or rounded (``round_uint8``) to integers; ``none``: no change."""
    if how == "none":
        return unit
    levels = np.clip(unit * 255.0, 0.0, 255.0)
    return np.trunc(levels) if how == "truncate_uint8" else np.rint(levels)


def ssim_map(reference: Float64Array, synthetic: Float64Array, window: SsimWindow, data_range: float) -> Float64Array:
    """Return the SSIM map (Wang et al. 2004, eq. 13) of two arrays of one shape, borders included.

    Windows that leave the array see mirrored data; ``ssim`` leaves those positions out where the window says so.
    """
    mean_r, mean_s, var_r, var_s, covariance = _local_moments(reference, synthetic, window)
    c1, c2 = (window.k1 * data_range) ** 2, (window.k2 * data_range) ** 2
    numerator = (2 * mean_r * mean_s + c1) * (2 * covariance + c2)
    return numerator / ((mean_r**2 + mean_s**2 + c1) * (var_r + var_s + c2))


def ssim(reference: Float64Array, synthetic: Float64Array, window: SsimWindow, data_range: float) -> float:
    """Return the mean SSIM of two arrays.

    Raises:
        InputError: ``MX-MET-014``, the window is larger than the image (only where borders are left out).
    """
    if window.borders == "cropped":
        _require_room(reference.shape, window)
        inner = _inner(reference.ndim, window)
        return float(ssim_map(reference, synthetic, window, data_range)[inner].mean())
    return float(ssim_map(reference, synthetic, window, data_range).mean())


def multiscale_ssim(
    reference: Float64Array, synthetic: Float64Array, mask: BoolArray, window: SsimWindow, data_range: float
) -> float | None:
    """Return the masked multi-scale SSIM of the SynthRAD2025 evaluator.

    Luminance, contrast and structure enter at every scale, each raised voxel by voxel to the scale's weight; the mean
    is taken inside the mask, and the means of all scales are multiplied. This is the evaluator's definition and differs
    from the textbook's (Wang et al. 2003), where luminance enters at the coarsest scale only.

    Args:
        reference, synthetic: values from 0 to ``data_range``, 0 outside the mask, shape [I, J, K].
        mask: where means are taken, same shape.
        window: uniform window with ``scale_weights``.
        data_range: highest possible value.

    Returns:
        The index, or None where the mask vanishes at a coarser scale (the evaluator gives NaN there).
    """
    reference, synthetic = _pad_to_side(reference), _pad_to_side(synthetic)
    mask = _pad_to_side(mask)
    product = 1.0
    for weight in window.scale_weights:
        inner = _inner(3, window)
        inside = mask[inner]
        if not inside.any():
            return None
        similarity = _weighted_similarity(reference, synthetic, window, data_range, weight)
        product *= float(np.clip(similarity[inner][inside].mean(), 0.0, 1.0))
        reference, synthetic, mask = _halve(reference), _halve(synthetic), mask[::2, ::2, ::2]
    return product


def _weighted_similarity(
    reference: Float64Array, synthetic: Float64Array, window: SsimWindow, data_range: float, weight: float
) -> Float64Array:
    mean_r, mean_s, var_r, var_s, covariance = _local_moments(reference, synthetic, window)
    c1, c2 = (window.k1 * data_range) ** 2, (window.k2 * data_range) ** 2
    c3 = c2 / 2
    deviations = np.sqrt(np.clip(var_r, 0, None)) * np.sqrt(np.clip(var_s, 0, None))
    luminance = (2 * mean_r * mean_s + c1) / (mean_r**2 + mean_s**2 + c1)
    contrast = (2 * deviations + c2) / (var_r + var_s + c2)
    structure = (covariance + c3) / (deviations + c3)
    factors = [np.clip(term, 0, None) ** weight for term in (luminance, contrast, structure)]
    return factors[0] * factors[1] * factors[2]


def _local_moments(
    reference: Float64Array, synthetic: Float64Array, window: SsimWindow
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array, Float64Array]:
    """Return the local means, variances and covariance of two arrays under a window."""
    count = window.size**reference.ndim
    norm = count / (count - 1) if window.sample_covariance else 1.0
    mean_r, mean_s = _smooth(reference, window), _smooth(synthetic, window)
    var_r = norm * (_smooth(reference * reference, window) - mean_r * mean_r)
    var_s = norm * (_smooth(synthetic * synthetic, window) - mean_s * mean_s)
    covariance = norm * (_smooth(reference * synthetic, window) - mean_r * mean_s)
    return mean_r, mean_s, var_r, var_s, covariance


def _smooth(array: Float64Array, window: SsimWindow) -> Float64Array:
    if window.kind == "uniform":
        return ndimage.uniform_filter(array, window.size)
    offsets = np.arange(window.size) - window.size // 2
    taps = np.exp(-0.5 * (offsets / (window.sigma or 1.0)) ** 2)
    taps /= taps.sum()
    for axis in range(array.ndim):
        array = ndimage.correlate1d(array, taps, axis=axis, mode="mirror")
    return array


def _inner(ndim: int, window: SsimWindow) -> tuple[slice, ...]:
    radius = window.size // 2
    return (slice(radius, -radius),) * ndim


def _require_room(shape: tuple[int, ...], window: SsimWindow) -> None:
    if min(shape) < window.size:
        raise InputError(
            "MX-MET-014",
            f"the image has shape {tuple(shape)}",
            expected=f"at least {window.size} voxels along every axis that the SSIM window of this protocol spans",
            fix="evaluate larger images, or under the protocol volume3d",
        )


def _pad_to_side(array: NDArray[Scalar]) -> NDArray[Scalar]:
    short = [max(_MULTISCALE_SIDE - n, 0) for n in array.shape]
    return np.pad(array, [(n // 2, n - n // 2) for n in short], mode="edge")


def _halve(array: Float64Array) -> Float64Array:
    """Average pairs (2m-1, 2m) along every axis, with zero before the first: the evaluator's box filter and stride."""
    for axis in range(array.ndim):
        moved = np.moveaxis(array, axis, 0)
        even = moved[::2].copy()
        even[1:] += moved[1::2][: even.shape[0] - 1]
        array = np.moveaxis(even / 2, 0, axis)
    return array
