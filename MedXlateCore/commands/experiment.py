"""``medxlate experiment``: several methods on one split under one budget, and one report."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from MedXlateCore.errors import UsageError

if TYPE_CHECKING:
    from MedXlateCore.experiment.running import Outcome

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="EXPERIMENT.toml", help="what is compared; see --template"
    )
    parser.add_argument("--data", type=Path, metavar="CSV", help="table of cases, instead of the file's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of runs and results, instead of the file's")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="TABLE.KEY=VALUE",
        help="change one setting, such as budget.steps=500; may be repeated",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one a GPU; on a CPU one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 or mps (default: auto)")
    parser.add_argument("--template", metavar="NAME", help="print an experiment file to start from, and end")
    parser.add_argument("--list-templates", action="store_true", help="list the templates, and end")


def run(options: argparse.Namespace) -> int:
    """Do all runs that are not finished and write the report.

    Returns:
        0 if every run is finished; otherwise the worst of what happened: 3 input, 4 resources, 70 a defect.

    Raises:
        MedXlateError: what concerns the experiment as a whole: the file, the table of cases, the output folder
            (``MX-FIL-015`` while another experiment works there).
    """
    from MedXlateCore.experiment.templates import list_templates, template_text

    if options.list_templates:
        print("\n".join(f"{name:<22} {text}" for name, text in list_templates().items()))
        return 0
    if options.template is not None:
        print(template_text(options.template), end="")
        return 0
    if options.file is None:
        raise UsageError(
            "MX-EXP-012",
            "no experiment file is given",
            expected="a TOML file",
            where="medxlate experiment",
            fix="write one: medxlate experiment --template medprompt-table3 > my.toml",
        )
    return _experiment(options)


def _experiment(options: argparse.Namespace) -> int:
    from MedXlateCore.experiment.cases import survey
    from MedXlateCore.experiment.config import load_experiment
    from MedXlateCore.experiment.plan import make_plan
    from MedXlateCore.experiment.results import write_results
    from MedXlateCore.experiment.running import choose_slots, do_runs, start_process
    from MedXlateCore.files import check_writable, folder_lock

    experiment = load_experiment(options.file, options.overrides, options.data, options.out)
    plan = make_plan(experiment)
    slots, warnings = choose_slots(options.device, options.jobs)
    check_writable(experiment.folder / "report.html")
    cohort = survey(experiment)
    for warning in (*cohort.warnings, *warnings):
        print(f"warning: {warning.as_text()}", file=sys.stderr)
    for skip in plan.skips:
        print(f"skipped: {skip.name}: {skip.error['code']}: {skip.error['found']}", file=sys.stderr)
    outcomes: list[Outcome] = []
    with folder_lock(experiment.folder):
        for outcome in do_runs(experiment, plan, cohort, slots, start=partial(start_process, at_once=len(slots))):
            outcomes.append(outcome)
            print(f"[{len(outcomes)}/{len(plan.runs)}] {_said(outcome)}", flush=True)
        page = write_results(experiment, cohort, plan, outcomes, warnings, _command(options))
    print(f"{page}  (synthetic images: research use only, not for diagnosis)")
    return max((int(outcome.error["exit_code"]) for outcome in outcomes if outcome.error is not None), default=0)


def _said(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{outcome.run.key}: failed, {outcome.error['code']}: {outcome.error['found']}"
    facts = outcome.results or {}
    lost = f", {len(facts['failed'])} test cases not measured" if facts.get("failed") else ""
    when = "finished earlier" if outcome.status == "earlier" else "finished"
    return f"{outcome.run.key}: {when}, {len(facts.get('cases', []))} results{lost}"


def _command(options: argparse.Namespace) -> str:
    """Return the command line in words that name no folder of this machine."""
    words = ["medxlate", "experiment", options.file.name]
    words += [word for text in options.overrides for word in ("--set", text)]
    words += ["--jobs", str(options.jobs)] if options.jobs is not None else []
    words += ["--device", options.device] if options.device != "auto" else []
    return shlex.join(words)
