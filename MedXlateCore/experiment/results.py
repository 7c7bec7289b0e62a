"""The files of a finished experiment, each complete or absent: tables, report, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedXlateCore.errors import Warned
from MedXlateCore.experiment.cases import Cohort
from MedXlateCore.experiment.config import Experiment
from MedXlateCore.experiment.document import Picture, as_html, as_markdown
from MedXlateCore.experiment.panels import direction_panel
from MedXlateCore.experiment.plan import Plan
from MedXlateCore.experiment.report import Findings, make_report
from MedXlateCore.experiment.running import Outcome
from MedXlateCore.experiment.tables import collect, costs, results_csv, summarise_rows, summary_csv
from MedXlateCore.files import atomic_write, atomic_write_text

__all__ = ["write_results"]


def write_results(
    experiment: Experiment,
    cohort: Cohort,
    plan: Plan,
    outcomes: Sequence[Outcome],
    warnings: Sequence[Warned],
    command: str,
) -> Path:
    """Write ``results.csv``, ``summary.csv``, ``report.md`` and ``report.html``; return the page's path.

    Args:
        experiment, cohort, plan: what was asked for.
        outcomes: how each run ended.
        warnings: of the experiment as a whole.
        command: the command line, for the report.

    Raises:
        ResourceError: ``MX-FIL-010`` to ``-016``, a file cannot be written.
    """
    in_order = sorted(outcomes, key=lambda outcome: plan.runs.index(outcome.run))
    rows = collect(in_order)
    entries, spent = summarise_rows(rows, experiment.evaluation.test), costs(in_order)
    panels = {}
    if experiment.experiment.pictures:
        for direction in experiment.directions:
            panel = direction_panel(experiment, cohort, direction, in_order)
            if panel is not None:
                panels[str(direction)] = panel
    every = tuple(dict.fromkeys([*cohort.warnings, *warnings, *_incomplete(in_order)]))
    findings = Findings(experiment, cohort, plan, tuple(in_order), tuple(entries), tuple(spent), panels, every, command)
    document = make_report(findings)
    folder = experiment.folder
    atomic_write_text(folder / "results.csv", results_csv(rows))
    atomic_write_text(folder / "summary.csv", summary_csv(entries, spent, experiment.evaluation.resolved().name))
    for part in document.parts:
        if isinstance(part, Picture):
            with atomic_write(folder / part.file) as temporary:
                part.image.save(temporary)
    atomic_write_text(folder / "report.md", as_markdown(document))
    atomic_write_text(folder / "report.html", as_html(document))
    return folder / "report.html"


def _incomplete(outcomes: Sequence[Outcome]) -> list[Warned]:
    """Return a remark for each method of which some seeds failed: its figures are those of the others."""
    remarks = []
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.run.name, "; ".join(map(str, outcome.run.directions))), []).append(outcome)
    for (name, directions), group in groups.items():
        lost = [str(outcome.run.seed) for outcome in group if outcome.error is not None]
        if 0 < len(lost) < len(group):
            text = f"{name}, {directions}: the trainings with the seeds {', '.join(lost)} failed"
            remarks.append(Warned("MX-EXP-104", text, "", "its figures are those of the other seeds"))
    return remarks
