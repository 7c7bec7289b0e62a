"""DICOM series made from numbers, for tests: classic and enhanced MR, with nothing in them that belongs to a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
T1_FACTS: dict[str, Any] = {
    "ScanningSequence": "SE", "SequenceVariant": "SK", "EchoTime": 12.0, "RepetitionTime": 600.0, "FlipAngle": 90.0,
    "MagneticFieldStrength": 3.0, "BodyPartExamined": "BRAIN", "SeriesDescription": "made",
}  # fmt: skip


def places(affine_ras: np.ndarray, slices: int) -> tuple[list[float], list[float], np.ndarray]:
    """Return direction cosines (row, column), spacing (of rows, of columns) and positions in LPS of each slice."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = (lps[:3, :2] / lengths[:2]).T.ravel()
    positions = lps[:3, 3] + np.arange(slices)[:, None] * lps[:3, 2]
    return cosines.tolist(), [float(lengths[1]), float(lengths[0])], positions


def _dataset(path: Path, storage: str, series: str, **tags: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.826.0.1.3680043.8.498.1"
    dataset.FrameOfReferenceUID, dataset.Modality = "1.2.826.0.1.3680043.8.498.2", "MR"
    dataset.PatientName, dataset.PatientID = "Somebody^Famous", "7777"
    dataset.ImageType, dataset.SeriesNumber = ["ORIGINAL", "PRIMARY", "M"], 1
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _pixels(dataset: Dataset, array: np.ndarray) -> None:
    """Put an array [..., rows, columns] of 16-bit integers into a dataset."""
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()


def write_series(
    folder: Path,
    array: np.ndarray,
    affine_ras: np.ndarray,
    series: str = "1.2.826.0.1.3680043.8.498.3",
    change: Callable[[Dataset, int], None] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write a classic MR series, one file a slice, and return the files in order of slices.

    Args:
        folder: created where it is not there.
        array: 16-bit integers [I, J, K].
        affine_ras: where they lie.
        series: Series Instance UID.
        change: is given each slice's dataset and its number before it is written.
        tags: attributes of every slice, beside those of a T1-weighted spin echo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cosines, spacing, positions = places(affine_ras, array.shape[2])
    files = []
    for k in range(array.shape[2]):
        path = folder / f"IM{len(list(folder.iterdir())):04d}.dcm"
        dataset = _dataset(path, MR, series, **T1_FACTS | tags)
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [f"{c:.10g}" for c in cosines], spacing
        dataset.ImagePositionPatient = [f"{p:.10g}" for p in positions[k]]
        dataset.InstanceNumber = k + 1
        _pixels(dataset, array[:, :, k].T)
        if change is not None:
            change(dataset, k)
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def write_enhanced(
    path: Path,
    array: np.ndarray,
    affine_ras: np.ndarray,
    order: list[int] | None = None,
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write an enhanced MR object, its frames in ``order`` of slices, each with a slope of its own: 1 + slice / 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cosines, spacing, positions = places(affine_ras, array.shape[2])
    order = list(range(array.shape[2])) if order is None else order
    dataset = _dataset(path, ENHANCED_MR, "1.2.826.0.1.3680043.8.498.4", EchoPulseSequence="SPIN")
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[f"{c:.10g}" for c in cosines])
    shared.PixelMeasuresSequence = _item(PixelSpacing=spacing, SliceThickness=1.0)
    shared.MREchoSequence = _item(EffectiveEchoTime=12.0)
    shared.MRTimingAndRelatedParametersSequence = _item(RepetitionTime=600.0, FlipAngle=90.0)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=[f"{p:.10g}" for p in positions[k]])
        frame.PixelValueTransformationSequence = _item(RescaleSlope=1 + k / 8, RescaleIntercept=0)
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    _pixels(dataset, array[:, :, order].transpose(2, 1, 0))
    if change is not None:
        change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _item(**tags: Any) -> Sequence:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Sequence([item])
