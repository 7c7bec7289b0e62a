"""Makers of faults in DICOM series: :func:`series` puts a sound series in place of a file, the others spoil it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_made import write_enhanced, write_series
from makers import load
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import RLELossless, generate_uid
from scene import Scene, maker


def _sound(scene: Scene, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of a file, or of a patient where the command has no files, as 16-bit integers, and the grid."""
    if file in scene.files:
        array, affine = load(scene.files[file])
    else:
        volume = scene.make_patient()["T1"]
        array, affine = volume.array, volume.geometry.affine_ras
    return np.rint(array).astype(np.int16), affine


def _files(scene: Scene, file: str) -> list[Path]:
    return sorted(path for path in scene.files[file].rglob("*") if path.is_file())


def _edit(path: Path, change: Callable[[FileDataset], Any]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


@maker
def series(scene: Scene, file: str = "T1", **tags: Any) -> None:
    """Give the image as a DICOM series."""
    array, affine = _sound(scene, file)
    folder = scene.folder / "in" / f"{file}-series"
    write_series(folder, array, affine, **tags)
    scene.files[file] = folder


@maker
def enhanced(scene: Scene, file: str = "T1", shuffled: bool = False, drop: str = "", turn: bool = False) -> None:
    """Give the image as one enhanced multi-frame object; ``drop`` takes a sequence away from one frame, ``turn`` turns
    half of the frames.
    """
    array, affine = _sound(scene, file)
    order = list(np.random.default_rng(1).permutation(array.shape[2])) if shuffled else None

    def change(dataset: Dataset) -> None:
        frames = dataset.PerFrameFunctionalGroupsSequence
        if drop == "frame":
            del frames[3]
        elif drop:
            delattr(frames[3], drop)
        for frame in frames[: len(frames) // 2] if turn else []:
            item = Dataset()
            item.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            frame.PlaneOrientationSequence = Sequence([item])

    scene.files[file] = write_enhanced(scene.folder / "in" / "enhanced.dcm", array, affine, order, change)


@maker
def slices_lost(scene: Scene, slices: list[int], file: str = "T1") -> None:
    """Take slices away."""
    files = _files(scene, file)
    for k in slices:
        files[k].unlink()


@maker
def slices_moved(scene: Scene, by: list[float], slices: list[int], file: str = "T1", growing: bool = False) -> None:
    """Move slices by so many mm (LPS); ``growing``: each by as much more as its number says."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        shift = np.array(by) * (k if growing else 1)
        _edit(
            files[k],
            lambda d, s=shift: d.__setattr__(
                "ImagePositionPatient", [f"{p:.8g}" for p in np.array(d.ImagePositionPatient, float) + s]
            ),
        )


@maker
def tagged(scene: Scene, slices: list[int], file: str = "T1", **tags: Any) -> None:
    """Give slices (none: all) other attributes."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        _edit(files[k], lambda d: [setattr(d, keyword, value) for keyword, value in tags.items()])


@maker
def untagged(scene: Scene, slices: list[int], keyword: str, file: str = "T1") -> None:
    """Take an attribute away from slices (none: from all)."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        _edit(files[k], lambda d: delattr(d, keyword))


@maker
def written(scene: Scene, slices: list[int], keyword: str, text: str, file: str = "T1") -> None:
    """Write an attribute's text as it stands, in bytes, whatever it means."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        dataset = dcmread(files[k])
        mark = "7" * 12 + "\\8\\9"
        value = [mark.split("\\")[0], "8", "9"] if keyword == "ImagePositionPatient" else mark.split("\\")[0]
        setattr(dataset, keyword, value)
        dataset.save_as(files[k])
        old = (mark if keyword == "ImagePositionPatient" else mark.split("\\")[0]).encode()
        data = files[k].read_bytes()
        assert data.count(old) == 1
        files[k].write_bytes(data.replace(old, text.encode().ljust(len(old))))


@maker
def repeated(scene: Scene, slices: list[int], file: str = "T1", how: str = "copy") -> None:
    """Have slices (none: all) twice: as a ``copy``, as ``another`` image under one UID, or as a ``new`` one."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        twin = files[k].with_name(f"again-{files[k].name}")
        shutil.copy(files[k], twin)
        if how == "another":
            _edit(twin, lambda d: setattr(d, "PixelData", bytes(len(d.PixelData))))
        if how == "new":
            _edit(twin, lambda d: (setattr(d, "SOPInstanceUID", generate_uid()), setattr(d, "InstanceNumber", 999)))


@maker
def another_series(scene: Scene, file: str = "T1", name: str = "B", **tags: Any) -> None:
    """Put a further series into the folder."""
    volume = scene.make_patient()["T2"]
    array = np.rint(volume.array).astype(np.int16)
    write_series(
        scene.files[file] / name, array, volume.geometry.affine_ras, series="1.2.826.0.1.3680043.8.498.9", **tags
    )


@maker
def pixels(scene: Scene, slices: list[int], file: str = "T1", how: str = "short") -> None:
    """Spoil the voxels of slices (none: all): ``short``, ``long``, ``rle`` (sound), ``damaged`` RLE, or ``colour``."""
    files = _files(scene, file)
    for k in slices or range(len(files)):
        if how == "rle":
            dataset = dcmread(files[k])
            dataset.compress(RLELossless)
            dataset.save_as(files[k])
        else:
            _edit(files[k], _SPOILED[how])


def _as_colour(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(3 * dataset.Rows * dataset.Columns)


def _with_table(dataset: Dataset) -> None:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [2, 0, 16], "US"
    item.add(DataElement(Tag(0x0028, 0x3006), "US", [0, 1]))
    dataset.ModalityLUTSequence = Sequence([item])


def _damaged(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([b"\2" + b"\xff" * 63 + b"\7" * 200])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


_SPOILED: dict[str, Callable[[FileDataset], Any]] = {
    "short": lambda d: setattr(d, "PixelData", d.PixelData[: len(d.PixelData) // 2]),
    "long": lambda d: setattr(d, "PixelData", d.PixelData * 2),
    "damaged": _damaged,
    "colour": _as_colour,
    "table": _with_table,
}


@maker
def syntax(scene: Scene, uid: str, file: str = "T1") -> None:
    """Say that the voxels are compressed in another way."""
    for path in _files(scene, file):
        dataset = dcmread(path)
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(path)


@maker
def beside(scene: Scene, name: str, file: str = "T1", text: str = "nothing", start: str = "") -> None:
    """Put a file into the folder: text, or the first bytes of a DICOM file (``start`` = how many)."""
    data = _files(scene, file)[0].read_bytes()[: int(start)] if start else text.encode()
    (scene.files[file] / name).write_bytes(data)


@maker
def bare(scene: Scene, file: str = "T1") -> None:
    """Take preamble and file meta information away, as in files of old archives."""
    for path in _files(scene, file):
        dataset = dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True)


@maker
def renumbered(scene: Scene, file: str = "T1") -> None:
    """Name the files in another order than their slices lie."""
    files = _files(scene, file)
    for n, path in zip(np.random.default_rng(2).permutation(len(files)), files, strict=True):
        path.rename(path.with_name(f"x{n:03d}"))


@maker
def chosen(scene: Scene, name: str, file: str = "T1") -> None:
    """Name a volume behind the folder."""
    scene.files[file] = Path(f"{scene.files[file]}#{name}")


@maker
def one_slice_given(scene: Scene, file: str = "T1") -> None:
    """Give one file of the series."""
    scene.files[file] = _files(scene, file)[4]


@maker
def emptied(scene: Scene, file: str = "T1") -> None:
    """Take all files of the folder away."""
    for path in _files(scene, file):
        path.unlink()


@maker
def no_codec(scene: Scene) -> None:
    """Have no codec installed."""
    from pydicom.pixels.decoders.base import Decoder

    scene.patch.setattr(Decoder, "is_available", property(lambda decoder: False))
