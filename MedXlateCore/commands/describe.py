"""``medxlate describe``: say in words how images were acquired, or what a text says about an acquisition."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from MedXlateCore.acquisition import Acquisition
    from MedXlateCore.errors import Warned

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("image", nargs="?", type=Path, metavar="FILE|DIR", help="a NIfTI file with its sidecar, a folder")
    what.add_argument("--text", metavar="WORDS", help="say what is understood of a text, in place of an image")
    parser.add_argument("--plane", choices=("axial", "coronal", "sagittal"), help="viewing plane of the sentence")
    parser.add_argument("--short", action="store_true", help="mandatory sentences only")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print facts and sentences.

    Raises:
        InputError: ``MX-TXT-020`` (nothing is known about the image), ``MX-FIL-*`` for files.
        UsageError: ``MX-TXT-001`` to ``-006``, the text cannot be used.
    """
    from MedXlateCore.prompts.acquisition_text import parse
    from MedXlateCore.prompts.facts import known_facts

    if options.text is not None:
        parsed = parse(options.text)
        entries = [_entry("", parsed.facts, options, parsed.warnings)]
    else:
        entries = [_entry(known.name, known.facts, options) for known in known_facts(options.image)]
    if options.json:
        print(json.dumps(entries, ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(map(_as_text, entries)))
    return 0


def _entry(
    name: str, facts: Acquisition, options: argparse.Namespace, warnings: tuple[Warned, ...] = ()
) -> dict[str, Any]:
    from MedXlateCore.prompts.acquisition_text import describe

    entry: dict[str, Any] = {"image": name} if name else {}
    entry["facts"] = facts.to_dict()
    entry["text"] = describe(facts, optional="none" if options.short else "all", plane=options.plane)
    if warnings:
        entry["warnings"] = [warning.as_dict() for warning in warnings]
    return entry


def _as_text(entry: dict[str, Any]) -> str:
    from MedXlateCore.paths import shown

    lines = [shown(entry["image"])] if "image" in entry else []
    for name, value in entry["facts"].items():
        text = ", ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
        lines.append(f"  {name}: {text.lower() if isinstance(value, bool) else text}")
    lines.append(f"  {entry['text']}")
    lines += [f"  {warning['code']}: {warning['found']}; {warning['fix']}" for warning in entry.get("warnings", ())]
    return "\n".join(lines)
