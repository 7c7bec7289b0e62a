"""Small volumes for the tests of the metrics."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from MedXlateCore.volume import Geometry, Modality, Source, Volume

MakeVolume = Callable[..., Volume]


@pytest.fixture
def volume_of() -> MakeVolume:
    """Return a function that makes a volume of an array (2D arrays become one slice)."""

    def make(
        array: NDArray,
        modality: str = "T1",
        spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
        name: str = "",
        **more: object,
    ) -> Volume:
        array = array[..., None] if array.ndim == 2 else array
        geometry = Geometry(array.shape, np.diag([*spacing, 1.0]))
        return Volume(array, geometry, Modality.parse(modality), Source(name=name), **more)

    return make


@pytest.fixture
def head(volume_of: MakeVolume) -> tuple[Volume, Volume, Volume]:
    """Return a reference, a synthetic image and a label map: a textured ball on exact zeros with a lesion in it."""
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (28, 30, 24)), indexing="ij"))
    distance = np.sqrt(((grid - np.array([14, 15, 12])[:, None, None, None]) ** 2).sum(axis=0))
    ball = distance < 10.5
    reference = np.where(ball, 400 + 40 * rng.standard_normal(ball.shape), 0.0)
    synthetic = np.where(ball, reference + 25 * rng.standard_normal(ball.shape), 0.0)
    labels = np.zeros(ball.shape, dtype=np.uint8)
    labels[10:17, 12:18, 9:14] = 2
    labels[11:15, 13:16, 10:13] = 1
    labels[12:14, 13:15, 10:12] = 4
    return (
        volume_of(reference.astype(np.float32), "T1ce", name="reference.nii.gz"),
        volume_of(synthetic.astype(np.float32), "T1ce", name="synthetic.nii.gz"),
        volume_of(labels, "label", name="seg.nii.gz"),
    )
