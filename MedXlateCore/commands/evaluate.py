"""``medxlate evaluate``: a synthetic volume against its reference, as a table, JSON and a page with pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedXlateCore.commands.options import add_label_option, parse_labels, split_named

if TYPE_CHECKING:
    from MedXlateCore.metrics.evaluation import EvaluationResult
    from MedXlateCore.volume import Volume

__all__ = ["add_arguments", "run"]

_PROTOCOLS = "volume3d, tlp, medprompt, hinet, synthrad2025 or brasyn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--reference", required=True, type=Path, metavar="FILE", help="the acquired image")
    parser.add_argument(
        "--synthetic", required=True, type=Path, metavar="FILE", help="the image under test, on the same grid"
    )
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="where to measure (above 0); default: the reference's foreground"
    )
    parser.add_argument("--regions", type=Path, metavar="FILE", help="label map of the lesion and its parts")
    add_label_option(parser, "--region-label", "a part of the lesion")
    parser.add_argument("--protocol", default="volume3d", metavar="NAME", help=f"{_PROTOCOLS} (default: volume3d)")
    parser.add_argument(
        "--match-intensity", action="store_true",
        help="volume3d only: first map the synthetic image linearly onto the reference's percentiles; reported under"
        " another protocol name, as it hides a global intensity error",
    )  # fmt: skip
    parser.add_argument(
        "--modality", metavar="NAME", help="what both images show, such as T1ce or CT (for units and masks)"
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="MODALITY=FILE",
        help="image it was made from, shown in the page",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures to this file")


def run(options: argparse.Namespace) -> int:
    """Evaluate, print the table and write what was asked for.

    Raises:
        MedXlateError: see ``MedXlateCore.metrics.evaluation.evaluate`` and ``MedXlateCore.io.read_volume``.
    """
    from MedXlateCore.files import check_writable, refuse_same_file, write_json
    from MedXlateCore.io import read_volume
    from MedXlateCore.metrics.evaluation import evaluate
    from MedXlateCore.metrics.protocols import get_protocol
    from MedXlateCore.metrics.report import write_evaluation_report

    protocol = get_protocol(options.protocol)
    labels = parse_labels(options.region_label, "--region-label")
    sources = [split_named(text, "--source") for text in options.source]
    inputs = [options.reference, options.synthetic, options.mask, options.regions, *(Path(p) for _, p in sources)]
    for output in filter(None, (options.json, options.html)):
        refuse_same_file(output, [path for path in inputs if path])
        check_writable(output)
    record = _run_record(options.synthetic)
    modality = options.modality or (record or {}).get("target")
    reference, synthetic = read_volume(options.reference, modality), read_volume(options.synthetic, modality)
    mask = read_volume(options.mask, "label") if options.mask else None
    regions = read_volume(options.regions, "label") if options.regions else None
    shown = [read_volume(Path(path), role) for role, path in sources] if options.html else []
    result = evaluate(
        reference, synthetic, protocol, mask=mask, regions=regions, region_labels=labels or None,
        match_intensity=options.match_intensity,
    )  # fmt: skip
    print(_table(result, synthetic))
    volumes = {"reference": reference, "synthetic": synthetic, "mask": mask, "regions": regions}
    if options.json:
        write_json(options.json, {**result.to_dict(), "files": _files(volumes)})
    if options.html:
        write_evaluation_report(
            options.html, result, reference, synthetic, shown, regions, record, mask=mask, region_labels=labels or None
        )
    return 0


def _table(result: EvaluationResult, synthetic: Volume) -> str:
    from MedXlateCore.metrics.report import RESEARCH_USE_ONLY, format_value

    names = result.protocol.metrics
    lines = [f"{synthetic.source.name or 'synthetic'}  ·  protocol {result.protocol.name}"]
    if result.regions:
        lines.append(f"{'region':<14}{'voxels':>12}{'ml':>10}" + "".join(f"{name:>10}" for name in names))
        for region, figures in result.regions.items():
            start = f"{region:<14}{figures['voxels']:>12}{format_value('volume', figures['volume_ml']):>10}"
            lines.append(start + "".join(f"{format_value(name, figures.get(name)):>10}" for name in names))
    else:
        for name in names:
            spread = result.metrics.get(f"{name}_std")
            text = f" ± {format_value(name, spread)} over slices" if spread is not None else ""
            lines.append(f"{name:<16}{format_value(name, result.metrics[name]):>12}{text}")
    lines += [f"warning: {warning.as_text()}" for warning in result.warnings]
    return "\n".join([*lines, RESEARCH_USE_ONLY])


def _files(volumes: Mapping[str, Volume | None]) -> dict[str, Any]:
    from MedXlateCore.provenance import describe_volume

    return {role: describe_volume(volume) for role, volume in volumes.items() if volume is not None}


def _run_record(path: Path) -> dict[str, Any] | None:
    """Return the record beside a volume that MedXlate wrote, if it describes the file as it is; otherwise None."""
    from MedXlateCore.io import read_record

    record = read_record(path)
    return record if record is not None and record.get("synthetic") is True else None
