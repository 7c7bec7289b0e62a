"""DICOM files of a folder: which there are, and what each of their frames says about itself.

Only headers are read here. References that files make to other files (DICOMDIR) are never followed: a folder is
looked through instead, links to other folders left aside.
"""

from __future__ import annotations

import io
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from MedXlateCore.errors import InputError, Warned
from MedXlateCore.io.dicom_tags import FrameTags, codes, element_value, number, reading_errors, text
from MedXlateCore.paths import shown, unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["UNKNOWN_KIND", "Found", "Frame", "Header", "looks_like_dicom", "open_dataset", "scan_file", "scan_folder"]

MAX_FILES = 50_000
MAX_FRAMES = 50_000
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT", "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR", "1.2.840.10008.5.1.4.1.1.4.1": "MR", "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT", "1.2.840.10008.5.1.4.1.1.128.1": "PT", "1.2.840.10008.5.1.4.1.1.130": "PT",
}  # fmt: skip
"""Modality by storage class: CT, MR and PET images; classic, enhanced and legacy converted ones."""

UNKNOWN_KIND = "an object of unknown kind"
_DIRECTORY = "1.2.840.10008.1.3.10"
_ASIDE = {"LOCALIZER", "PROJECTION IMAGE", "MIP", "MIN_IP", "MINIP"}


@dataclass(frozen=True)
class Header:
    """What a file says about itself as a whole.

    Attributes:
        path: the file.
        series: what all files of one series share: UIDs of patient, study and series. Never shown or recorded.
        series_uid: the series' UID, by which the user may choose.
        sop_uid: the object's own UID, which only copies share.
        series_number: number of the series in the study.
        modality: ``MR``, ``CT``, ``PT``, or another code.
        image_type: ``ORIGINAL``, ``PRIMARY``, ...
        problem: why no volume can be made of it; empty if one can.
        aside: True for localisers and projections, which are taken only when chosen by name.
    """

    path: Path
    series: tuple[str, ...]
    series_uid: str
    sop_uid: str
    series_number: int | None
    modality: str
    image_type: tuple[str, ...]
    problem: str
    aside: bool


@dataclass(frozen=True)
class Frame:
    """One slice: a classic file, or one frame of a multi-frame file.

    Attributes:
        header: the file it is in.
        index: which frame of the file, from 0.
        size: rows and columns.
        position: centre of the first voxel, LPS mm.
        orientation: direction cosines of a row and of a column, LPS.
        spacing: distance of rows and of columns, mm.
        thickness: slice thickness, mm.
        slice_distance: the distance of slices that the header claims, mm.
        group: what frames of one volume share besides the grid: frame of reference and stack.
        apart: what may tell apart two frames at one place, by name.
        moment: its place in time, to be compared within one series.
    """

    header: Header
    index: int
    size: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    slice_distance: float | None
    group: tuple[str, ...]
    apart: dict[str, Hashable]
    moment: tuple[float, ...]


@dataclass
class Found:
    """The frames of a folder or file, and remarks about what was left out."""

    frames: list[Frame] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    directories: int = 0

    def notes(self, where: str) -> list[Warned]:
        """Return recorded warnings about files that were left out."""
        notes = []
        if self.foreign:
            text = f"{len(self.foreign)} files that are not DICOM were ignored, such as '{shown(self.foreign[0].name)}'"
            notes.append(Warned("MX-DCM-101", text, where))
        if self.damaged:
            text = f"{len(self.damaged)} damaged DICOM files were left out, such as '{shown(self.damaged[0].name)}'"
            notes.append(Warned("MX-DCM-102", text, where, "copy or export them again: slices may be missing"))
        return notes


def looks_like_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM does: with ``DICM`` after 128 bytes, or with an early data element."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _early_element(head)


def _early_element(head: bytes) -> bool:
    """Say whether bytes are a file without preamble: group 0008 with an explicit type or a small implicit length."""
    if head[:2] != b"\x08\x00" or len(head) < 12:
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or int.from_bytes(head[4:8], "little") < 1024


