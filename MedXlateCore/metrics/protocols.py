"""Evaluation protocols: everything that decides a published number, stated in one object.

PSNR, SSIM, MAE and NMSE of the same pair of images differ by 3-5 dB and more between published scripts, because of
value range, clipping, quantisation, window, mask and aggregation. A ``Protocol`` fixes all of these; results of two
protocols are never compared (``require_same_protocol``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal
from typing import Protocol as StructuralType

from MedXlateCore.config import nearest
from MedXlateCore.errors import UsageError

__all__ = ["PROTOCOLS", "Protocol", "SsimWindow", "get_protocol", "require_same_protocol", "with_matched_intensity"]

Scaling = Literal["fixed", "reference_percentiles", "own_percentiles", "reference_minmax", "own_minmax"]
Quantisation = Literal["none", "truncate_uint8", "round_uint8"]


@dataclass(frozen=True)
class SsimWindow:
    """The window of the structural similarity index (Wang et al. 2004) and how its map becomes a number.

    Attributes:
        kind: Gaussian or uniform weights.
        size: side of the window in voxels (odd).
        sigma: standard deviation of the Gaussian in voxels, None for a uniform window.
        sample_covariance: divide by N-1 (True) or by N (False).
        dimensions: 2 for windows within a slice, 3 for cubic windows.
        borders: ``cropped`` leaves out positions whose window leaves the image, ``mirrored`` mirrors the image there.
        k1, k2: the two stabilising constants, as fractions of the data range.
        scale_weights: exponents of a multi-scale SSIM, finest scale first; empty for one scale.
    """

    kind: Literal["gaussian", "uniform"]
    size: int
    sigma: float | None
    sample_covariance: bool
    dimensions: Literal[2, 3]
    borders: Literal["cropped", "mirrored"]
    k1: float = 0.01
    k2: float = 0.03
    scale_weights: tuple[float, ...] = ()

    def describe(self) -> str:
        """Return the window in words."""
        shape = f"{self.size}×{self.size}" if self.dimensions == 2 else f"{self.size}×{self.size}×{self.size}"
        weights = f"Gaussian (σ {self.sigma:g} voxels)" if self.kind == "gaussian" else "uniform"
        covariance = "sample" if self.sample_covariance else "population"
        borders = "borders left out" if self.borders == "cropped" else "borders mirrored"
        scales = f", {len(self.scale_weights)} scales" if self.scale_weights else ""
        return f"{weights} {shape} window{scales}, {covariance} covariance, K1 {self.k1:g}, K2 {self.k2:g}, {borders}"


@dataclass(frozen=True)
class Protocol:
    """One way to measure how close a synthetic image is to its reference.

    Attributes:
        name: short name; results carry it.
        origin: the publication or program the protocol reproduces.
        reading: what the origin leaves open and how it is read here.
        metrics: names of the figures, in the order reported.
        scaling: what maps intensities to the working range (see ``describe``).
        fixed_range: lower and upper bound for ``fixed`` scaling, in the unit of the images.
        percentiles: lower and upper percentile for the percentile scalings.
        clip: cut values outside the range before measuring (MAE of ``synthrad2025`` is measured before the cut).
        quantisation: rounding to 8 bits, and which way.
        psnr_peak: peak value of PSNR in working units.
        ssim_range: data range of SSIM in working units; None is the larger of the two images' own ranges.
        mae_factor: MAE is multiplied by this before it is reported.
        dimensions: 2 measures axial slices, 3 measures volumes.
        window: the window of SSIM.
        mask_use: ``none``; ``regions`` averages maps inside regions; ``inside`` sets the outside to the lower bound and
            averages inside; ``product`` multiplies the images with the mask and averages over the whole grid.
        nmse_denominator: ``variance`` or ``energy`` of the reference, None where NMSE is not part of the protocol.
        aggregation: ``slices`` reports mean and standard deviation over slices, ``case`` one value a volume.
        identical: what PSNR does on identical images: ``null`` (no value, a warning) or ``skip`` (not in the mean).
        zero_where_reference_is_zero: blank the synthetic image where the reference is exactly zero.
        healthy_margin_mm: margin around the lesion that is left out of the healthy region.
        match_intensity: map the synthetic image linearly onto the reference's percentiles first.
    """

    name: str
    origin: str
    reading: str
    metrics: tuple[str, ...]
    scaling: Scaling
    psnr_peak: float
    ssim_range: float | None
    dimensions: Literal[2, 3]
    window: SsimWindow
    mask_use: Literal["none", "regions", "inside", "product"]
    aggregation: Literal["slices", "case"]
    identical: Literal["null", "skip"] = "null"
    fixed_range: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    clip: bool = True
    quantisation: Quantisation = "none"
    nmse_denominator: Literal["variance", "energy"] | None = None
    mae_factor: float = 1.0
    zero_where_reference_is_zero: bool = False
    healthy_margin_mm: float = 0.0
    match_intensity: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return every field for JSON."""
        return asdict(self)

    def describe(self) -> list[str]:
        """Return the protocol in words, one sentence a line."""
        lines = [f"Origin: {self.origin}.", f"Intensities: {self._describe_scaling()}."]
        if self.match_intensity:
            lines.append("The synthetic image was first mapped linearly onto the reference's percentiles.")
        if self.zero_where_reference_is_zero:
            lines.append("The synthetic image is set to zero where the reference is exactly zero.")
        lines.append(f"SSIM: {self.window.describe()}; data range {self._describe_range()}.")
        if "psnr" in self.metrics:
            identical = "left out of the mean" if self.identical == "skip" else "reported without a value"
            lines.append(f"PSNR: peak {self.psnr_peak:g}; identical images are {identical}.")
        if self.mae_factor != 1.0:
            lines.append(f"MAE is multiplied by {self.mae_factor:g}.")
        if self.nmse_denominator:
            lines.append(f"NMSE: mean squared error divided by the {self.nmse_denominator} of the reference.")
        lines.append(f"Mask: {_MASK_WORDS[self.mask_use]}.")
        over = "mean and standard deviation over slices" if self.aggregation == "slices" else "one value a volume"
        lines.append(f"Aggregation: {over}.")
        if self.reading:
            lines.append(f"Our reading: {self.reading}.")
        return lines

    def _describe_scaling(self) -> str:
        low, high = self.percentiles or (0.0, 100.0)
        fixed_low, fixed_high = self.fixed_range or (0.0, 1.0)
        bounds = f"{low:g} and {high:g}"
        text = {
            "fixed": f"fixed range {fixed_low:g} to {fixed_high:g}",
            "reference_percentiles": f"both images scaled by the reference's percentiles {bounds} in the mask",
            "own_percentiles": f"each image scaled by its own percentiles {bounds}",
            "reference_minmax": "both images scaled by the reference's minimum and maximum",
            "own_minmax": "each image scaled by its own minimum and maximum",
        }[self.scaling]
        text += ", clipped" if self.clip else ", not clipped"
        rounding = {"truncate_uint8": ", truncated to 8 bits", "round_uint8": ", rounded to 8 bits", "none": ""}
        return text + rounding[self.quantisation]

    def _describe_range(self) -> str:
        return f"{self.ssim_range:g}" if self.ssim_range is not None else "the larger of the two images' ranges"


