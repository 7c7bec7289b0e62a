"""From test results to figures over patients: one value a patient, intervals, tests against the best other method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from MedXlateCore.experiment.running import Outcome
from MedXlateCore.files import csv_text
from MedXlateCore.metrics.statistics import PairedTest, Summary, paired_test, patient_means, summarise

__all__ = [
    "HIGHER_IS_BETTER",
    "Comparison",
    "Cost",
    "Entry",
    "Row",
    "best_of",
    "collect",
    "costs",
    "holm",
    "results_csv",
    "summarise_rows",
    "summary_csv",
]

HIGHER_IS_BETTER = {"psnr", "ssim", "ms_ssim", "ssim_tumor", "ssim_non_tumor"}
RESULT_COLUMNS = ("method", "direction", "seed", "patient", "metric", "region", "value")


@dataclass(frozen=True)
class Row:
    """One figure of one patient by one training; cases of one patient are averaged."""

    method: str
    direction: str
    seed: int | None
    patient: str
    metric: str
    region: str
    value: float | None


@dataclass(frozen=True)
class Comparison:
    """A paired test against the best other method; ``p_holm`` is corrected for the methods of the same table."""

    other: str
    test: PairedTest
    p_holm: float


@dataclass(frozen=True)
class Entry:
    """One figure of one method over patients, seeds averaged within a patient first."""

    direction: str
    region: str
    metric: str
    method: str
    summary: Summary
    values: dict[str, float]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Cost:
    """What a method took: means over its trainings.

    Attributes:
        parameters: trained values of the network; 0 for a baseline.
        trainings: how many there were.
        minutes: of optimiser steps a training; None for a baseline.
        steps: optimiser steps a training; None for a baseline.
        seconds: a test case, from volumes in memory to a volume in memory; the median, as the first one is slower.
        peak_bytes: largest memory of the test's process, or of its tensors on a GPU.
    """

    method: str
    directions: str
    parameters: int
    trainings: int
    minutes: float | None
    steps: float | None
    seconds: float | None
    peak_bytes: int | None


def collect(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return every figure of every patient, in the order of the runs."""
    rows: list[Row] = []
    for outcome in outcomes:
        facts = outcome.results
        if facts is None:
            continue
        seed = None if facts["baseline"] else facts["seed"]
        for (direction, region, metric), cases in _by_figure(facts["cases"]).items():
            patients = [case["patient"] for case in cases]
            values = [case["figures"].get(region, {}).get(metric) for case in cases]
            means = patient_means(values, patients)
            for patient, value in zip(dict.fromkeys(patients), means, strict=True):
                rows.append(Row(outcome.run.name, direction, seed, patient, metric, region, value))
    return rows


