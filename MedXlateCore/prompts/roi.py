"""Region prompts: encoding of drawn regions, their random perturbation in training, and sham prompts for honest tests.

Regions come as two maps, oedema and core; the network sees one map: 0 background, 0.5 oedema, 1.0 core (core
overwrites). What a user draws is encoded as drawn. Fuzzy prompt generation (FPG) belongs to training only: TLP (arXiv
2503.01265), algorithm 1 and equation 1; constants as in the authors' code where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from MedXlateCore.config import nearest
from MedXlateCore.errors import InputError, UsageError

__all__ = [
    "DEFAULT_LABELS",
    "ENCODINGS",
    "REGIONS",
    "FuzzyPromptGenerator",
    "encode_labels",
    "encode_regions",
    "regions_from_labels",
    "sham_regions",
]

Encoding = Literal["two_region", "binary"]
ENCODINGS: tuple[Encoding, ...] = ("two_region", "binary")
REGIONS = ("oedema", "core")
OEDEMA_VALUE: dict[str, float] = {"two_region": 0.5, "binary": 1.0}

# BraTS label maps: 1 necrotic core, 2 oedema, 4 (3 since 2023) enhancing tumour.
DEFAULT_LABELS: Mapping[str, Sequence[int]] = {"oedema": (2,), "core": (1, 3, 4)}

SHAM_COVERAGE = 0.95  # a sham region lies in healthy tissue with at least this part of its area, where that is possible


def encode_regions(oedema: Tensor, core: Tensor, encoding: str = "two_region") -> Tensor:
    """Encode region maps as the network's prompt.

    Args:
        oedema: [B, 1, H, W], 0 or 1.
        core: [B, 1, H, W], 0 or 1; overwrites oedema.
        encoding: ``two_region`` (oedema 0.5, core 1) or ``binary`` (both 1).

    Returns:
        Prompt [B, 1, H, W].

    Raises:
        UsageError: ``MX-ROI-030``, the encoding is not known.
        InputError: ``MX-ROI-031``, the two maps differ in shape.
    """
    if oedema.shape != core.shape:
        raise InputError(
            "MX-ROI-031",
            f"the maps of oedema and core have shapes {tuple(oedema.shape)} and {tuple(core.shape)}",
            expected="one shape [B, 1, H, W]",
            fix="take both from one label map",
        )
    return core + _oedema_value(encoding) * oedema * (1 - core)


def regions_from_labels(array: NDArray[Any], labels: Mapping[str, Sequence[int]]) -> NDArray[np.uint8]:
    """Split a label map into regions.

    Args:
        array: label map of any shape.
        labels: label values by region, such as ``{"oedema": [2], "core": [1, 4]}``; either may be missing.

    Returns:
        uint8 array [2, *shape], 0 or 1: oedema, core.

    Raises:
        UsageError: ``MX-ROI-032``, a region other than oedema and core.
    """
    for name in labels:
        if name not in REGIONS:
            raise UsageError(
                "MX-ROI-032",
                f"the region '{name}' is not known",
                expected=f"one of {', '.join(REGIONS)}",
                fix=f"did you mean '{guess}'?" if (guess := nearest(name, REGIONS)) else "rename or remove it",
            )
    return np.stack([np.isin(array, list(labels.get(name, ()))) for name in REGIONS]).astype(np.uint8)


def encode_labels(
    array: NDArray[Any], labels: Mapping[str, Sequence[int]] = DEFAULT_LABELS, encoding: str = "two_region"
) -> NDArray[np.float32]:
    """Encode a label map as a prompt of the same shape (float32), exactly as drawn.

    Raises:
        UsageError: ``MX-ROI-030`` (encoding not known), ``MX-ROI-032`` (region not known).
    """
    oedema, core = regions_from_labels(array, labels).astype(np.float32)
    return core + np.float32(_oedema_value(encoding)) * oedema * (1 - core)


def _oedema_value(encoding: str) -> float:
    if encoding not in OEDEMA_VALUE:
        raise UsageError(
            "MX-ROI-030",
            f"the prompt encoding '{encoding}' is not known",
            expected=f"one of {', '.join(ENCODINGS)}",
            fix="correct the model's configuration",
        )
    return OEDEMA_VALUE[encoding]


@dataclass(frozen=True)
class FuzzyPromptGenerator:
    """TLP's fuzzy prompt generation: drops a prompt, or grows and shrinks it at random, as readers' drawings differ.

    Each iteration takes one of nine 3x3 kernels (the centre and one of its eight neighbours, or a plus) and dilates
    (response above 0) with probability ``p``, else applies the *threshold erosion* (response above 1). For two-element
    kernels that is exact erosion; for the plus it asks for two of five: straight edges stay, concave corners fill,
    isolated pixels vanish. With the ``binary`` encoding the union of both regions is perturbed ``t_core`` times.

    Attributes:
        p: probability to dilate.
        q: probability to drop the prompt of a sample.
        t_edema: iterations on the oedema.
        t_core: iterations on the core.
        per_sample: draw for each sample; False draws once for the whole batch, as the authors' code does.
        encoding: see ``encode_regions``.

    Raises:
        UsageError: ``MX-ROI-033``, a probability outside [0, 1] or a number of iterations outside 0 to 100.
    """

    p: float = 0.9
    q: float = 0.5
    t_edema: int = 2
    t_core: int = 5
    per_sample: bool = True
    encoding: str = "two_region"

    def __post_init__(self) -> None:
        _oedema_value(self.encoding)
        for name, highest in (("p", 1), ("q", 1), ("t_edema", 100), ("t_core", 100)):
            value = getattr(self, name)
            if not 0 <= value <= highest:
                raise UsageError(
                    "MX-ROI-033",
                    f"fuzzy prompt generation has {name} = {value}",
                    expected=f"a value from 0 to {highest}",
                    fix="correct the recipe",
                )

    def __call__(self, regions: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a prompt for each sample.

        Args:
            regions: [B, 2, H, W], 0 or 1: oedema, core.
            generator: source of randomness, on the regions' device.

        Returns:
            Prompt [B, 1, H, W], float32.
        """
        draws = regions.shape[0] if self.per_sample else 1
        dropped = torch.rand((draws, 1, 1, 1), generator=generator, device=regions.device) < self.q
        oedema, core = self.perturb(regions, generator).split(1, dim=1)
        return encode_regions(oedema, core, self.encoding).masked_fill(dropped, 0.0)

    def perturb(self, regions: Tensor, generator: torch.Generator) -> Tensor:
        """Grow and shrink regions [B, 2, H, W] (drops none); returns the same shape, float32, 0 or 1."""
        mask = regions.float().clone()
        if self.encoding == "binary":
            mask = torch.cat((torch.zeros_like(mask[:, :1]), mask.amax(dim=1, keepdim=True)), dim=1)
        draws, device = (mask.shape[0] if self.per_sample else 1), mask.device
        for step in range(max(self.t_edema, self.t_core)):
            index = torch.randint(9, (draws, 2), generator=generator, device=device)
            dilates = torch.rand((draws, 2, 1, 1), generator=generator, device=device) < self.p
            response = correlate(mask, fuzzy_kernels(device)[index].expand(mask.shape[0], -1, -1, -1))
            changed = torch.where(dilates, response > 0.5, response > 1.5).float()  # counts: above 0, above 1
            for region, iterations in enumerate((self.t_edema, self.t_core)):
                if step < iterations:
                    mask[:, region] = changed[:, region]
        return mask