_MASK_WORDS = {
    "none": "none, every voxel counts",
    "regions": "maps are averaged inside the brain, the lesion, its parts and the rest of the brain",
    "inside": "outside voxels are set to the lower bound, means are taken inside",
    "product": "images are multiplied with the mask and averaged over the whole grid, zeros included",
}

_GAUSSIAN_3D = SsimWindow("gaussian", 11, 1.5, sample_covariance=False, dimensions=3, borders="mirrored")

_PRESETS = (
    Protocol(
        name="volume3d",
        origin="MedXlate; window of Wang et al. 2004 in three dimensions",
        reading="windows count voxels, not millimetres; SSIM of a region is the mean of the map inside it",
        metrics=("mae", "psnr", "ssim"),
        scaling="reference_percentiles",
        percentiles=(0.5, 99.5),
        psnr_peak=1.0,
        ssim_range=1.0,
        dimensions=3,
        window=_GAUSSIAN_3D,
        mask_use="regions",
        aggregation="case",
    ),
    Protocol(
        name="tlp",
        origin="TLP (arXiv 2503.01265), released evaluation code on 8-bit images",
        reading="the reference is quantised like the prediction, both by the reference's range over the volume; every"
        " axial slice of the given volumes counts; NMSE is 0 where a slice has no variance",
        metrics=("psnr", "ssim", "nmse", "mse", "mae"),
        scaling="reference_minmax",
        quantisation="truncate_uint8",
        psnr_peak=255.0,
        ssim_range=255.0,
        dimensions=2,
        window=SsimWindow("uniform", 7, None, sample_covariance=True, dimensions=2, borders="cropped"),
        mask_use="none",
        nmse_denominator="variance",
        aggregation="slices",
        identical="skip",
    ),
    Protocol(
        name="medprompt",
        origin="MedPrompt (arXiv 2310.02663); definitions from the authors' related code, as the paper gives none",
        reading="images in [0, 1] by the reference's range over the volume; window and covariance of the usual library"
        " SSIM; MAE on a 0-255 scale; mean over axial slices",
        metrics=("psnr", "ssim", "mae"),
        scaling="reference_minmax",
        psnr_peak=1.0,
        ssim_range=1.0,
        dimensions=2,
        window=SsimWindow("gaussian", 11, 1.5, sample_covariance=False, dimensions=2, borders="cropped"),
        mask_use="none",
        mae_factor=255.0,
        aggregation="slices",
        identical="skip",
    ),
    Protocol(
        name="hinet",
        origin="HiNet, released evaluation code",
        reading="minimum and maximum are taken over the volume where the code takes them over patches of 128×128; the"
        " SSIM data range of 2 is the default that the code's image library gave floating-point images",
        metrics=("psnr", "ssim", "nmse"),
        scaling="own_minmax",
        psnr_peak=1.0,
        ssim_range=2.0,
        dimensions=3,
        window=SsimWindow("uniform", 7, None, sample_covariance=True, dimensions=3, borders="cropped"),
        mask_use="none",
        nmse_denominator="energy",
        aggregation="case",
        zero_where_reference_is_zero=True,
    ),
    Protocol(
        name="synthrad2025",
        origin="SynthRAD2025 challenge, image metrics of the deployed evaluator",
        reading="luminance enters at all five scales, as in the evaluator; MAE is not clipped",
        metrics=("mae", "psnr", "ms_ssim"),
        scaling="fixed",
        fixed_range=(-1024.0, 3071.0),
        psnr_peak=4095.0,
        ssim_range=4095.0,
        dimensions=3,
        window=SsimWindow(
            "uniform",
            7,
            None,
            sample_covariance=True,
            dimensions=3,
            borders="cropped",
            scale_weights=(0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
        ),
        mask_use="inside",
        aggregation="case",
    ),
    Protocol(
        name="brasyn",
        origin="BraSyn (BraTS missing-MRI challenge), released evaluation code",
        reading="blind to the global intensity scale by construction; zeros outside the mask score 1 and count;"
        " computed in double precision, where the evaluator's single precision differs by up to 2e-6 on whole heads",
        metrics=("ssim_tumor", "ssim_non_tumor"),
        scaling="own_percentiles",
        percentiles=(0.5, 99.5),
        psnr_peak=1.0,
        ssim_range=None,
        dimensions=3,
        window=_GAUSSIAN_3D,
        mask_use="product",
        aggregation="case",
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _PRESETS}


def get_protocol(name: str | Protocol) -> Protocol:
    """Return a preset by name (a ``Protocol`` is returned as it is).

    Raises:
        UsageError: ``MX-MET-001``, no preset has this name.
    """
    if isinstance(name, Protocol):
        return name
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise UsageError(
        "MX-MET-001",
        f"there is no evaluation protocol '{name}'",
        expected="one of " + ", ".join(PROTOCOLS),
        fix=f"did you mean '{guess}'?" if (guess := nearest(name, PROTOCOLS)) else "choose a name from the list",
    )


def with_matched_intensity(protocol: Protocol) -> Protocol:
    """Return the protocol that first maps the synthetic image linearly onto the reference's brain percentiles.

    MR intensities have no unit, so a global linear difference may be of no interest. It is another protocol all the
    same and has another name (``volume3d+matched``).

    Raises:
        UsageError: ``MX-MET-003``, the protocol prescribes its own scaling.
    """
    if protocol.match_intensity:
        return protocol
    if protocol.scaling != "reference_percentiles":
        raise UsageError(
            "MX-MET-003",
            f"matching of intensities is not part of the protocol '{protocol.name}'",
            expected="the protocol volume3d",
            fix="leave out the matching, or evaluate under volume3d",
        )
    return replace(protocol, name=f"{protocol.name}+matched", match_intensity=True)


class _HasProtocol(StructuralType):
    @property
    def protocol(self) -> Protocol:
        """The protocol under which the result was made."""


def require_same_protocol(results: Iterable[_HasProtocol]) -> Protocol:
    """Return the one protocol that all results share.

    Raises:
        UsageError: ``MX-MET-002``, the results come from different protocols (or there are none).
    """
    protocols = list(dict.fromkeys(result.protocol for result in results))
    if len(protocols) == 1:
        return protocols[0]
    names = ", ".join(protocol.name for protocol in protocols) or "no result at all"
    raise UsageError(
        "MX-MET-002",
        f"results of {len(protocols)} evaluation protocols were to be compared: {names}",
        expected="results of one protocol; its figures mean something else under another one",
        fix="evaluate all images again under one protocol",
    )
