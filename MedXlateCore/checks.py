"""Check batteries: what is looked at before a volume, a set of sources or a region is used.

Each check is one row (code, level, test, what to do), after nibabel's header batteries: an error stops, a warning is
recorded and travels with the result. A new check is one row here and one test.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.checks_roi import check_roi
from MedXlateCore.errors import InputError, Warned
from MedXlateCore.overlap import overlap
from MedXlateCore.transforms.foreground import mask_box, tissue_mask
from MedXlateCore.volume import Geometry, Modality, Volume

__all__ = ["Check", "check_roi", "check_sources", "check_together", "check_volume", "checked"]

MAX_REPAIRED_FRACTION = 1e-4
LARGEST_VALUE = 1e12
SHEAR_WARNING, SHEAR_LIMIT = 1e-4, 0.05
SPACING_RANGE_MM = (0.05, 50.0)
MIN_OVERLAP, FULL_OVERLAP = 0.9, 0.995
SMALLEST_PLANE = 8
_SAMPLE = 200_000


@dataclass(frozen=True)
class _Facts:
    """One volume and what several checks ask of it, computed once."""

    volume: Volume

    @cached_property
    def finite(self) -> NDArray:
        """The finite voxels, flat."""
        flat = self.volume.array.ravel(order="K")
        return flat if self.bad == 0 else flat[np.isfinite(flat)]

    @cached_property
    def bad(self) -> int:
        """Number of voxels that are NaN or infinite."""
        array = self.volume.array
        return 0 if array.dtype.kind in "iub" else int(array.size - np.count_nonzero(np.isfinite(array)))

    @cached_property
    def low(self) -> float:
        """Lowest finite value; NaN where there is none."""
        return float(self.finite.min()) if self.finite.size else float("nan")

    @cached_property
    def high(self) -> float:
        """Highest finite value; NaN where there is none."""
        return float(self.finite.max()) if self.finite.size else float("nan")

    @cached_property
    def sample(self) -> NDArray:
        """Up to 200,000 finite voxels, evenly spread."""
        return self.finite[:: max(1, self.finite.size // _SAMPLE)]


@dataclass(frozen=True)
class Check:
    """One row of a battery. ``test`` returns what was found, or an empty text if all is well."""

    code: str
    level: Literal["error", "warning"]
    test: Callable[[_Facts], str]
    expected: str
    fix: str
    for_labels: bool = True


# --- one volume ----------------------------------------------------------------------------------------------------


def checked(volume: Volume) -> tuple[Volume, list[Warned]]:
    """Check a volume and repair what may be repaired (a few NaN or infinite voxels).

    Returns:
        The volume, or a repaired copy on the same grid; and the warnings of the checks (``volume.notes``, which stem
        from reading, are not repeated).

    Raises:
        InputError: as :func:`check_volume`.
    """
    warnings = check_volume(volume)
    facts = _Facts(volume)
    return (volume.with_array(_repaired(volume)) if facts.bad else volume), warnings


def check_volume(volume: Volume) -> list[Warned]:
    """Run the battery on one volume and return its warnings; checks of values are left out for label maps.

    Raises:
        InputError: ``MX-IMG-001`` (more than 0.01 % NaN or infinite), ``MX-IMG-003`` (one value everywhere),
            ``MX-IMG-005`` (absurdly large values), ``MX-IMG-011`` (too few voxels in the plane), ``MX-GEO-017``
            (sheared), ``MX-GEO-018`` (absurd voxel size).
    """
    facts = _Facts(volume)
    is_label = volume.modality is Modality.LABEL
    warnings = []
    for check in _VOLUME_BATTERY:
        found = "" if is_label and not check.for_labels else check.test(facts)
        if found and check.level == "error":
            raise InputError(check.code, found, expected=check.expected, where=volume.name, fix=check.fix)
        if found:
            warnings.append(Warned(check.code, f"{found}; expected {check.expected}", volume.name, check.fix))
    return warnings


def _many_bad(facts: _Facts) -> str:
    size = facts.volume.array.size
    many = facts.bad > MAX_REPAIRED_FRACTION * size
    return f"{facts.bad} of {size} voxels are NaN or infinite ({100 * facts.bad / size:.3g} %)" if many else ""


def _few_bad(facts: _Facts) -> str:
    return f"{facts.bad} NaN or infinite voxels were replaced by the mean of their neighbours" if facts.bad else ""


def _constant(facts: _Facts) -> str:
    return f"every voxel has the value {facts.low:g}" if facts.low == facts.high else ""


def _extreme(facts: _Facts) -> str:
    largest = max(abs(facts.low), abs(facts.high))
    return f"the largest value is {largest:.3g}" if largest > LARGEST_VALUE else ""


def _too_small(facts: _Facts) -> str:
    in_plane = sorted(facts.volume.geometry.shape)[1]
    return f"the shape is {facts.volume.geometry.shape}" if in_plane < SMALLEST_PLANE else ""


def _sheared(facts: _Facts) -> str:
    shear = facts.volume.geometry.shear
    return f"the grid is sheared (cosine between axes {shear:.3g})" if shear > SHEAR_LIMIT else ""


def _slightly_sheared(facts: _Facts) -> str:
    shear = facts.volume.geometry.shear
    return f"the grid is slightly sheared (cosine between axes {shear:.2g})" if shear > SHEAR_WARNING else ""


def _thick_axes(geometry: Geometry) -> list[float]:
    """Return the spacings that matter: those along axes of more than one voxel."""
    return [s for s, n in zip(geometry.spacing_mm, geometry.shape, strict=True) if n > 1] or [1.0]


def _absurd_spacing(facts: _Facts) -> str:
    spacing = _thick_axes(facts.volume.geometry)
    low, high = SPACING_RANGE_MM
    text = " x ".join(f"{s:.4g}" for s in facts.volume.geometry.spacing_mm)
    return f"the voxel size is {text} mm" if min(spacing) < low or max(spacing) > high else ""


def _anisotropic(facts: _Facts) -> str:
    spacing = _thick_axes(facts.volume.geometry)
    ratio = max(spacing) / min(spacing)
    return f"voxels are {ratio:.1f} times longer along one axis" if ratio > 8 else ""


def _far_away(facts: _Facts) -> str:
    farthest = float(np.abs(facts.volume.geometry.corners_ras()).max())
    return f"the grid reaches {farthest / 1000:.3g} m from the origin" if farthest > 10_000 else ""


def _single_slice(facts: _Facts) -> str:
    return "the volume has a single slice" if min(facts.volume.geometry.shape) == 1 else ""


def _nearly_empty(facts: _Facts) -> str:
    zero = facts.low if facts.low < 0 and facts.volume.modality.air_value < 0 else 0.0
    used = np.count_nonzero(facts.sample != zero) / max(1, facts.sample.size)
    return f"only {100 * used:.2g} % of the voxels differ from {zero:g}" if used < 1e-3 else ""


def _hot_voxels(facts: _Facts) -> str:
    usual = float(np.percentile(np.abs(facts.sample), 99.9))
    largest = max(abs(facts.low), abs(facts.high))
    return f"a few voxels reach {largest:.3g}, the others stay below {usual:.3g}" if 0 < 100 * usual < largest else ""


def _negative_mr(facts: _Facts) -> str:
    share = np.count_nonzero(facts.sample < 0) / max(1, facts.sample.size)
    found = facts.volume.modality.is_mr and share > 1e-3
    return f"{100 * share:.2g} % of the voxels are negative, down to {facts.low:.3g}" if found else ""


def _no_hounsfield(facts: _Facts) -> str:
    if facts.volume.modality.unit != "HU":
        return ""
    plausible = -11_000 <= facts.low <= -100 and 50 <= facts.high <= 70_000
    return "" if plausible else f"values range from {facts.low:.4g} to {facts.high:.4g}"


def _looks_like_labels(facts: _Facts) -> str:
    values = np.unique(facts.sample)
    few = values.size <= 16 and np.array_equal(values, np.rint(values)) and facts.volume.array.size > 64
    return f"the image holds only {values.size} different whole numbers" if few else ""


def _synthetic(facts: _Facts) -> str:
    return "the volume is itself synthetic" if facts.volume.synthetic else ""


_REPAIR_HEADER = "repair the file's header, or export the image again"
_VOLUME_BATTERY = (
    Check("MX-GEO-018", "error", _absurd_spacing, "0.05 to 50 mm", _REPAIR_HEADER),
    Check("MX-GEO-017", "error", _sheared, f"a cosine of at most {SHEAR_LIMIT:g}",
          "resample the image onto a right-angled grid first (gantry tilt: see Slicer's acquisition transform)"),
    Check("MX-GEO-016", "warning", _slightly_sheared, "right angles",
          "it was read through its true affine; check the header if this is unexpected"),
    Check("MX-GEO-019", "warning", _anisotropic, "similar sizes", "thin structures between slices cannot be seen"),
    Check("MX-GEO-008", "warning", _far_away, "less than 10 m", _REPAIR_HEADER),
    Check("MX-IMG-011", "error", _too_small, f"at least {SMALLEST_PLANE} voxels along two axes", "give a whole image"),
    Check("MX-IMG-010", "warning", _single_slice, "a 3D volume", "slice-wise models only"),
    Check("MX-IMG-001", "error", _many_bad, "at most 0.01 %",
          "replace NaN by the background value (0 for MR, -1000 for CT) or export the image again", False),
    Check("MX-IMG-002", "warning", _few_bad, "finite values", "look for what wrote them", False),
    Check("MX-IMG-003", "error", _constant, "an image", "check that this is the right file", False),
    Check("MX-IMG-005", "error", _extreme, f"at most {LARGEST_VALUE:g}", "repair the scale factors", False),
    Check("MX-IMG-004", "warning", _nearly_empty, "an image of tissue", "check that this is the right file", False),
    Check("MX-IMG-006", "warning", _hot_voxels, "one range of values", "clip them, or use percentiles", False),
    Check("MX-IMG-007", "warning", _negative_mr, "magnitudes from 0",
          "give the image as acquired, not standardised or filtered", False),
    Check("MX-IMG-008", "warning", _no_hounsfield, "Hounsfield units with air near -1000",
          "give the CT unscaled, with its rescale intercept applied", False),
    Check("MX-IMG-009", "warning", _looks_like_labels, "intensities", "check that this is no label map", False),
    Check("MX-IMG-012", "warning", _synthetic, "an acquired image",
          "the result will be synthetic twice over; errors add up", False),
)  # fmt: skip


def _repaired(volume: Volume) -> NDArray:
    """Replace each NaN or infinite voxel by the mean of its finite neighbours (26), or by air if it has none."""
    array = volume.array.copy(order="K")
    wrong = np.argwhere(~np.isfinite(volume.array))
    for i, j, k in wrong:
        near = volume.array[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2]
        near = near[np.isfinite(near)]
        array[i, j, k] = near.mean(dtype=np.float64) if near.size else volume.modality.air_value
    return array


# --- several sources -----------------------------------------------------------------------------------------------


def check_sources(
    sources: Sequence[Volume], required: Sequence[Modality], optional: Sequence[Modality] = ()
) -> list[Warned]:
    """Check that the sources fit a model and each other; the first source is the reference grid.

    Args:
        sources: the volumes, each with its modality.
        required: modalities the model needs.
        optional: modalities it can use.

    Raises:
        InputError: ``MX-IMG-030`` (a modality is missing), ``MX-IMG-031`` (given twice), ``MX-IMG-033`` (one image
            under two names), ``MX-GEO-030`` (less than 90 % of the reference's tissue lies inside another source).
    """
    names = Counter(v.modality for v in sources)
    _refuse_missing(names, required)
    twice = [m.value for m, n in names.items() if n > 1]
    if twice:
        raise InputError(
            "MX-IMG-031",
            f"{', '.join(twice)} is given more than once",
            expected="one volume for each modality",
            where=", ".join(v.name for v in sources if v.modality.value in twice),
            fix="leave one of them out, or correct its modality",
        )
    warnings = [
        Warned("MX-IMG-032", f"{m.value} is not used by this model", fix="leave it out, or choose another model")
        for m in names
        if m not in required and m not in optional
    ]
    return [*warnings, *check_together(sources)]


def check_together(sources: Sequence[Volume]) -> list[Warned]:
    """Check that volumes are different images of one head or body; the first one is the reference grid.

    Raises:
        InputError: ``MX-IMG-033`` (one image given twice), ``MX-GEO-030`` (less than 90 % of the reference tissue lies
            inside another volume).
    """
    warnings = []
    for first, second in itertools.combinations(sources, 2):
        warnings += _compare(first, second)
    for other in sources[1:]:
        warnings += _check_overlap(sources[0], other)
    return warnings


def _refuse_missing(names: Mapping[Modality, int], required: Sequence[Modality]) -> None:
    missing = [m.value for m in required if m not in names]
    if missing:
        raise InputError(
            "MX-IMG-030",
            f"{', '.join(missing)} is missing (given: {', '.join(m.value for m in names) or 'nothing'})",
            expected=", ".join(m.value for m in required),
            where="sources",
            fix="give the missing volume, or choose a model that does without",
        )


def _compare(first: Volume, second: Volume) -> list[Warned]:
    """Refuse one image under two names; warn if two sources are one image up to scale."""
    where = f"{first.name} and {second.name}"
    same_shape = first.array.shape == second.array.shape
    if same_shape and np.array_equal(first.array, second.array):
        raise InputError(
            "MX-IMG-033",
            "two sources hold the same image",
            expected="a different image for each modality",
            where=where,
            fix="correct the file given for one of them",
        )
    if same_shape and _correlation(first.array, second.array) > 0.9999:
        text = "two sources are one image up to a scale factor"
        return [Warned("MX-IMG-034", text, where, "check that each modality has its own file")]
    return []


def _correlation(first: NDArray, second: NDArray) -> float:
    step = max(1, first.size // _SAMPLE)
    pair = np.stack([a.ravel(order="F")[::step].astype(np.float64) for a in (first, second)])
    pair = pair[:, np.isfinite(pair).all(axis=0)]
    if pair.shape[1] < 2 or (pair.std(axis=1) == 0).any():
        return 0.0
    first, second = (pair - pair.mean(axis=1, keepdims=True)) / pair.std(axis=1, keepdims=True)
    return float((first * second).mean())


def _check_overlap(reference: Volume, other: Volume) -> list[Warned]:
    if reference.geometry.allclose(other.geometry):
        return []
    box = mask_box(tissue_mask(reference.array, reference.modality))
    covered = overlap(reference.geometry, other.geometry, box)
    where = f"{other.name} against {reference.name}"
    if covered < MIN_OVERLAP:
        raise InputError(
            "MX-GEO-030",
            f"only {100 * covered:.0f} % of the reference lies inside the other volume",
            expected=f"at least {100 * MIN_OVERLAP:.0f} %",
            where=where,
            fix="check that both are of one patient and session; register them, or choose the smaller one as reference",
        )
    if covered < FULL_OVERLAP:
        text = f"{100 * (1 - covered):.1f} % of the reference lies outside the other volume and is taken as air there"
        return [Warned("MX-GEO-031", text, where, "check the edges of the result")]
    return []
