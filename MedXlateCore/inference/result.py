"""From predicted slices to the synthetic volume: checked, scaled, on the reference's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.inference.prepare import PreparedSources, unstack
from MedXlateCore.models.card import ModelCard, OutputScale
from MedXlateCore.transforms.intensity import FittedNormaliser
from MedXlateCore.volume import Modality, Source, Volume

__all__ = ["check_output", "on_reference", "output_scale", "synthetic_volume", "uncertainty_volume"]

Float32Array = NDArray[np.float32]


def output_scale(
    card: ModelCard, direction: int, reference: FittedNormaliser, source: str | None = None
) -> FittedNormaliser:
    """Return the map from the network's [-1, 1] to the result's intensities.

    MR has no unit: its scale is given relative to the reference source (the median ratio over the training cases). CT,
    CBCT and PET have fixed windows in HU and SUV.

    Args:
        card: the model's card.
        direction: position of the direction of translation.
        reference: fitted normaliser of the first source.
        source: its modality. One that the direction leads to, and not from, gives its own scale: such a source is a
            described image's, as T1 with fat suppression from T1.
    """
    known = card.directions_listed()[direction]
    if source == known.target and source not in known.sources:
        return FittedNormaliser(low=reference.low, high=reference.high, clip=False)
    scale = OutputScale(**card.output_of(direction))
    factor = reference.high if scale.kind == "relative" else 1.0
    return FittedNormaliser(low=scale.low * factor, high=scale.high * factor, clip=False)


def check_output(stack: Float32Array, slices: list[int]) -> list[Warned]:
    """Refuse a result that is not a finite image; warn of one that shows nothing.

    Args:
        stack: slices [K, H, W] in [-1, 1].
        slices: positions of those that were predicted.

    Raises:
        InputError: ``MX-MOD-092``, the network gave values that are not finite.
    """
    values = stack[slices]
    if not np.isfinite(values).all():
        bad = [k for k in slices if not np.isfinite(stack[k]).all()]
        raise InputError(
            "MX-MOD-092",
            f"the network gave NaN or infinite values in {len(bad)} of {len(slices)} slices",
            expected="finite values",
            where=f"model-grid slice {bad[0]}",
            fix="use --precision fp32; if it stays, the model package is unusable",
        )
    if values.size and float(values.max() - values.min()) < 1e-3:
        return [Warned("MX-MOD-093", "the result is constant", fix="check that the sources are what the model expects")]
    return []


def synthetic_volume(
    stack: Float32Array, prepared: PreparedSources, scale: FittedNormaliser, target: Modality, card: ModelCard
) -> Volume:
    """Return predicted slices [K, H, W] as a volume on the reference's grid; background where nothing was predicted."""
    return on_reference(stack, prepared, scale, target, Source(name=f"SYNTHETIC {target.value} ({card.name})"))


def uncertainty_volume(
    deviation: Float32Array, prepared: PreparedSources, scale: FittedNormaliser, target: Modality, card: ModelCard
) -> Volume:
    """Return a standard deviation [K, H, W] of values in [-1, 1] on the reference's grid, in the result's unit."""
    in_units = deviation * np.float32((scale.high - scale.low) / 2)
    array = prepared.plan.to_reference(unstack(in_units), fill=0.0)
    source = Source(name=f"SYNTHETIC {target.value} ({card.name}), standard deviation")
    return Volume(array, prepared.plan.reference, Modality.OTHER, source, synthetic=True)


def on_reference(
    stack: Float32Array, prepared: PreparedSources, scale: FittedNormaliser, target: Modality, source: Source
) -> Volume:
    """Return slices [K, H, W] in [-1, 1] as a synthetic volume on the reference's grid, scaled; ``source`` names it."""
    background = float(scale.invert(np.array(-1.0, dtype=np.float32)))
    array = prepared.plan.to_reference(scale.invert(unstack(stack)), fill=background)
    return Volume(array, prepared.plan.reference, target, source, synthetic=True)