@lru_cache(maxsize=8)
def fuzzy_kernels(device: torch.device) -> Tensor:
    """Return the nine kernels of TLP's equation 1, [9, 3, 3]: centre and one of eight neighbours, then the plus."""
    kernels = torch.zeros(9, 3, 3)
    kernels[:, 1, 1] = 1
    neighbours = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    for n, (i, j) in enumerate(neighbours):
        kernels[n, i, j] = 1
    kernels[8, 1, :] = kernels[8, :, 1] = 1
    return kernels.to(device)


def correlate(maps: Tensor, kernels: Tensor) -> Tensor:
    """Cross-correlate each map of [B, C, H, W] with its own 3x3 kernel [B, C, 3, 3], zero beyond the border."""
    batch, channels, height, width = maps.shape
    stacked = maps.reshape(1, batch * channels, height, width)
    weights = kernels.reshape(batch * channels, 1, 3, 3)
    return F.conv2d(stacked, weights, padding=1, groups=batch * channels).reshape(maps.shape)


def sham_regions(
    regions: Tensor, foreground: Tensor, generator: torch.Generator, *, shared: bool = False, fill_empty: bool = False
) -> Tensor:
    """Move each region, or its mirror image, to a random place in healthy tissue of the same slice.

    A model that is honest about prompts paints no lesion there. The sham region has the size and form of the true one,
    never overlaps it and stays inside the foreground (what little sticks out is cut off; where no place holds 95 % of
    it, the place that holds most is taken).

    Args:
        regions: true regions [B, 2, H, W], 0 or 1: oedema, core.
        foreground: head or body mask [B, 1, H, W], 0 or 1.
        generator: source of randomness, on the regions' device; the same state gives the same result.
        shared: move all slices of the batch alike (one volume), instead of each on its own.
        fill_empty: give slices without any region a random ellipse with a core.

    Returns:
        Sham regions [B, 2, H, W], float32, 0 or 1; zero where there is no healthy tissue or nothing to move.
    """
    true = regions.float()
    healthy = foreground.float() * (1 - true.amax(dim=1, keepdim=True))
    draws = 1 if shared else true.shape[0]
    mirrored = torch.rand((draws, 1, 1, 1), generator=generator, device=true.device) < 0.5
    shape = torch.where(mirrored, true.flip(-1), true)
    if fill_empty:
        empty = true.amax(dim=(1, 2, 3), keepdim=True) == 0
        shape = torch.where(empty, _ellipses(true, generator), shape)
    overlap = _overlap_by_shift(shape.amax(dim=1), healthy[:, 0])
    area = shape.amax(dim=1).sum(dim=(1, 2))
    if shared:
        overlap, area = overlap.sum(dim=0, keepdim=True), area.sum(dim=0, keepdim=True)
    shift = _pick_shift(overlap, area, generator)
    return _shift(shape, shift.expand(true.shape[0], 2)) * healthy