def _by_figure(cases: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """Return the cases of each direction that any of them has a figure for, by direction, region and metric."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for case in cases:
        for region, figures in case["figures"].items():
            for metric in figures:
                found.setdefault((case["direction"], region, metric), []).append(case)
    return found


def summarise_rows(rows: Sequence[Row], test: Literal["wilcoxon", "sign_flip"]) -> list[Entry]:
    """Return each figure of each method over patients, tested against the best other method.

    Args:
        rows: of :func:`collect`.
        test: the paired test; only patients that both methods have a value for enter.
    """
    entries: list[Entry] = []
    for (direction, region, metric), own in _grouped(rows).items():
        table = []
        for method in dict.fromkeys(row.method for row in own):
            by_patient = [row for row in own if row.method == method]
            patients = [row.patient for row in by_patient]
            means = patient_means([row.value for row in by_patient], patients)
            values = {p: v for p, v in zip(dict.fromkeys(patients), means, strict=True) if v is not None}
            table.append(Entry(direction, region, metric, method, summarise(means), values))
        entries += _tested(table, test)
    return entries


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.direction, row.region, row.metric), []).append(row)
    return groups


def _tested(table: Sequence[Entry], test: Literal["wilcoxon", "sign_flip"]) -> list[Entry]:
    """Return the entries of one figure, each with its test against the best of the others."""
    found: list[tuple[str, PairedTest] | None] = []
    for entry in table:
        others = [other for other in table if other is not entry and other.summary.mean is not None]
        best = max(others, key=_merit, default=None)
        shared = [patient for patient in entry.values if best is not None and patient in best.values]
        if best is None or len(shared) < 2:
            found.append(None)
            continue
        pairs = [[one.values[patient] for patient in shared] for one in (entry, best)]
        found.append((best.method, paired_test(pairs[0], pairs[1], test)))
    corrected = iter(holm([one[1].p_value for one in found if one is not None]))
    return [
        replace(entry, comparison=Comparison(one[0], one[1], next(corrected)) if one else None)
        for entry, one in zip(table, found, strict=True)
    ]


def _merit(entry: Entry) -> float:
    mean = float(entry.summary.mean or 0.0)
    return mean if entry.metric in HIGHER_IS_BETTER else -mean


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by the step-down procedure of Holm (1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[int(index)]))
        corrected[int(index)] = largest
    return corrected


def best_of(entries: Sequence[Entry]) -> set[str]:
    """Return the methods with the best mean among the entries of one figure."""
    known = [entry for entry in entries if entry.summary.mean is not None]
    top = max((_merit(entry) for entry in known), default=math.nan)
    return {entry.method for entry in known if _merit(entry) == top}


def costs(outcomes: Sequence[Outcome]) -> list[Cost]:
    """Return what each method took, for each group of directions that it learned together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        if outcome.results is not None:
            directions = ", ".join(map(str, outcome.run.directions))
            groups.setdefault((outcome.run.name, directions), []).append(outcome.results)
    return [_cost(method, directions, group) for (method, directions), group in groups.items()]


def _cost(method: str, directions: str, group: Sequence[Mapping[str, Any]]) -> Cost:
    seconds = [case["seconds"] for facts in group for case in facts["cases"]]
    peaks = [facts["memory"]["peak_bytes"] for facts in group if facts["memory"]["peak_bytes"] is not None]
    trained = [facts["training"] for facts in group if not facts["baseline"]]
    return Cost(
        method=method,
        directions=directions,
        parameters=group[0]["parameters"],
        trainings=len(trained),
        minutes=float(np.mean([one["minutes"] for one in trained])) if trained else None,
        steps=float(np.mean([one["steps"] for one in trained])) if trained else None,
        seconds=float(np.median(seconds)) if seconds else None,
        peak_bytes=max(peaks, default=None),
    )


def results_csv(rows: Sequence[Row]) -> str:
    """Return ``results.csv``: one line a method, direction, seed, patient, metric and region; full precision."""
    return csv_text(RESULT_COLUMNS, ([_cell(getattr(row, column)) for column in RESULT_COLUMNS] for row in rows))


def summary_csv(entries: Sequence[Entry], spent: Sequence[Cost], protocol: str) -> str:
    """Return ``summary.csv``: one line a method, direction, region and metric, with what the method took."""
    head = (
        "direction", "region", "metric", "method", "patients", "missing", "mean", "std", "low", "high", "compared_with",
        "mean_difference", "p", "p_holm", "parameters", "trainings", "training_minutes", "training_steps",
        "seconds_per_case", "peak_memory_bytes", "protocol",
    )  # fmt: skip
    return csv_text(head, _summary_lines(entries, spent, protocol))


def _summary_lines(entries: Sequence[Entry], spent: Sequence[Cost], protocol: str) -> Iterator[list[str]]:
    for entry in entries:
        cost = next(c for c in spent if c.method == entry.method and entry.direction in c.directions.split(", "))
        summary, compared = entry.summary, entry.comparison
        test = compared.test if compared else None
        values = (
            entry.direction, entry.region, entry.metric, entry.method, summary.count, summary.missing, summary.mean,
            summary.std, summary.interval.low, summary.interval.high, compared.other if compared else None,
            test.mean_difference if test else None, test.p_value if test else None,
            compared.p_holm if compared else None, cost.parameters, cost.trainings, cost.minutes, cost.steps,
            cost.seconds, cost.peak_bytes, protocol,
        )  # fmt: skip
        yield [_cell(value) for value in values]


def _cell(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
