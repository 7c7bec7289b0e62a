"""What a translation accepts: a target the model makes, sources that fit it and each other, a region it can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.checks import check_roi, check_sources, checked
from MedXlateCore.directions import choose_direction
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.inference.prepare import PreparedSources, prepare_roi, prepare_sources
from MedXlateCore.models.card import ModelCard
from MedXlateCore.models.package import LoadedModel
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.prompts.roi import DEFAULT_LABELS
from MedXlateCore.provenance import describe_volume
from MedXlateCore.transforms.spatial import GridSpec
from MedXlateCore.volume import Modality, Volume

__all__ = [
    "AcceptedSources",
    "Prompt",
    "accept_prompt",
    "accept_sources",
    "check_batch_size",
    "check_sampling",
]


@dataclass(frozen=True, eq=False)
class AcceptedSources:
    """Checked sources, ready for the network.

    Attributes:
        prepared: images on the model grid.
        described: what the run record says of each source, in channel order.
        warnings: what was noticed.
        volumes: the volumes themselves, repaired, in channel order.
        direction: position of the direction of translation among those of the model's card.
    """

    prepared: PreparedSources
    described: tuple[dict[str, Any], ...]
    warnings: tuple[Warned, ...]
    volumes: tuple[Volume, ...] = ()
    direction: int = 0


@dataclass(frozen=True, eq=False)
class Prompt:
    """A checked region on the model grid, exactly as drawn.

    Attributes:
        array: [K, H, W]: 0 background, 0.5 oedema, 1 core; None for no prompt.
        described: what the run record says of it; None for no prompt.
        warnings: what was noticed.
    """

    array: NDArray[np.float32] | None = None
    described: dict[str, Any] | None = None
    warnings: tuple[Warned, ...] = ()


def check_batch_size(batch_size: int | str) -> None:
    """Check that a batch size is ``auto`` or a whole number from 1.

    Raises:
        UsageError: ``MX-USE-023``, it is not.
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size != "auto" and not (whole and int(batch_size) >= 1):
        raise UsageError(
            "MX-USE-023",
            f"the batch size is {batch_size!r}",
            expected="auto, or 1 or more",
            where="batch_size",
            fix="use auto",
        )


def check_sampling(sampling: Sampling | None, model: LoadedModel) -> None:
    """Check that a model draws samples where it is told how to.

    Raises:
        UsageError: ``MX-USE-206``, it does not.
    """
    if sampling is None or sampling.is_default or model.method.draws_samples:
        return
    raise UsageError(
        "MX-USE-206",
        f"model '{model.card.name}' ({model.card.method}) draws no samples",
        expected="a diffusion model such as aldm for samples, steps, seeds or an uncertainty map",
        where="sampling",
        fix="leave these options out, or choose another model",
    )


def accept_sources(
    sources: Sequence[Volume],
    card: ModelCard,
    target: Modality,
    reference: Modality | None,
    *,
    any_source: bool = False,
    in_words: bool = False,
) -> AcceptedSources:
    """Check every source and bring it to the model grid.

    Args:
        sources: volumes with their modality, in any order.
        card: the model's card.
        target: modality to make, or whose intensities the result gets; with the sources it decides the direction.
        reference: the source whose grid the result gets; None for the first.
        any_source: the model need not know the source: one that it can normalise will do (see ``Method.speaks``).
        in_words: what is made was described, so that an image of the source's modality is no reconstruction.

    Raises:
        InputError: see ``checks`` and :func:`prepare_sources`.
        UsageError: ``MX-USE-022``, the reference is not among the sources.
    """
    # the reference first: the others are checked against its grid
    ordered = sorted(sources, key=lambda volume: reference is not None and volume.modality is not reference)
    present = list(dict.fromkeys(volume.modality.value for volume in ordered))
    direction = choose_direction(card.directions_listed(), target.value, present)
    required = [Modality.parse(name) for name in card.sources_for(target.value, present, any_source=any_source)]
    warnings = [note for volume in sources for note in volume.notes]
    if required == [target] and not in_words:
        warnings.append(_reconstruction(target))
    sound = []
    for volume in ordered:
        repaired, found = checked(volume)
        sound.append(repaired)
        warnings += found
    warnings += check_sources(sound, required)
    by_role = {volume.modality: volume for volume in sound}
    if reference is not None and reference not in by_role:
        raise UsageError(
            "MX-USE-022",
            f"the reference {reference} is not among the sources",
            expected=f"one of {', '.join(by_role)}",
            where="--reference",
            fix="name the modality of one of the sources",
        )
    used = [by_role[role] for role in required]
    prepared = prepare_sources(used, sound[0].geometry, GridSpec.from_dict(card.grid), card.normalisers)
    described = tuple(describe_volume(volume) for volume in used)
    return AcceptedSources(prepared, described, (*warnings, *prepared.warnings), tuple(used), direction)


def _reconstruction(target: Modality) -> Warned:
    return Warned(
        "MX-MOD-098",
        f"the source is a {target.value} image already, so the result is a reconstruction of it",
        fix="choose another target, unless it is the reconstruction that you want to see",
    )


def accept_prompt(
    roi: Volume | None, model: LoadedModel, prepared: PreparedSources, roi_labels: Mapping[str, Sequence[int]]
) -> Prompt:
    """Check a region and bring it to the model grid.

    Args:
        roi: label map on any grid; None for no prompt.
        model: the model it will prompt.
        prepared: its sources.
        roi_labels: label values by region; empty for BraTS's.

    Raises:
        UsageError: ``MX-ROI-010``, the model takes no region.
        InputError: see :func:`MedXlateCore.checks_roi.check_roi`.
    """
    if roi is None:
        return Prompt()
    if model.card.prompts != "region":
        raise UsageError(
            "MX-ROI-010",
            f"model '{model.card.name}' takes no region of interest",
            expected="sources only",
            where="--roi",
            fix="leave the region out, or choose a model with region prompts",
        )
    labels = roi_labels or DEFAULT_LABELS
    warnings = check_roi(roi, prepared.plan.reference, labels)
    array = prepare_roi(roi, prepared.plan, labels, getattr(model.config, "prompt_encoding", "two_region"))
    described = {
        **describe_volume(roi),
        "labels": {name: list(values) for name, values in labels.items()},
        "voxels_on_model_grid": int(np.count_nonzero(array)),
        "used": "as drawn",
    }
    return Prompt(array, described, tuple(warnings))
