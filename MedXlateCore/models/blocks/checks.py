"""What networks and their recipes refuse: sizes, channels and constants with which they cannot work."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from MedXlateCore.errors import InputError, UsageError

__all__ = ["MAX_INPUTS", "check_architecture", "check_constants", "check_images"]

MAX_INPUTS = 16  # sources; as many as a model card may list


def check_images(images: Tensor, channels: int, multiple: int, dimensions: int = 2) -> None:
    """Check images [B, S, H, W] or [B, S, D, H, W] before a network sees them.

    Args:
        images: the sources.
        channels: S that the network takes.
        multiple: number that height and width, in volumes depth too, must be a multiple of.
        dimensions: 2 for slices, 3 for volumes.

    Raises:
        InputError: ``MX-MOD-007`` (a size does not fit), ``MX-MOD-008`` (wrong number of channels).
    """
    volumes = dimensions == 3
    if images.ndim != 2 + dimensions or images.shape[1] != channels:
        raise InputError(
            "MX-MOD-008",
            f"the network was given images of shape {tuple(images.shape)}",
            expected=f"[B, {channels}, {'D, ' if volumes else ''}H, W], one channel a source",
            where="images",
            fix="stack the sources that the model card lists, in its order",
        )
    sizes = images.shape[2:]
    if any(size % multiple for size in sizes) or 0 in images.shape:
        raise InputError(
            "MX-MOD-007",
            f"the images have {' x '.join(map(str, sizes))} {'voxels' if volumes else 'pixels'}",
            expected=f"{'depth, ' if volumes else ''}height and width of a multiple of {multiple}",
            where="images",
            fix="pad or crop the slices; a grid with size_multiple does so",
        )


def check_architecture(possible: bool, where: str, value: object, expected: str) -> None:
    """Refuse a setting with which there is no network.

    Raises:
        UsageError: ``MX-MOD-005``.
    """
    if not possible:
        raise UsageError(
            "MX-MOD-005",
            f"the configuration has {where} = {value}",
            expected=expected,
            where=where,
            fix="correct [model.config], or choose a preset",
        )


def check_constants(recipe: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a recipe with a constant outside its range, for its ``__post_init__``.

    Args:
        recipe: the configuration.
        ranges: lowest and highest value of its fields by name, both allowed.

    Raises:
        UsageError: ``MX-MOD-006``.
    """
    for name, (low, high) in ranges.items():
        value = getattr(recipe, name)
        if not low <= value <= high:
            raise UsageError(
                "MX-MOD-006",
                f"the recipe has {name} = {value}",
                expected=f"a value from {low} to {high:g}",
                where=name,
                fix="correct the [recipe] table",
            )
