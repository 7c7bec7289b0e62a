"""``medxlate phantom``: make numerical heads with tumours, in all modalities, with a table of cases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from MedXlateCore.config import nearest
from MedXlateCore.errors import UsageError

if TYPE_CHECKING:
    from MedXlateCore.phantom.cohort import CaseDone
    from MedXlateCore.phantom.scans import ScanPlan
    from MedXlateCore.volume import Modality

__all__ = ["add_arguments", "parse_acquisitions", "run"]

_SETTINGS = {
    "sequence": "sequence",
    "tr": "repetition_time_ms",
    "te": "echo_time_ms",
    "ti": "inversion_time_ms",
    "flip": "flip_angle_deg",
    "field": "field_strength_t",
    "dose": "agent_dose_mmol_per_kg",
    "fatsat": "fat_suppressed",
    "noise": "noise",
    "bias": "bias_field",
}
_FIELD_STRENGTH_T = 3.0
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--cases", type=int, default=10, metavar="N", help="how many heads (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same heads (default: 0)")
    parser.add_argument("--size", type=int, nargs=3, metavar=("I", "J", "K"), help="voxels (default: 128 160 104)")
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar=("I", "J", "K"), help="voxel size in mm (default: the head fits)"
    )
    parser.add_argument("--modalities", metavar="A,B,...", help="default: T1,T1ce,T2,FLAIR,PD,CT,CBCT,PET")
    parser.add_argument(
        "--splits",
        default="0.8,0.1,0.1",
        metavar="A,B,C",
        help="train, val, test: fractions or counts (default: 0.8,0.1,0.1)",
    )
    parser.add_argument(
        "--lesion-free-fraction", type=float, default=0.15, metavar="F", help="heads without tumour (default: 0.15)"
    )
    parser.add_argument(
        "--field-strength", type=float, default=_FIELD_STRENGTH_T, metavar="T", help="1.5 or 3 (default: 3)"
    )
    parser.add_argument(
        "--acquisition", action="append", default=[], metavar="MODALITY:KEY=VALUE,...",
        help="change MR settings, such as T1:sequence=spin_echo,tr=600,te=12 or T2:fatsat=yes; keys: "
        + ", ".join(_SETTINGS) + " (ms, degrees, T, mmol/kg)",
    )  # fmt: skip
    parser.add_argument("--vary-acquisition", action="store_true", help="vary settings, noise and shading by case")
    _add_scan_arguments(parser)
    parser.add_argument("--brain-only", action="store_true", help="skull-stripped images")
    parser.add_argument("--mask", action="store_true", help="write a brain mask too, as column 'mask'")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier cohort in the folder")


def _add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scans", type=int, metavar="N",
        help="N scans of each head with varied settings, told in scans.csv, in place of fixed modalities",
    )  # fmt: skip
    parser.add_argument("--with-ct", action="store_true", help="with --scans: CT too")
    parser.add_argument(
        "--hold-out", action="append", default=[], metavar="RULE",
        help="with --scans: keep such scans for the test, such as T1+contrast+fat_suppressed+1.5T or T2+te=90..110",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Make the cohort and report each case on stderr.

    Raises:
        UsageError: ``MX-USE-187`` (list or settings not readable), ``MX-USE-190`` (an option that has no meaning with
            or without ``--scans``), otherwise see ``MedXlateCore.phantom.cohort``.
    """
    import sys

    from MedXlateCore.phantom.cohort import CohortPlan, write_cohort
    from MedXlateCore.phantom.head import MODALITIES
    from MedXlateCore.volume import Modality

    names = [name.strip() for name in options.modalities.split(",")] if options.modalities else MODALITIES
    plan = CohortPlan(
        cases=options.cases,
        seed=options.seed,
        shape=tuple(options.size) if options.size else None,
        spacing_mm=tuple(options.spacing) if options.spacing else None,
        modalities=tuple(Modality.parse(name) for name in names),
        splits=_numbers(options.splits),
        lesion_free_fraction=options.lesion_free_fraction,
        field_strength_t=options.field_strength,
        acquisitions=parse_acquisitions(options.acquisition),
        vary_acquisition=options.vary_acquisition,
        brain_only=options.brain_only,
        write_mask=options.mask,
        scans=_scan_plan(options),
    )
    for event in write_cohort(plan, options.out, overwrite=options.overwrite, jobs=options.jobs):
        print(_progress(event), file=sys.stderr, flush=True)
    print(options.out / plan.table_name)
    return 0


