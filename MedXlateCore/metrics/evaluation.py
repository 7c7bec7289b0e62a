"""Measure a synthetic volume against its reference under one protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedXlateCore.errors import InputError, UsageError, Warned
from MedXlateCore.metrics import image
from MedXlateCore.metrics.inputs import pair_warnings, require_finite, require_same_grid, warn_if_unused
from MedXlateCore.metrics.protocols import Protocol, get_protocol, with_matched_intensity
from MedXlateCore.metrics.regions import BRAIN, evaluation_mask, region_masks
from MedXlateCore.metrics.result import EvaluationResult, Metrics
from MedXlateCore.transforms.orientation import axis_codes
from MedXlateCore.volume import Modality, Volume

__all__ = ["evaluate"]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_SATURATED_SHARE = 0.05  # the percentiles 0.5 and 99.5 put 1 % of the whole brain there


def evaluate(
    reference: Volume,
    synthetic: Volume,
    protocol: str | Protocol = "volume3d",
    *,
    mask: Volume | None = None,
    regions: Volume | None = None,
    region_labels: Mapping[str, Sequence[int]] | None = None,
    match_intensity: bool = False,
) -> EvaluationResult:
    """Compare ``synthetic`` with ``reference``; all volumes lie on one grid.

    Args:
        reference: the acquired image.
        synthetic: the image under test, in the same unit.
        protocol: a preset's name or a protocol of your own.
        mask: where to measure (above 0); the reference's foreground by default, where the protocol has a mask.
        regions: label map of the lesion (above 0); needed by ``brasyn``, where ``mask`` may stand for it.
        region_labels: label values of the lesion's parts, such as ``{"oedema": [2], "core": [1, 4]}``.
        match_intensity: first map the synthetic image linearly onto the reference's percentiles (``volume3d``).

    Raises:
        UsageError: ``MX-MET-001``, ``MX-MET-003`` (see ``protocols``), ``MX-MET-005`` (brasyn without a segmentation),
            ``MX-MET-007`` (labels named, but no segmentation).
        InputError: ``MX-MET-010`` (grids differ), ``MX-MET-011`` (NaN or infinite voxels), ``MX-MET-012`` (empty mask),
            ``MX-MET-013`` (no intensity range to scale by), ``MX-MET-014`` (image smaller than the SSIM window).
    """
    chosen = get_protocol(protocol)
    if match_intensity:
        chosen = with_matched_intensity(chosen)
    if region_labels and regions is None:
        raise UsageError(
            "MX-MET-007",
            f"label values were named ({', '.join(region_labels)}) but there is no segmentation",
            expected="the label map whose values were named",
            fix="give it with --regions",
        )
    require_same_grid(reference.geometry, synthetic, mask, regions)
    require_finite(reference, synthetic)
    case = _Case(chosen, reference, synthetic, mask, regions, region_labels)
    case.warnings.extend(pair_warnings(reference, synthetic) + warn_if_unused(chosen, mask, regions))
    measure = _measure_slices if chosen.dimensions == 2 else _MEASURES[chosen.mask_use]
    return measure(case)


@dataclass
class _Case:
    """One evaluation under way."""

    protocol: Protocol
    reference: Volume
    synthetic: Volume
    mask: Volume | None
    labels: Volume | None
    label_names: Mapping[str, Sequence[int]] | None
    warnings: list[Warned] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> tuple[Float64Array, Float64Array]:
        """Both images as float64."""
        return self.reference.array.astype(np.float64), self.synthetic.array.astype(np.float64)

    def number(self, value: float | None, name: str) -> float | None:
        """Return a finite number, or None with a warning."""
        if value is not None and math.isfinite(value):
            return float(value)
        identical = value is not None and math.isinf(value)
        why = "infinite: the images do not differ there" if identical else "undefined for these images"
        self.warnings.append(
            Warned("MX-MET-108", f"{name} is {why}", self.synthetic.name, "it is reported without a value")
        )
        return None

    def result(self, metrics: Metrics, **more: Any) -> EvaluationResult:
        """Return the result with the warnings gathered so far, each once."""
        warnings = tuple(dict.fromkeys(self.warnings))
        return EvaluationResult(self.protocol, metrics, warnings=warnings, details=self.details, **more)


# --- volume3d: maps averaged inside regions -------------------------------------------------------------------------


def _measure_regions(case: _Case) -> EvaluationResult:
    brain = evaluation_mask(case.reference, case.mask)
    reference, synthetic = _scale_by_reference(case, brain)
    masks, warnings = region_masks(brain, case.labels, case.label_names, case.protocol.healthy_margin_mm)
    case.warnings.extend(warnings)
    box = _bounding_box(brain, case.protocol.window.size)  # the map inside the brain needs no more than this
    reference, synthetic = reference[box], synthetic[box]
    data_range = case.protocol.ssim_range or 1.0
    similarity = image.ssim_map(reference, synthetic, case.protocol.window, data_range)
    millilitres = case.reference.geometry.voxel_volume_mm3 / 1000
    case.details["mask"] = "given" if case.mask is not None else "foreground of the reference"
    found: dict[str, dict[str, float | int | None]] = {}
    for name, mask in masks.items():
        count = int(np.count_nonzero(mask))
        _warn_if_saturated(case, name, reference[mask[box]])
        figures = _inside(case, name, reference[mask[box]], synthetic[mask[box]], similarity[mask[box]])
        found[name] = {"voxels": count, "volume_ml": count * millilitres, **figures}
    return case.result({name: found[BRAIN][name] for name in case.protocol.metrics}, regions=found)


def _inside(
    case: _Case, region: str, reference: Float64Array, synthetic: Float64Array, similarity: Float64Array
) -> Metrics:
    if not reference.size:
        return dict.fromkeys(case.protocol.metrics)
    psnr = image.peak_signal_to_noise(image.mean_squared_error(reference, synthetic), case.protocol.psnr_peak)
    figures = {
        "mae": image.mean_absolute_error(reference, synthetic) * case.protocol.mae_factor,
        "psnr": psnr,
        "ssim": float(similarity.mean()),
    }
    return {name: case.number(figures[name], f"{name} of the region '{region}'") for name in case.protocol.metrics}


def _warn_if_saturated(case: _Case, region: str, reference: Float64Array) -> None:
    """Warn where much of a region lies outside the range: differences beyond it are cut off and cannot be seen."""
    if not (case.protocol.clip and reference.size):
        return
    share = float(np.mean((reference <= 0.0) | (reference >= 1.0)))
    if share > _SATURATED_SHARE:
        text = (
            f"{share:.0%} of the region '{region}' lie at or beyond the limits of the intensity range in the reference"
        )
        case.warnings.append(
            Warned("MX-MET-110", text, case.reference.name, "differences beyond the limits do not count")
        )


def _scale_by_reference(case: _Case, brain: BoolArray) -> tuple[Float64Array, Float64Array]:
    reference, synthetic = case.arrays()
    low, high = _percentile_range(reference[brain], case, "reference")
    case.details["scale"] = {"low": low, "high": high, "unit": case.reference.modality.unit}
    if case.protocol.match_intensity:
        own_low, own_high = _percentile_range(synthetic[brain], case, "synthetic image")
        factor = (high - low) / (own_high - own_low)
        offset = low - factor * own_low
        synthetic = synthetic * factor + offset
        case.details["matched"] = {"factor": factor, "offset": offset}
    return _to_unit(reference, low, high, case.protocol.clip), _to_unit(synthetic, low, high, case.protocol.clip)


# --- tlp, medprompt: slices -----------------------------------------------------------------------------------------


def _measure_slices(case: _Case) -> EvaluationResult:
    reference, synthetic = _working_pair(case)
    axis = _slice_axis(case.reference)
    slices = zip(np.moveaxis(reference, axis, 0), np.moveaxis(synthetic, axis, 0), strict=True)
    rows: list[dict[str, float | int | None]] = [
        {"slice": index, **{name: _finite_or_none(value) for name, value in _pair_metrics(case, *pair).items()}}
        for index, pair in enumerate(slices)
    ]
    case.details["slice_axis"] = "IJK"[axis]
    metrics: Metrics = {}
    for name in case.protocol.metrics:
        values = np.array([row[name] for row in rows if row[name] is not None], dtype=np.float64)
        metrics[name] = float(values.mean()) if values.size else case.number(math.inf, name)
        metrics[f"{name}_std"] = float(values.std()) if values.size else None
    skipped = sum(row["psnr"] is None for row in rows)
    if 0 < skipped < len(rows):
        text = f"{skipped} of {len(rows)} slices are identical in both images and are left out of PSNR"
        case.warnings.append(Warned("MX-MET-104", text, case.synthetic.name, "they count in the other figures"))
    return case.result(metrics, per_slice=tuple(rows))


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _pair_metrics(case: _Case, reference: Float64Array, synthetic: Float64Array) -> Metrics:
    protocol = case.protocol
    error = image.mean_squared_error(reference, synthetic)
    figures: Metrics = {
        "mse": error,
        "psnr": image.peak_signal_to_noise(error, protocol.psnr_peak),
        "mae": image.mean_absolute_error(reference, synthetic) * protocol.mae_factor,
        "ssim": image.ssim(reference, synthetic, protocol.window, protocol.ssim_range or 1.0),
    }
    if protocol.nmse_denominator:
        figures["nmse"] = image.normalised_mean_squared_error(reference, synthetic, protocol.nmse_denominator)
    return {name: figures[name] for name in protocol.metrics}


def _working_pair(case: _Case) -> tuple[Float64Array, Float64Array]:
    """Return both images in working units: [0, 1], or 0-255 where the protocol quantises."""
    reference, synthetic = case.arrays()
    if case.protocol.quantisation != "none" and all(_is_8_bit(array) for array in (reference, synthetic)):
        text = "both images hold whole numbers from 0 to 255 and are taken as 8-bit images as they are"
        case.warnings.append(Warned("MX-MET-107", text, case.reference.name))
        case.details["scale"] = {"low": 0.0, "high": 255.0, "unit": "8-bit level"}
        return reference, synthetic
    low, high = _full_range(reference, case, "reference")
    case.details["scale"] = {"low": low, "high": high, "unit": case.reference.modality.unit}
    units = [_to_unit(array, low, high, case.protocol.clip) for array in (reference, synthetic)]
    reference, synthetic = (image.quantise(unit, case.protocol.quantisation) for unit in units)
    return reference, synthetic


def _slice_axis(volume: Volume) -> int:
    """Return the axis across axial slices; the axis of a single slice where there is only one."""
    single = [axis for axis, length in enumerate(volume.geometry.shape) if length == 1]
    if len(single) == 1:
        return single[0]
    codes = axis_codes(volume.geometry)
    return next(axis for axis, letter in enumerate(codes) if letter in "SI")


# --- hinet: the whole volume ----------------------------------------------------------------------------------------


def _measure_volume(case: _Case) -> EvaluationResult:
    protocol = case.protocol
    reference, synthetic = case.arrays()
    reference = _to_unit(reference, *_full_range(reference, case, "reference"), clip=protocol.clip)
    synthetic = _to_unit(synthetic, *_full_range(synthetic, case, "synthetic image"), clip=protocol.clip)
    if protocol.zero_where_reference_is_zero:
        synthetic = np.where(reference == 0, 0.0, synthetic)
    return case.result(
        {name: case.number(value, name) for name, value in _pair_metrics(case, reference, synthetic).items()}
    )


# --- synthrad2025: fixed range, outside set to the lower bound ------------------------------------------------------


def _measure_inside(case: _Case) -> EvaluationResult:
    protocol = case.protocol
    low, high = protocol.fixed_range or (0.0, 1.0)
    reference, synthetic = case.arrays()
    _warn_if_not_hounsfield(case, reference)
    inside = _required_mask(case)
    mae = image.mean_absolute_error(reference[inside], synthetic[inside])
    reference = np.where(inside, np.clip(reference, low, high), low) - low
    synthetic = np.where(inside, np.clip(synthetic, low, high), low) - low
    error = image.mean_squared_error(reference[inside], synthetic[inside])
    figures: Metrics = {
        "mae": mae * protocol.mae_factor,
        "psnr": image.peak_signal_to_noise(error, protocol.psnr_peak),
        "ms_ssim": image.multiscale_ssim(reference, synthetic, inside, protocol.window, high - low),
    }
    case.details["voxels"] = int(np.count_nonzero(inside))
    return case.result({name: case.number(figures[name], name) for name in protocol.metrics})


def _required_mask(case: _Case) -> BoolArray:
    if case.mask is not None:
        return evaluation_mask(case.reference, case.mask)
    fix = "give the body mask with --mask to get the challenge's figures"
    text = f"no mask was given, the figures of {case.protocol.name} cover the whole grid"
    case.warnings.append(Warned("MX-MET-105", text, case.reference.name, fix))
    return np.ones(case.reference.geometry.shape, dtype=np.bool_)


def _warn_if_not_hounsfield(case: _Case, reference: Float64Array) -> None:
    if reference.min() >= 0 or case.reference.modality not in {Modality.CT, Modality.CBCT, Modality.OTHER}:
        low, high = reference.min(), reference.max()
        text = f"the reference ({case.reference.modality}, {low:g} to {high:g}) does not look like CT in HU"
        case.warnings.append(
            Warned("MX-MET-106", text, case.reference.name, f"{case.protocol.name} is made for CT numbers in HU")
        )


# --- brasyn: images times the mask, averaged over the whole grid ----------------------------------------------------


def _measure_product(case: _Case) -> EvaluationResult:
    labels = case.labels or case.mask
    if labels is None:
        raise UsageError(
            "MX-MET-005",
            f"the protocol '{case.protocol.name}' was asked for without a tumour segmentation",
            expected="a label map whose voxels above 0 are tumour",
            fix="give it with --regions",
        )
    tumour = labels.array > 0
    units = []
    for array, what in zip(case.arrays(), ("reference", "synthetic image"), strict=True):
        units.append(_to_unit(array, *_percentile_range(array, case, what, lowest=0.0), clip=case.protocol.clip))
    metrics: Metrics = {}
    for name, part in (("ssim_tumor", tumour), ("ssim_non_tumor", ~tumour)):
        metrics[name] = case.number(_ssim_of_product(case, units[0] * part, units[1] * part), name)
    case.details["tumor_voxels"] = int(np.count_nonzero(tumour))
    return case.result(metrics)


def _ssim_of_product(case: _Case, reference: Float64Array, synthetic: Float64Array) -> float | None:
    data_range = max(float(np.ptp(reference)), float(np.ptp(synthetic)))
    if data_range == 0:
        return None
    return image.ssim(reference, synthetic, case.protocol.window, case.protocol.ssim_range or data_range)


_MEASURES = {
    "regions": _measure_regions,
    "none": _measure_volume,
    "inside": _measure_inside,
    "product": _measure_product,
}


# --- shared checks and scaling ----------------------------------------------------------------------------------------


def _to_unit(array: Float64Array, low: float, high: float, clip: bool) -> Float64Array:
    unit = (array - low) / (high - low)
    return np.clip(unit, 0.0, 1.0) if clip else unit


def _percentile_range(values: Float64Array, case: _Case, what: str, lowest: float | None = None) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, case.protocol.percentiles or (0.0, 100.0)))
    return _require_range(low if lowest is None else max(low, lowest), high, case, what)


def _full_range(values: Float64Array, case: _Case, what: str) -> tuple[float, float]:
    return _require_range(float(values.min()), float(values.max()), case, what)


def _require_range(low: float, high: float, case: _Case, what: str) -> tuple[float, float]:
    if high > low:
        return low, high
    volume = case.reference if what == "reference" else case.synthetic
    raise InputError(
        "MX-MET-013",
        f"the {what} has no intensity range to scale by (from {low:g} to {high:g})",
        expected=f"varying intensities where the protocol '{case.protocol.name}' measures",
        where=volume.name,
        fix="check the image, and the mask if one is given: they may not overlap",
    )


def _is_8_bit(array: Float64Array) -> bool:
    return bool(array.min() >= 0 and array.max() <= 255 and np.array_equal(array, np.rint(array)))


def _bounding_box(mask: BoolArray, margin: int) -> tuple[slice, slice, slice]:
    i, j, k = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in (i, j, k))  # type: ignore[return-value]
