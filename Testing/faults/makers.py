"""Makers of faults in images: each takes a good scene and spoils one thing, by the arguments of a row.

Faults of everything else (outputs, packages, devices, tables of cases) are made by ``makers_surroundings.py``.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import mutators
import nibabel as nib
import numpy as np
from nibabel.nifti1 import header_dtype
from scene import Scene, maker

from MedXlateCore.volume import Geometry


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels and the affine of a sound file."""
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an image with nibabel, another writer than the one under test."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


def read_raw(path: Path) -> bytes:
    """Return the file's bytes, inflated if it is packed."""
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def write_raw(path: Path, data: bytes) -> None:
    """Write bytes, packed if the name says so."""
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.name.endswith(".gz") else data)


# --- geometry ------------------------------------------------------------------------------------------------------


@maker
def header(scene: Scene, file: str | list[str], **fields: Any) -> None:
    """Put values into fields of the NIfTI header, byte for byte."""
    for path in scene.find(file):
        data = bytearray(read_raw(path))
        head = np.frombuffer(data, header_dtype, 1)[0:1]
        for name, value in fields.items():
            head[name] = value.encode() if isinstance(value, str) else np.array(value)
        write_raw(path, bytes(data))


@maker
def patient(
    scene: Scene,
    shape: tuple[int, ...] = (24, 28, 10),
    spacing: tuple[float, ...] = (8.0, 8.0, 12.0),
    axes: str = "LPS",
    turn: tuple[float, ...] = (0.0, 0.0, 0.0),
    shear: float = 0.0,
    shift: tuple[float, ...] = (0.0, 0.0, 0.0),
    only: str | list[str] = "",
) -> None:
    """Put the patient, or some of the images, on another grid around the origin of space.

    ``turn`` are degrees about x, y and z, ``shear`` the cosine between the last and the first axis.
    """
    affine = grid_affine(tuple(shape), spacing, axes, turn, shear, shift)
    volumes = scene.make_patient(Geometry(tuple(shape), affine))
    for name in scene.find(only) if only else list(scene.files.values()):
        key = next(key for key, path in scene.files.items() if path == name)
        save(name, volumes[key].array, affine)
    if not only or "T1" in only:
        scene.shape, scene.affine = tuple(shape), affine


