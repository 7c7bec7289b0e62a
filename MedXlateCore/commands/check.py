"""``medxlate check``: what a DICOM folder holds, and what there is to say about one volume."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedXlateCore.errors import Warned
    from MedXlateCore.io.dicom_read import Listed
    from MedXlateCore.volume import Volume

__all__ = ["add_arguments", "run"]

_COLUMNS = ("name", "series", "modality", "role", "plane", "images", "voxels", "spacing mm", "remarks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", metavar="DIR|FILE", help="DICOM folder (DIR#NAME for one volume of it) or volume file")
    parser.add_argument("--role", metavar="MODALITY", help="look at it as this modality, such as T1")


def run(options: argparse.Namespace) -> int:
    """List a DICOM folder with several volumes; read and check anything else.

    Raises:
        MedXlateError: as ``MedXlateCore.io.read_volume`` and ``MedXlateCore.checks.check_volume``.
    """
    from MedXlateCore.checks import check_volume
    from MedXlateCore.io import check_input_format, read_volume
    from MedXlateCore.io.dicom_read import list_stacks, split_choice

    if check_input_format(options.path) == ".dcm" and not split_choice(options.path)[1] and options.role is None:
        listed, notes = list_stacks(options.path)
        if len(listed) > 1:
            _print_list(listed, notes)
            return 0
    volume = read_volume(options.path, options.role)
    _print_volume(volume, [*volume.notes, *check_volume(volume)])
    return 0


def _print_list(listed: list[Listed], notes: list[Warned]) -> None:
    rows = [_COLUMNS, *(_row(item) for item in listed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{len(listed)} volumes; choose one by its role (T1=DIR) or by its name (T1=DIR#NAME)")
    print("role: by how it was taken; with '?' by its description only; 'other' has no role as a source")
    for note in notes:
        print(f"warning: {note.as_text()}")


def _row(item: Listed) -> tuple[str, ...]:
    from MedXlateCore.volume import Modality

    stack, facts = item.stack, item.facts.acquisition
    role = item.role.value
    if item.role is Modality.OTHER:
        role = facts.sequence or ("other" if item.described is Modality.OTHER else f"{item.described.value}?")
    remarks = [stack.apart, "localiser or projection" if stack.header.aside else ""]
    remarks += ["fat suppressed" if facts.fat_suppressed else "", "with contrast agent" if facts.contrast_agent else ""]
    remarks += [note.code for note in stack.notes]
    remarks.append(f"{stack.problem.code}: {stack.problem.found}" if stack.problem else "")
    number = stack.header.series_number
    shape, spacing = ("", "") if stack.geometry is None else _grid(stack.geometry.shape, stack.geometry.spacing_mm)
    return (
        stack.name, "" if number is None else str(number), facts.modality or stack.header.modality,
        "" if stack.header.problem else role, facts.plane or "", str(len(stack.frames)), shape, spacing,
        "; ".join(filter(None, remarks)),
    )  # fmt: skip


def _grid(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> tuple[str, str]:
    return " x ".join(str(n) for n in shape), " x ".join(f"{length:.3g}" for length in spacing_mm)


def _print_volume(volume: Volume, notes: list[Warned]) -> None:
    from MedXlateCore.files import shown

    shape, spacing = _grid(volume.geometry.shape, volume.geometry.spacing_mm)
    print(f"{shown(volume.source.name)}: {shape} voxels of {spacing} mm")
    print(f"  values: {float(volume.array.min()):g} to {float(volume.array.max()):g}")
    if volume.synthetic:
        print("  SYNTHETIC: the file says so; research use only, not for diagnosis")
    if volume.acquisition is not None:
        for name, value in volume.acquisition.known().items():
            print(f"  {name}: {', '.join(value) if isinstance(value, tuple) else value}")
    for note in notes:
        print(f"warning: {note.as_text()}")
    if not notes:
        print("no remarks")
