"""``medxlate translate``: files in, one synthetic file out, with its run record beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedXlateCore.commands.options import (
    add_device_options,
    add_label_option,
    add_model_options,
    add_sampling_options,
    parse_labels,
    parse_sampling,
    split_named,
)
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.volume import Modality

if TYPE_CHECKING:
    from MedXlateCore.acquisition import Acquisition
    from MedXlateCore.models.package import LoadedModel
    from MedXlateCore.models.sampling import Sampling
    from MedXlateCore.pipeline import Translation
    from MedXlateCore.volume import Volume

__all__ = ["FileRequest", "add_arguments", "drive", "run", "translate_files"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model_options(parser)
    parser.add_argument(
        "--source", action="append", required=True, metavar="MODALITY=FILE", help="a source, such as T1=t1.nii.gz"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".nii.gz, .nii, .nrrd or .mha")
    parser.add_argument("--reference", metavar="MODALITY", help="the source whose grid the result gets (first)")
    parser.add_argument("--roi", type=Path, metavar="FILE", help="label map of the suspected lesion, used as drawn")
    add_label_option(parser, "--roi-label", "a region")
    add_device_options(parser)
    parser.add_argument(
        "--batch-size",
        default="auto",
        metavar="N|auto",
        help="slices at a time (default: auto, by the memory there is)",
    )
    add_sampling_options(parser)
    parser.add_argument(
        "--uncertainty", type=Path, metavar="FILE",
        help="also write the standard deviation of every voxel over the samples (at least 2)",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the run record to this JSON file")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(options: argparse.Namespace) -> int:
    """Translate and write; what can be refused is refused before anything is computed.

    Raises:
        MedXlateError: see ``MedXlateCore.pipeline.translate`` and ``MedXlateCore.io.write_volume``.
    """
    from MedXlateCore.files import shown, write_json
    from MedXlateCore.io import check_output
    from MedXlateCore.models.package import load_package
    from MedXlateCore.pipeline import facts_like

    named = [(Modality.parse(role), Path(path)) for role, path in (split_named(s, "--source") for s in options.source)]
    request = FileRequest(
        tuple(named), options.output, options.target, options.reference, options.roi,
        parse_labels(options.roi_label, "--roi-label"), options.device, options.precision, options.batch_size,
        parse_sampling(options, uncertainty=options.uncertainty is not None), options.uncertainty,
        options.target_text, like=options.target_like,
    )  # fmt: skip
    check_output(options.output, request.inputs)
    _check_report(options.report, options.output, request.inputs)
    _check_uncertainty(request, options.report)
    model = load_package(options.model)
    if options.target_like is not None:
        request = replace(request, target_like=facts_like(options.target_like, model))
    record = translate_files(request, model, lambda translation: drive(translation, quiet=options.quiet))
    if options.report:
        write_json(options.report, record)
    print(f"{shown(options.output)}  (synthetic {record['target']}; research use only, not for diagnosis)")
    return 0


@dataclass(frozen=True)
class FileRequest:
    """One translation from files to a file.

    Attributes:
        sources: modality and file of each source.
        output: the file to write, with its record beside it.
        target: what to make; None if the model makes only one.
        reference: the source whose grid the result gets; None for the first.
        roi: label map of the region, or None.
        roi_labels: label values by region; empty for the usual ones.
        device, precision, batch_size: as in :func:`MedXlateCore.pipeline.translate`; digits count as a number.
        sampling: how samples are drawn; None for the model's own way.
        uncertainty: the file to write the samples' standard deviation to, or None.
        target_text, target_like: the target in words, or as facts, in place of ``target``.
        like: the file or folder that these facts are from.
    """

    sources: tuple[tuple[Modality, Path], ...]
    output: Path
    target: str | None = None
    reference: str | None = None
    roi: Path | None = None
    roi_labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | str = "auto"
    sampling: Sampling | None = None
    uncertainty: Path | None = None
    target_text: str | None = None
    target_like: Acquisition | None = None
    like: Path | None = None

    @property
    def inputs(self) -> list[Path]:
        """All files that are read, and that the output must not replace."""
        more = [path for path in (self.roi, self.like) if path is not None and not path.is_dir()]
        return [path for _, path in self.sources] + more


def translate_files(
    request: FileRequest, model: LoadedModel, advance: Callable[[Translation], Volume]
) -> dict[str, Any]:
    """Read, translate and write; return the run record. ``translate`` and ``batch`` both work through here.

    Args:
        request: what to do.
        model: the loaded model package.
        advance: iterates a translation to its end and returns its result, as :func:`drive`.

    Raises:
        MedXlateError: see ``MedXlateCore.pipeline.translate`` and ``MedXlateCore.io``.
    """
    from MedXlateCore.io import check_output, read_volume, write_volume
    from MedXlateCore.pipeline import translate

    sources = [read_volume(path, role) for role, path in request.sources]
    roi = read_volume(request.roi, "label") if request.roi else None
    wanted = Modality.parse(request.reference) if request.reference else sources[0].modality
    for volume in sources:
        if volume.modality is wanted:  # now that the result's grid is known: does the format hold it, the disk?
            check_output(request.output, request.inputs, geometry=volume.geometry, needed_bytes=4 * volume.array.size)
    digits = isinstance(request.batch_size, str) and request.batch_size.isascii() and request.batch_size.isdigit()
    translation = translate(
        sources, model, target=request.target, reference=request.reference, roi=roi, roi_labels=request.roi_labels,
        device=request.device, precision=request.precision,
        batch_size=int(request.batch_size) if digits else request.batch_size, sampling=request.sampling,
        target_text=request.target_text, target_like=request.target_like,
    )  # fmt: skip
    result = advance(translation)
    record = translation.record.as_dict()
    if request.uncertainty is not None and translation.uncertainty is not None:
        write_volume(translation.uncertainty, request.uncertainty, {**record, "shows": "standard deviation"})
    write_volume(result, request.output, record)
    return record


def _check_uncertainty(request: FileRequest, report: Path | None) -> None:
    """Refuse an uncertainty map that cannot be written, or that would replace another file of this translation.

    Raises:
        UsageError: ``MX-FIL-014`` (an input), ``MX-USE-032`` (the output, its record or the report), ``MX-FIL-020``.
        ResourceError: ``MX-FIL-010`` to ``MX-FIL-013``.
    """
    from MedXlateCore.io import check_output, sidecar_path
    from MedXlateCore.paths import real_path

    if request.uncertainty is None:
        return
    check_output(request.uncertainty, request.inputs)
    written = {
        real_path(path) for path in (request.output, sidecar_path(request.output), *([report] if report else []))
    }
    if written & {real_path(request.uncertainty), real_path(sidecar_path(request.uncertainty))}:
        raise _would_replace("the uncertainty map", "--uncertainty", request.uncertainty)


def _check_report(report: Path | None, output: Path, inputs: list[Path]) -> None:
    """Refuse a report that cannot be written, or that would replace an input, the output or the record beside it.

    Raises:
        UsageError: ``MX-FIL-014`` (an input), ``MX-USE-032`` (the output or its record).
        ResourceError: ``MX-FIL-010`` to ``MX-FIL-013``.
    """
    from MedXlateCore.files import check_writable, refuse_same_file
    from MedXlateCore.io import sidecar_path
    from MedXlateCore.paths import real_path

    if report is None:
        return
    refuse_same_file(report, inputs)
    if real_path(report) in {real_path(output), real_path(sidecar_path(output))}:
        raise _would_replace("the report", "--report", report)
    check_writable(report)


def _would_replace(what: str, option: str, path: Path) -> UsageError:
    from MedXlateCore.files import shown

    return UsageError(
        "MX-USE-032",
        f"{what} would replace the output or the record beside it",
        expected="a file of its own",
        where=f"{option} {shown(path)}",
        fix="choose another name; the same record lies beside the output anyway",
    )


def drive(translation: Translation, quiet: bool = False) -> Volume:
    """Iterate a translation with a progress line and warnings on stderr; return the result."""
    from MedXlateCore.errors import size_text
    from MedXlateCore.pipeline import Finished, Progress, Started

    live = not quiet and sys.stderr.isatty()
    for event in translation:
        if isinstance(event, Warned):
            print(f"warning: {event.as_text()}", file=sys.stderr)
        elif isinstance(event, Started) and not quiet:
            memory = "" if event.memory_bytes is None else f", about {size_text(event.memory_bytes)} of memory"
            print(f"{event.text}: {event.total} slices{memory}", file=sys.stderr)
        elif isinstance(event, Progress) and live:
            print(f"\r{event.done}/{event.total}", end="", file=sys.stderr, flush=True)
        elif isinstance(event, Finished) and not quiet:
            start = "\r" if live else ""
            print(f"{start}done in {event.seconds:.1f} s", file=sys.stderr)
    return translation.result
