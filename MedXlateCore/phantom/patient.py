"""One phantom patient as files: images of one head and the label map of its lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedXlateCore.io import write_volume
from MedXlateCore.phantom.head import build_subject, render_subject
from MedXlateCore.volume import Modality

__all__ = ["write_patient"]


def write_patient(
    folder: Path,
    seed: int,
    modalities: Sequence[Modality],
    spacing_mm: Sequence[float] | None = None,
    suffix: str = ".nii.gz",
    lesion_count: int | None = 1,
) -> dict[str, Path]:
    """Make a head and write its images and its lesions, each file complete or absent.

    Args:
        folder: where to; created if needed.
        seed: same seed, same head.
        modalities: which images.
        spacing_mm: voxel size; None for the usual one.
        suffix: file format, such as ``.nii.gz`` or ``.nrrd``.
        lesion_count: how many lesions; None for what the seed draws.

    Returns:
        Paths by modality (``T1``, ...), and ``region`` for the label map (BraTS labels).

    Raises:
        UsageError: ``MX-USE-180`` to ``-183`` (modalities, size, seed).
        ResourceError: the folder cannot be written; see ``files``.
    """
    subject = build_subject(seed, spacing_mm=spacing_mm, lesion_count=lesion_count)
    volumes = {modality.value: volume for modality, volume in render_subject(subject, tuple(modalities)).items()}
    volumes["region"] = subject.label_volume()
    paths = {name: folder / f"{name}{suffix}" for name in volumes}
    for name, volume in volumes.items():
        write_volume(volume, paths[name])
    return paths