def grid_affine(shape: Any, spacing: Any, axes: str, turn: Any, shear: float, shift: Any) -> np.ndarray:
    """Return the affine of a grid centred on ``shift``."""
    directions = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row = next(n for n, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        directions[row, column] = 1 if letter in "RAS" else -1
    for row, degrees in enumerate(turn):
        a, b = [n for n in range(3) if n != row]
        turned = np.eye(3)
        turned[a, a] = turned[b, b] = math.cos(math.radians(degrees))
        turned[b, a] = math.sin(math.radians(degrees))
        turned[a, b] = -turned[b, a]
        directions = turned @ directions
    directions[:, 2] = math.sqrt(1 - shear**2) * directions[:, 2] + shear * directions[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@maker
def affine(scene: Scene, file: str | list[str], matrix: list[list[float]] | None = None, **entries: Any) -> None:
    """Set the sform, with no qform beside it."""
    rows = {f"srow_{axis}": row for axis, row in zip("xyz", matrix or [], strict=False)}
    header(scene, file, qform_code=0, **rows, **entries)


@maker
def metres(scene: Scene, file: str | list[str]) -> None:
    """Give the same grid in metres."""
    scaled = {f"srow_{axis}": (row / 1000).tolist() for axis, row in zip("xyz", scene.affine, strict=False)}
    header(scene, file, xyzt_units=1, qform_code=0, **scaled)


@maker
def qform_only(scene: Scene, file: str | list[str], **fields: Any) -> None:
    """Leave the quaternion as the only orientation, with changes."""
    header(scene, file, sform_code=0, qform_code=1, **fields)


@maker
def no_orientation(scene: Scene, file: list[str]) -> None:
    """Leave neither sform nor qform: nifti1.h, method 1, places the grid by its voxel sizes."""
    header(scene, file, sform_code=0, qform_code=0)
    spacing = np.linalg.norm(scene.affine[:3, :3], axis=0)
    scene.affine = grid_affine(scene.shape, spacing, "LAS", (0, 0, 0), 0.0, (0, 0, 0))


# --- values --------------------------------------------------------------------------------------------------------


@maker
def poke(scene: Scene, file: str | list[str], value: float, voxels: int, inside: bool = True) -> None:
    """Give some voxels of the head, or of all, another value."""
    for path in scene.find(file):
        array, matrix = load(path)
        array = array.astype(np.float32, order="C")
        where = np.flatnonzero(array > 0) if inside else np.arange(array.size)
        array.reshape(-1)[where[np.linspace(0, len(where) - 1, voxels).astype(int)]] = value
        save(path, array, matrix)


@maker
def fill(scene: Scene, file: str | list[str], value: float) -> None:
    """Give every voxel one value."""
    for path in scene.find(file):
        array, matrix = load(path)
        save(path, np.full(array.shape, value, np.float32), matrix)


@maker
def linear(scene: Scene, file: str | list[str], factor: float = 1.0, offset: float = 0.0) -> None:
    """Scale and shift the intensities."""
    for path in scene.find(file):
        array, matrix = load(path)
        save(path, (array * factor + offset).astype(np.float32), matrix)


@maker
def retype(scene: Scene, file: str | list[str], dtype: str, top: float = 0.0, order: str = "<") -> None:
    """Store the intensities in another type, scaled so that the largest becomes ``top``."""
    for path in scene.find(file):
        array, matrix = load(path)
        array = array * (top / array.max()) if top else array
        if dtype == "rgb":
            pixel = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
            stored = np.zeros(array.shape, pixel)
            stored["R"] = array * (255 / array.max())
            save(path, stored, matrix)
            continue
        image = nib.Nifti1Image(array.astype(dtype), matrix, nib.Nifti1Header(endianness=order), dtype=np.dtype(dtype))
        image.header.set_xyzt_units("mm")
        image.to_filename(path)


@maker
def looks_like_labels(scene: Scene, file: str) -> None:
    """Leave three whole numbers only."""
    array, matrix = load(scene.files[file])
    save(scene.files[file], np.digitize(array, [1, 580]).astype(np.float32), matrix)


@maker
def nearly_empty(scene: Scene, file: str, voxels: int) -> None:
    """Leave only a few voxels of the head."""
    array, matrix = load(scene.files[file])
    kept = np.zeros(array.size, bool)
    inside = np.flatnonzero(array.ravel() > 0)
    kept[inside[len(inside) // 2 : len(inside) // 2 + voxels]] = True
    save(scene.files[file], np.where(kept.reshape(array.shape), array, 0).astype(np.float32), matrix)


# --- shape ---------------------------------------------------------------------------------------------------------


@maker
def frames(scene: Scene, file: str | list[str], count: int, behind: int = 0) -> None:
    """Repeat the image along a fourth axis; ``behind`` adds a fifth one of that length."""
    for path in scene.find(file):
        array, matrix = load(path)
        stacked = np.stack([array * (1 + 0.1 * n) for n in range(count)], axis=-1).astype(np.float32)
        stacked = np.stack([stacked] * behind, axis=-1) if behind else stacked
        save(path, stacked, matrix)


@maker
def plane(scene: Scene, file: list[str], flat: bool, slice_index: int = 5) -> None:
    """Leave one slice, as a 2D image or as a volume of one slice."""
    for path in scene.find(file):
        array, matrix = load(path)
        matrix = matrix.copy()
        matrix[:3, 3] += slice_index * matrix[:3, 2]
        save(path, array[..., slice_index] if flat else array[..., slice_index : slice_index + 1], matrix)
        scene.shape, scene.affine = (*array.shape[:2], 1), matrix


@maker
def cut(scene: Scene, file: str, keep: list[int]) -> None:
    """Leave only the first voxels along each axis."""
    array, matrix = load(scene.files[file])
    i, j, k = keep
    save(scene.files[file], array[:i, :j, :k], matrix)


# --- meaning -------------------------------------------------------------------------------------------------------


@maker
def sources(scene: Scene, pairs: list[list[str]]) -> None:
    """Give other files, or files under other names."""
    scene.sources = [(role, name) for role, name in pairs]


@maker
def same_image(scene: Scene, source: str, to: str, factor: float = 1.0) -> None:
    """Give one image in the other's place, scaled."""
    array, matrix = load(scene.files[source])
    save(scene.files[to], (array * factor).astype(np.float32), matrix)


@maker
def mirrored(scene: Scene, file: list[str]) -> None:
    """Exchange left and right of the patient, and leave the header as it was."""
    for path in scene.find(file):
        array, matrix = load(path)
        save(path, np.ascontiguousarray(array[::-1]), matrix)


@maker
def marked_synthetic(scene: Scene, file: str) -> None:
    """Have the header say that the image is synthetic."""
    header(scene, file, descrip="SYNTHETIC T1 MedXlate; research use only")


# --- files ---------------------------------------------------------------------------------------------------------


@maker
def mutated(scene: Scene, file: str, by: str, seed: int = 1) -> None:
    """Damage the file as disks and networks do; see ``mutators.py``."""
    path = scene.files[file]
    path.write_bytes(getattr(mutators, by)(path.read_bytes(), np.random.default_rng(seed), path.read_bytes()))


@maker
def content(scene: Scene, file: str, text: str) -> None:
    """Have something else in the file."""
    scene.files[file].write_bytes(text.encode())


@maker
def appended(scene: Scene, file: str, count: int, byte: int = 0, inside: bool = False) -> None:
    """Have bytes behind the end, of the file or of what is packed in it."""
    path, more = scene.files[file], bytes([byte]) * count
    if inside:
        write_raw(path, read_raw(path) + more)
    else:
        path.write_bytes(path.read_bytes() + more)


@maker
def kept(scene: Scene, file: str, count: int) -> None:
    """Keep only so many bytes of what is packed in the file, in a sound stream."""
    write_raw(scene.files[file], read_raw(scene.files[file])[:count])


@maker
def renamed(scene: Scene, file: str, to: str) -> None:
    """Give the file another name, whatever its content."""
    path = scene.files[file]
    target = path.with_name(to)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    scene.files[file] = target


@maker
def unpacked(scene: Scene, file: str, to: str) -> None:
    """Unpack the file, under a name that need not say so."""
    path = scene.files[file]
    scene.files[file] = path.with_name(to)
    data = read_raw(path)
    path.unlink()
    scene.files[file].write_bytes(data)


@maker
def stored_as(scene: Scene, file: str, name: str) -> None:
    """Write the image with SimpleITK in another format."""
    import SimpleITK as sitk

    path = scene.files[file]
    scene.files[file] = path.with_name(name)
    sitk.WriteImage(sitk.ReadImage(str(path)), str(scene.files[file]))
    path.unlink()


# --- regions -------------------------------------------------------------------------------------------------------


@maker
def region(
    scene: Scene,
    values: list[float] | None = None,
    dtype: str = "uint8",
    shift: tuple[float, ...] = (0.0, 0.0, 0.0),
    everywhere: bool = False,
) -> None:
    """Give the region as a prompt: other label values for core and oedema, another type, another place (mm)."""
    path = scene.files["region"]
    array, matrix = load(path)
    core, oedema = values or [1, 2]
    array = np.where(array == 1, core, np.where(array == 2, oedema, 0)).astype(dtype)
    matrix = matrix.copy()
    matrix[:3, 3] += shift
    save(path, np.full_like(array, core) if everywhere else array, matrix)
    scene.given["roi"] = "region"
