"""``medxlate demo``: see it work, on a phantom patient, with a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (default: demo)")
    parser.add_argument("--model", default="starter", metavar="DIR|NAME", help="model package (default: starter)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 or mps (default: auto)")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration and say where its files are."""
    from MedXlateCore.demo import run_demo
    from MedXlateCore.files import check_writable

    check_writable(options.out / "report.html")
    last = None
    for step in run_demo(options.out, options.model, device=options.device):
        print(f"{step.text}: {step.path}" if step.path else step.text, file=sys.stderr)
        last = step.path
    print(f"Open {last} in a browser. Synthetic images: research use only, not for diagnosis.")
    return 0
