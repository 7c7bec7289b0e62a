"""The report of an experiment: what was done, tables, costs, pictures, published figures, and what went wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedXlateCore.config import to_mapping
from MedXlateCore.directions import Direction
from MedXlateCore.errors import Warned
from MedXlateCore.experiment.cases import Cohort
from MedXlateCore.experiment.config import BASELINES, Experiment
from MedXlateCore.experiment.document import Document, Heading, Items, Paragraph, Part, Picture, Table
from MedXlateCore.experiment.plan import Plan
from MedXlateCore.experiment.published import HEADING, PublishedRow, PublishedTable, published_table
from MedXlateCore.experiment.running import Outcome
from MedXlateCore.experiment.tables import HIGHER_IS_BETTER, Cost, Entry, best_of
from MedXlateCore.metrics.report import METRIC_WORDS, format_value
from MedXlateCore.metrics.statistics import Summary
from MedXlateCore.provenance import software_versions

__all__ = ["Findings", "make_report"]

NOTHING = "–"
REGION_WORDS = {
    "foreground": "the reference's foreground (head or body)",
    "whole image": "the whole image",
    "lesion": "the lesion",
    "healthy": "the foreground without the lesion",
}


@dataclass(frozen=True)
class Findings:
    """Everything that the report is made of.

    Attributes:
        experiment, cohort, plan: what was asked for.
        outcomes: how each run ended.
        entries: figures over patients.
        spent: what each method took.
        panels: picture and caption by direction; empty where nothing may be shown.
        warnings: of the experiment as a whole.
        command: the command line.
    """

    experiment: Experiment
    cohort: Cohort
    plan: Plan
    outcomes: tuple[Outcome, ...]
    entries: tuple[Entry, ...]
    spent: tuple[Cost, ...]
    panels: Mapping[str, tuple[Any, str]]
    warnings: tuple[Warned, ...]
    command: str


def make_report(findings: Findings) -> Document:
    """Return the report; its pictures are named ``panel-<number>.png``."""
    parts: list[Part] = [*_summary(findings), *_faults(findings)]
    for number, direction in enumerate(findings.experiment.directions):
        parts += _direction(findings, direction, number)
    parts += [*_costs(findings), *_other_published(findings), *_protocol(findings), *_warnings(findings)]
    parts += _settings(findings)
    return Document(findings.experiment.experiment.name, tuple(_without_folders(part, findings) for part in parts))


def _without_folders(part: Part, findings: Findings) -> Part:
    """Return a list without the names of folders of this machine: a report travels."""
    if not isinstance(part, Items):
        return part
    folders = (findings.experiment.folder, Path(findings.experiment.data.table).parent)
    items = list(part.items)
    for folder in sorted({f"{folder}{os.sep}" for folder in folders}, key=len, reverse=True):
        items = [item.replace(folder, "") for item in items]
    return replace(part, items=tuple(items))


# --- what was done --------------------------------------------------------------------------------------------------


def _summary(findings: Findings) -> list[Part]:
    experiment = findings.experiment
    facts = experiment.experiment
    counts = Counter(outcome.status for outcome in findings.outcomes)
    done = ", ".join(f"{count} {status}" for status, count in counts.items())
    prompt = "no prompt" if facts.prompt == "none" else "the annotated region as prompt, where a method takes one"
    items = [
        f"Methods: {', '.join(entry.label for entry in experiment.method)}; baselines: {', '.join(BASELINES)}.",
        f"Budget of every training: {experiment.budget}. Seeds: {', '.join(map(str, facts.seeds))}.",
        f"Protocol: {experiment.evaluation.resolved().name}, test cases with {prompt}. Figures of different protocols"
        " must not be compared.",
        f"Runs: {done}; {len(findings.plan.skips)} skipped.",
        f"Devices: {', '.join(_devices(findings)) or NOTHING}.",
        f"Software: {', '.join(f'{name} {version}' for name, version in software_versions().items())}.",
        f"Command: {findings.command}",
    ]
    if experiment.budget.minutes is not None:
        items.append(
            "A budget in minutes cannot be repeated bit by bit: how far a training gets depends on the machine."
        )
    return [Heading("What was done"), Items(tuple(items)), *_splits(findings)]


def _splits(findings: Findings) -> list[Part]:
    rows = []
    for direction in findings.experiment.directions:
        counts = findings.cohort.counts(direction)
        rows.append((str(direction), *(f"{cases} ({patients})" for cases, patients in counts.values())))
    head = ("direction", "training", "validation", "test")
    return [Paragraph("Cases (patients) of each split; no patient is in two:"), Table(head, tuple(rows))]


def _devices(findings: Findings) -> list[str]:
    names = [outcome.results["device"]["name"] for outcome in findings.outcomes if outcome.results]
    return sorted(set(names))


def _faults(findings: Findings) -> list[Part]:
    items = [
        f"failed: {one.run.name}, {_listed(one.run.directions)}, seed {one.run.seed}: {_error(one.error)}"
        for one in findings.outcomes
        if one.error is not None
    ]
    items += [f"skipped: {s.name}, {_listed(s.directions)}: {_error(s.error)}" for s in findings.plan.skips]
    cases: dict[str, list[str]] = {}
    for outcome in findings.outcomes:
        for case in (outcome.results or {}).get("failed", []):
            text = f"test case not measured: {case['case']}, {case['direction']}: {_error(case['error'])}"
            cases.setdefault(text, []).append(outcome.run.name)
    items += [f"{text} ({', '.join(dict.fromkeys(names))})" for text, names in cases.items()]
    return [Heading("What could not be done"), Items(tuple(items), warning=True)] if items else []


def _listed(directions: Sequence[Direction]) -> str:
    return "; ".join(map(str, directions))


def _error(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return NOTHING
    where = f" ({error['where']})" if error.get("where") else ""
    return f"{error['code']}: {error['found']}{where}"


# --- one direction --------------------------------------------------------------------------------------------------


def _direction(findings: Findings, direction: Direction, number: int) -> list[Part]:
    entries = [entry for entry in findings.entries if entry.direction == str(direction)]
    parts: list[Part] = [Heading(str(direction))]
    if not entries:
        return [*parts, Paragraph("There is no result.")]
    for region in dict.fromkeys(entry.region for entry in entries if entry.summary.count):
        own = [entry for entry in entries if entry.region == region]
        parts += [Heading(f"In {REGION_WORDS.get(region, f'the region {region}')}", 3), _table(own)]
    test = "Wilcoxon's signed-rank test" if findings.experiment.evaluation.test == "wilcoxon" else "a sign-flip test"
    parts.append(
        Paragraph(
            "Mean ± standard deviation over patients [95 % bootstrap interval of the mean]; seeds are averaged within a"
            f" patient first; * is the best mean. p: {test}, two-sided and paired by patient, against the best other"
            " method (named), corrected for the methods of the table after Holm."
        )
    )
    if str(direction) in findings.panels:
        image, caption = findings.panels[str(direction)]
        note = "Radiological convention. Error: synthetic minus reference; red is too bright, blue too dark."
        parts.append(Picture(image, f"{caption}. {note}", f"panel-{number + 1}.png"))
    return [*parts, *_published(findings, str(direction))]


def _table(entries: Sequence[Entry]) -> Table:
    metrics = list(dict.fromkeys(entry.metric for entry in entries))
    head = ["method", "patients"]
    for metric in metrics:
        better = "higher is better" if metric in HIGHER_IS_BETTER else "lower is better"
        head += [f"{metric.upper()} ({METRIC_WORDS.get(metric, metric)}; {better})", f"p ({metric.upper()})"]
    rows = []
    for method in dict.fromkeys(entry.method for entry in entries):
        own = {entry.metric: entry for entry in entries if entry.method == method}
        row = [method, str(max(entry.summary.count for entry in own.values()))]
        for metric in metrics:
            best = best_of([entry for entry in entries if entry.metric == metric])
            row += _cells(own.get(metric), method in best)
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows))


def _cells(entry: Entry | None, best: bool) -> list[str]:
    if entry is None:
        return [NOTHING, NOTHING]
    figure = _words(entry.summary, entry.metric) + (" *" if best else "")
    if entry.comparison is None:
        return [figure, NOTHING]
    return [figure, f"{entry.comparison.p_holm:.3g} ({entry.comparison.other})"]


def _words(summary: Summary, metric: str) -> str:
    """Return mean, spread and interval with the digits that suit the metric."""
    digits = 2 if metric == "psnr" or abs(summary.mean or 0.0) >= 10 else 4
    return summary.as_text(digits)


# --- published figures ------------------------------------------------------------------------------------------------


def _published(findings: Findings, direction: str) -> list[Part]:
    parts: list[Part] = []
    for name in findings.experiment.experiment.published:
        table = published_table(name)
        rows = table.for_direction(direction)
        if rows:
            parts += _published_parts(table, rows)
    return parts


def _other_published(findings: Findings) -> list[Part]:
    """Return the published figures that belong to no direction of the experiment."""
    ours = {str(direction) for direction in findings.experiment.directions}
    parts: list[Part] = []
    for name in findings.experiment.experiment.published:
        table = published_table(name)
        rows = tuple(row for row in table.row if row.direction not in ours)
        if rows:
            parts += _published_parts(table, rows)
    return [Heading("Further published figures"), *parts] if parts else []


def _published_parts(table: PublishedTable, rows: Sequence[PublishedRow]) -> list[Part]:
    lines = tuple((row.label, row.method, *row.values) for row in rows)
    return [
        Heading(HEADING, 3),
        Paragraph(f"{table.source}. {table.note}"),
        Table(("task", "method", *table.columns), lines),
    ]


# --- costs, protocol, warnings ----------------------------------------------------------------------------------------


def _costs(findings: Findings) -> list[Part]:
    head = (
        "method", "directions", "parameters", "trainings", "minutes a training", "steps a training", "seconds a case",
        "peak memory (GiB)",
    )  # fmt: skip
    rows = tuple(
        (
            cost.method, cost.directions, format_value("", cost.parameters), str(cost.trainings),
            _number(cost.minutes, 2), _number(cost.steps, 0), _number(cost.seconds, 2),
            _number(None if cost.peak_bytes is None else cost.peak_bytes / 2**30, 2),
        )
        for cost in findings.spent
    )  # fmt: skip
    text = (
        "Minutes are those of optimiser steps. Seconds a case: median of whole translations, from volumes in memory"
        " to a volume in memory. Peak memory is that of the process that tests, with its libraries; on a GPU, of the"
        " tensors there."
    )
    return [Heading("What it took"), Table(head, rows), Paragraph(text), *_ceilings(findings)]


def _ceilings(findings: Findings) -> list[Part]:
    """Return how good a result each latent model's autoencoder lets through at best."""
    items = []
    for outcome in findings.outcomes:
        known = ((outcome.results or {}).get("training") or {}).get("ceiling", {})
        found = [f"{name} {value:.4g}" for name, value in known.items() if value is not None and "lesion" not in name]
        if found:
            items.append(f"{outcome.run.name}, seed {outcome.run.seed}: {', '.join(found)}")
    text = "Ceiling of latent models: the true targets of the validation cases through the autoencoder and back."
    return [Paragraph(text), Items(tuple(items))] if items else []


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _protocol(findings: Findings) -> list[Part]:
    protocol = findings.experiment.evaluation.resolved()
    items = [
        *protocol.describe(),
        "Measured on the reference's own voxels: where a result lies on another grid, it is interpolated linearly onto"
        " the reference's, and where the protocol has a mask, only voxels inside the source's field of view count.",
        *(f"Baseline '{name}': {text}." for name, text in BASELINES.items()),
    ]
    return [Heading(f"Protocol {protocol.name}"), Items(tuple(items))]