def _scan_plan(options: argparse.Namespace) -> ScanPlan | None:
    from MedXlateCore.phantom.hold_out import HoldOut
    from MedXlateCore.phantom.scans import ScanPlan

    with_scans = {"--with-ct": options.with_ct, "--hold-out": options.hold_out}
    without = {
        "--modalities": options.modalities,
        "--acquisition": options.acquisition,
        "--vary-acquisition": options.vary_acquisition,
        "--field-strength": options.field_strength != _FIELD_STRENGTH_T,
    }
    idle = [name for name, given in (with_scans if options.scans is None else without).items() if given]
    if idle:
        raise UsageError(
            "MX-USE-190",
            f"{', '.join(idle)} has no meaning {'without' if options.scans is None else 'with'} --scans",
            expected="fixed modalities, or --scans with varied settings",
            where="command line",
            fix="leave one of the two out",
        )
    if options.scans is None:
        return None
    return ScanPlan(options.scans, options.with_ct, tuple(HoldOut.parse(text) for text in options.hold_out))


def parse_acquisitions(texts: list[str]) -> dict[Modality, dict[str, object]]:
    """Read ``MODALITY:KEY=VALUE,...`` into changes by modality and attribute of ``MRAcquisition``.

    Raises:
        UsageError: ``MX-USE-187`` (not readable, unknown key or value), ``MX-USE-010`` (unknown modality).
    """
    from MedXlateCore.volume import Modality

    changes: dict[Modality, dict[str, object]] = {}
    for text in texts:
        name, colon, settings = text.partition(":")
        if not colon:
            raise _unreadable(text, "MODALITY:KEY=VALUE,...")
        own = changes.setdefault(Modality.parse(name), {})
        for setting in settings.split(","):
            key, _, value = setting.partition("=")
            own[_attribute(key.strip().lower(), text)] = _value(key.strip().lower(), value.strip(), text)
    return changes


def _attribute(key: str, text: str) -> str:
    if key not in _SETTINGS:
        hint = f"; did you mean '{guess}'?" if (guess := nearest(key, _SETTINGS)) else ""
        raise _unreadable(text, f"one of the keys {', '.join(_SETTINGS)}{hint}")
    return _SETTINGS[key]


def _value(key: str, value: str, text: str) -> object:
    from MedXlateCore.phantom.physics import Sequence

    try:
        if key == "sequence":
            return Sequence(value.lower())
        return _TRUTH[value.lower()] if key == "fatsat" else float(value)
    except (KeyError, ValueError):
        kinds = {"sequence": ", ".join(s.value for s in Sequence), "fatsat": "yes or no"}
        raise _unreadable(text, f"{kinds.get(key, 'a number')} after '{key}='") from None


def _unreadable(text: str, expected: str) -> UsageError:
    return UsageError(
        "MX-USE-187", f"'{text}' cannot be read", expected=expected, where="command line",
        fix="for example --acquisition T1:tr=600,te=12 or --splits 0.8,0.1,0.1",
    )  # fmt: skip


def _numbers(text: str) -> tuple[float, float, float]:
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        raise _unreadable(text, "three numbers with commas between") from None
    return a, b, c


def _progress(event: CaseDone) -> str:
    tumours = ", ".join(f"{t['kind']} {2 * t['radius_mm']:.0f} mm" for t in event.facts["lesions"]) or "no tumour"
    return f"[{event.number}/{event.total}] {event.case.name} ({event.case.split}): {tumours}"