def open_dataset(source: Path | bytes, header_only: bool = True) -> Dataset:
    """Read a DICOM object from a file or from its bytes.

    Raises:
        Whatever is in ``reading_errors()``: the caller says what it means.
    """
    import pydicom

    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    dataset = pydicom.dcmread(stream, stop_before_pixels=header_only, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax if little else pydicom.uid.ExplicitVRBigEndian
    return dataset


def scan_folder(folder: Path) -> Found:
    """Read the headers of all DICOM files in a folder and below it.

    Raises:
        InputError: ``MX-DCM-006``, too many files.
        ResourceError: ``MX-FIL-005``, no permission; InputError ``MX-FIL-001``/``006`` where it cannot be read.
    """
    found = Found()
    for path in _files(folder):
        _add(found, path)
    return found


def scan_file(path: Path) -> Found:
    """Read the header of one DICOM file.

    Raises:
        InputError: ``MX-DCM-004``, it cannot be read as DICOM.
    """
    found = Found()
    _add(found, path)
    if found.foreign or found.damaged:
        raise InputError(
            "MX-DCM-004",
            "the file cannot be read as DICOM",
            expected="a complete DICOM file",
            where=shown(path),
            fix="copy or export it again",
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        """Say which folder cannot be read."""
        raise unreadable(Path(error.filename or folder), error) from error

    count = 0
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or not path.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise InputError(
                    "MX-DCM-006",
                    f"the folder holds more than {MAX_FILES} files",
                    expected="the folder of one patient or series",
                    where=shown(folder),
                    fix="give the folder of the series itself",
                )
            yield path


def _add(found: Found, path: Path) -> None:
    """Add a file's frames, or note why it has none."""
    if not looks_like_dicom(path):
        found.foreign.append(path)
        return
    try:
        dataset = open_dataset(path)
        if text(dataset.file_meta, "MediaStorageSOPClassUID") == _DIRECTORY or "DirectoryRecordSequence" in dataset:
            found.directories += 1
            return
        if not any(keyword in dataset for keyword in ("SOPClassUID", "SOPInstanceUID", "Modality", "Rows")):
            found.damaged.append(path)
            return
        header = _header(path, dataset)
        found.frames += list(_frames(header, dataset))
    except PermissionError as error:
        raise unreadable(path, error) from error
    except reading_errors():
        found.damaged.append(path)


def _header(path: Path, dataset: Dataset) -> Header:
    storage = text(dataset, "SOPClassUID")
    modality = _CLASSES.get(storage) or (text(dataset, "Modality").upper()[:16] if not storage else "")
    image_type = codes(dataset, "ImageType")
    series_uid = text(dataset, "SeriesInstanceUID")
    number_of_series = number(dataset, "SeriesNumber")
    return Header(
        path=path,
        series=(text(dataset, "PatientID"), text(dataset, "StudyInstanceUID"), series_uid),
        series_uid=series_uid,
        sop_uid=text(dataset, "SOPInstanceUID"),
        series_number=None if number_of_series is None else int(number_of_series),
        modality=modality or text(dataset, "Modality").upper()[:16],
        image_type=image_type,
        problem=_problem(dataset, storage, modality, image_type),
        aside=bool(_ASIDE & set(image_type)),
    )


def _problem(dataset: Dataset, storage: str, modality: str, image_type: tuple[str, ...]) -> str:
    """Say why no volume can be made of an object; empty if one can."""
    from pydicom.uid import UID

    if modality not in {"MR", "CT", "PT"}:
        name = UID(storage).name if storage else ""
        return UNKNOWN_KIND if name == storage else name  # only names of the standard are shown
    if (number(dataset, "SamplesPerPixel") or 1) != 1:
        return "a colour image"
    if "MOSAIC" in image_type:
        return "a Siemens mosaic"
    frames = int(number(dataset, "NumberOfFrames") or 1)
    described = element_value(dataset, "PerFrameFunctionalGroupsSequence")
    if frames > 1 and described is None:
        return "a multi-frame image without a position for each frame"
    if (described is not None and len(described) != frames) or not 1 <= frames <= MAX_FRAMES:
        return f"a multi-frame image of {frames} frames, of which {len(described or ())} are described"
    return ""


def _frames(header: Header, dataset: Dataset) -> Iterator[Frame]:
    count = 1 if header.problem else int(number(dataset, "NumberOfFrames") or 1)
    for index in range(count):
        yield _frame(header, dataset, index)


def _frame(header: Header, dataset: Dataset, index: int) -> Frame:
    tags = FrameTags(dataset, index)
    content = "FrameContentSequence"
    kind = tags.codes("MRImageFrameTypeSequence", "FrameType") if tags.enhanced else header.image_type
    diffusion = "MRDiffusionSequence"
    direction = tags.numbers("DiffusionGradientDirectionSequence", "DiffusionGradientOrientation", 3)
    instance = number(dataset, "InstanceNumber") or 0.0
    return Frame(
        header=header,
        index=index,
        size=(int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0)),
        position=tags.numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=tags.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        spacing=tags.numbers("PixelMeasuresSequence", "PixelSpacing", 2),
        thickness=tags.number("PixelMeasuresSequence", "SliceThickness"),
        slice_distance=tags.number("PixelMeasuresSequence", "SpacingBetweenSlices"),
        group=(text(dataset, "FrameOfReferenceUID"), tags.text(content, "StackID") if tags.enhanced else ""),
        apart={
            "image type": (kind or header.image_type)[2:],
            "echo time": tags.number("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
            "inversion time": tags.number("MRModifierSequence", "InversionTimes", "InversionTime"),
            "flip angle": tags.number("MRTimingAndRelatedParametersSequence", "FlipAngle"),
            "b value": tags.number(diffusion, "DiffusionBValue"),
            "gradient direction": direction,
        },
        moment=(
            tags.number(content, "TemporalPositionIndex", "TemporalPositionIdentifier") or 0.0,
            number(dataset, "AcquisitionNumber") or 0.0,
            tags.number("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime") or 0.0,
            instance,
            float(index),
        ),
    )