def _warnings(findings: Findings) -> list[Part]:
    """Return the warnings of the experiment, and those of cases and trainings by code with their number."""
    found: dict[str, list[str]] = {}
    for warning in findings.warnings:
        found.setdefault(warning.code, []).append(warning.as_text())
    for outcome in findings.outcomes:
        facts = outcome.results or {}
        every = [w for case in facts.get("cases", []) for w in case["warnings"]]
        for fields in [*every, *facts.get("training", {}).get("warnings", [])]:
            found.setdefault(fields["code"], []).append(Warned(**fields).as_text())
    items = []
    for _, texts in sorted(found.items()):
        distinct = list(dict.fromkeys(texts))
        more = f" (and {len(distinct) - 1} more like it)" if len(distinct) > 1 else ""
        items.append(distinct[0] + more)
    body: Part = Items(tuple(items), warning=True) if items else Paragraph("None.")
    return [Heading("Warnings"), body]


def _settings(findings: Findings) -> list[Part]:
    rows = []
    for entry in findings.experiment.method:
        changed = {**to_mapping(entry.config), **to_mapping(entry.recipe)}
        rows.append(
            (entry.label, entry.method, entry.preset, ", ".join(f"{k} = {v}" for k, v in changed.items()) or NOTHING)
        )
    head = ("name", "method", "preset", "changed settings")
    return [Heading("Methods"), Table(head, tuple(rows), texts=True)]