def _overlap_by_shift(shape: Tensor, healthy: Tensor) -> Tensor:
    """Count the pixels of ``shape`` [B, H, W] that each shift (modulo size) brings into ``healthy``: [B, 2H, 2W]."""
    size = (2 * shape.shape[1], 2 * shape.shape[2])  # twice the size: what leaves on one side does not come in again
    spectrum = torch.fft.rfft2(shape, s=size).conj() * torch.fft.rfft2(healthy, s=size)
    return torch.fft.irfft2(spectrum, s=size).round()


def _pick_shift(overlap: Tensor, area: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one shift (rows, columns) for each overlap map [N, 2H, 2W] among those that keep enough area: int [N, 2]."""
    count, height, width = overlap.shape
    flat = overlap.reshape(count, -1)
    enough = torch.minimum(SHAM_COVERAGE * area, flat.amax(dim=1)).unsqueeze(1)
    lottery = torch.rand(flat.shape, generator=generator, device=flat.device)
    chosen = torch.where(flat >= enough, lottery, -1.0).argmax(dim=1)
    rows, columns = chosen // width, chosen % width
    return torch.stack((rows - height * (rows >= height // 2), columns - width * (columns >= width // 2)), dim=1)


def _shift(maps: Tensor, shift: Tensor) -> Tensor:
    """Shift each sample of [B, C, H, W] by its (rows, columns) [B, 2]; zeros come in at the border."""
    batch, _, height, width = maps.shape
    rows = torch.arange(height, device=maps.device) - shift[:, :1]
    columns = torch.arange(width, device=maps.device) - shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    sample = torch.arange(batch, device=maps.device)[:, None, None]
    moved = maps.permute(0, 2, 3, 1)[
        sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return (moved * inside.unsqueeze(-1)).permute(0, 3, 1, 2)


def _ellipses(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one ellipse a sample in the middle of the slice, semi-axes 4 to 10 % of it, with a core of half its size."""
    batch, _, height, width = like.shape
    axes = (0.04 + 0.06 * torch.rand((batch, 2), generator=generator, device=like.device)) * min(height, width)
    rows = (torch.arange(height, device=like.device) - height // 2) / axes[:, :1]
    columns = (torch.arange(width, device=like.device) - width // 2) / axes[:, 1:]
    radius = rows[:, :, None].square() + columns[:, None, :].square()
    return torch.stack((radius <= 1, radius <= 0.25), dim=1).float()
