"""What makes one head differ from another, and the smooth map from a subject's space to the standard head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedXlateCore.phantom.fields import Array, Grid, Points, generator, smooth_noise

__all__ = ["Traits", "canonical_points", "draw_traits"]


@dataclass(frozen=True)
class Traits:
    """Individual anatomy. Lengths in mm, angles in degrees, the rest relative to 1 or in 0..1.

    Attributes:
        scale: size of the head along x, y, z.
        rotation_deg: head tilt about x, y, z.
        atrophy: 0 (young, tight sulci) to 1 (wide sulci and ventricles).
        ventricle_scale: size of the lateral ventricles on the right and the left.
        skull_mm: mean thickness of the vault.
        scalp_mm: thickness of scalp over the vault.
        cortex_mm: cortical thickness.
        fold_mm: dominant wavelength of the primary cortical folds.
        sinus_scale: pneumatisation of the air sinuses.
        mucosa_mm: thickness of sinus mucosa.
        neck_mm: half width of the neck.
    """

    scale: tuple[float, float, float]
    rotation_deg: tuple[float, float, float]
    atrophy: float
    ventricle_scale: tuple[float, float]
    skull_mm: float
    scalp_mm: float
    cortex_mm: float
    fold_mm: float
    sinus_scale: float
    mucosa_mm: float
    neck_mm: float


def draw_traits(seed: int) -> Traits:
    """Draw the anatomy of subject ``seed``."""
    rng = generator(seed, "traits")
    size = rng.normal(1.0, 0.022)
    x, y, z = np.clip(size * rng.normal(1.0, 0.02, 3), 0.94, 1.06)
    atrophy = float(rng.beta(1.3, 2.0))
    ventricles = (0.72 + 0.75 * atrophy) * float(np.exp(0.12 * rng.standard_normal()))
    asymmetry = float(np.exp(0.07 * rng.standard_normal()))
    pitch, roll, yaw = rng.normal(0.0, (3.0, 1.8, 1.8)).clip(-7, 7)
    return Traits(
        scale=(float(x), float(y), float(z)),
        rotation_deg=(float(pitch), float(roll), float(yaw)),
        atrophy=atrophy,
        ventricle_scale=(ventricles * asymmetry, ventricles / asymmetry),
        skull_mm=float(rng.uniform(5.0, 7.5)),
        scalp_mm=float(rng.uniform(5.0, 8.0)),
        cortex_mm=float(rng.uniform(2.5, 3.0)),
        fold_mm=float(rng.uniform(20.8, 24.4)),
        sinus_scale=float(rng.uniform(0.75, 1.15)),
        mucosa_mm=float(rng.choice([0.8, 1.2, 3.0], p=[0.5, 0.35, 0.15])),
        neck_mm=float(rng.uniform(54.0, 64.0)),
    )


def canonical_points(seed: int, traits: Traits, grid: Grid) -> Points:
    """Return the canonical coordinates of every voxel: rotation and scaling, then a smooth random displacement.

    The displacement has scales of 65 and 26 mm and gradients far below 1, so the map folds nowhere.
    """
    x, y, z = np.meshgrid(*grid.axes, indexing="ij", copy=False)
    matrix = _affine(traits).astype(np.float32)
    rng = generator(seed, "deformation")
    moved: list[Array] = []
    for row in matrix:
        value = row[0] * x + row[1] * y + row[2] * z
        value += np.float32(2.3) * smooth_noise(rng, grid, 65.0)
        value += np.float32(1.1) * smooth_noise(rng, grid, 26.0)
        moved.append(value)
    return moved[0], moved[1], moved[2]


def _affine(traits: Traits) -> np.ndarray:
    """Return the 3x3 matrix from subject mm to canonical mm."""
    a, b, c = np.radians(traits.rotation_deg)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.diag(1.0 / np.array(traits.scale)) @ about_x @ about_y @ about_z
