"""Figures over patients: mean, spread, bootstrap intervals, paired tests. The patient is the unit, never the slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from MedXlateCore.errors import UsageError
from MedXlateCore.metrics.protocols import Protocol, require_same_protocol
from MedXlateCore.metrics.result import EvaluationResult

__all__ = [
    "CohortSummary",
    "Interval",
    "PairedTest",
    "Summary",
    "bootstrap_interval",
    "paired_test",
    "patient_means",
    "summarise",
    "summarise_cohort",
]

RESAMPLES = 2000
_EXACT_FLIPS_UP_TO = 13
_SAMPLED_FLIPS = 10_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval; bounds are None where fewer than two values leave it undefined."""

    low: float | None
    high: float | None
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Summary:
    """One figure over patients: mean, standard deviation (n-1; None for one patient), interval of the mean.

    ``missing`` counts patients without a value, which do not enter.
    """

    mean: float | None
    std: float | None
    interval: Interval
    count: int
    missing: int

    def as_text(self, digits: int = 3) -> str:
        """Return ``mean ± std [low, high]``."""
        if self.mean is None:
            return "no value"
        text = f"{self.mean:.{digits}f}"
        if self.std is not None:
            text += f" ± {self.std:.{digits}f}"
        if self.interval.low is not None and self.interval.high is not None:
            text += f" [{self.interval.low:.{digits}f}, {self.interval.high:.{digits}f}]"
        return text


@dataclass(frozen=True)
class CohortSummary:
    """All figures of a protocol over patients: ``metrics`` by name, ``regions`` by region and name."""

    protocol: Protocol
    patients: int
    metrics: dict[str, Summary]
    regions: dict[str, dict[str, Summary]]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for JSON."""
        return {
            "protocol": self.protocol.name,
            "patients": self.patients,
            "metrics": {name: asdict(summary) for name, summary in self.metrics.items()},
            "regions": {
                region: {name: asdict(summary) for name, summary in figures.items()}
                for region, figures in self.regions.items()
            },
            "research_use_only": True,
        }


@dataclass(frozen=True)
class PairedTest:
    """A two-sided paired test that ``first - second`` is centred on zero; ``p_value`` is 1 for equal pairs."""

    method: Literal["sign_flip", "wilcoxon"]
    mean_difference: float
    p_value: float
    count: int


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of the mean (Efron 1979), patients drawn with replacement.

    Args:
        values: one value a patient.
        level: coverage aimed at, between 0 and 1.
        resamples: number of resampled cohorts.
        seed: the same seed gives the same interval.
    """
    data = _finite(values)
    if data.size < 2:
        return Interval(None, None, level, resamples, seed)
    drawn = np.random.default_rng(seed).integers(0, data.size, size=(resamples, data.size))
    low, high = np.quantile(data[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, resamples, seed)


def summarise(values: Sequence[float | None], level: float = 0.95, seed: int = 0) -> Summary:
    """Return mean, spread and bootstrap interval of one figure over patients; None and NaN count as missing."""
    data = _finite(values)
    return Summary(
        mean=float(data.mean()) if data.size else None,
        std=float(data.std(ddof=1)) if data.size > 1 else None,
        interval=bootstrap_interval(data.tolist(), level, seed=seed),
        count=int(data.size),
        missing=len(values) - int(data.size),
    )


def patient_means(values: Sequence[float | None], patients: Sequence[str]) -> list[float | None]:
    """Return the mean over each patient's cases, patients in order of appearance; None where none has a value.

    Args:
        values: one value a case; None and NaN count as missing.
        patients: the patient of each case.
    """
    cases: dict[str, list[float]] = {patient: [] for patient in patients}
    for patient, value in zip(patients, values, strict=True):
        if value is not None and math.isfinite(value):
            cases[patient].append(value)
    return [float(np.mean(own)) if own else None for own in cases.values()]


def summarise_cohort(
    results: Sequence[EvaluationResult], patients: Sequence[str] | None = None, seed: int = 0
) -> CohortSummary:
    """Return every figure over patients.

    Args:
        results: one result a case, all of one protocol.
        patients: the patient of each case; cases of one patient are averaged first. Default: one patient a case.
        seed: of the bootstrap.

    Raises:
        UsageError: ``MX-MET-002`` (several protocols), ``MX-MET-006`` (numbers of cases and patients differ).
    """
    protocol = require_same_protocol(results)
    owners = list(patients) if patients is not None else [str(index) for index in range(len(results))]
    _require_equal_length(len(results), len(owners), "results", "patients")
    metric_rows = [result.metrics for result in results]
    names = list(dict.fromkeys(region for result in results for region in result.regions))
    return CohortSummary(
        protocol=protocol,
        patients=len(set(owners)),
        metrics=_summarise_rows(metric_rows, list(results[0].metrics), owners, seed),
        regions={
            name: _summarise_rows([r.regions.get(name, {}) for r in results], list(protocol.metrics), owners, seed)
            for name in names
        },
    )


def paired_test(
    first: Sequence[float],
    second: Sequence[float],
    method: Literal["sign_flip", "wilcoxon"] = "wilcoxon",
    seed: int = 0,
) -> PairedTest:
    """Test whether two methods differ on the same patients, two-sided.

    ``wilcoxon`` is the signed-rank test; ``sign_flip`` asks how often the mean difference is at least as large when
    signs are flipped: over all flips for up to 13 patients, else over 10 000 seeded ones.

    Raises:
        UsageError: ``MX-MET-006``, the two have not one value a patient each, or fewer than two patients.
    """
    _require_equal_length(len(first), len(second), "values of the first method", "values of the second method")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if differences.size < 2 or not np.isfinite(differences).all():
        raise UsageError(
            "MX-MET-006",
            f"there are {differences.size} pairs to test, {np.isfinite(differences).sum()} of them finite",
            expected="at least two patients, each with a finite value under both methods",
            fix="leave out patients without a value, for both methods",
        )
    mean = float(differences.mean())
    if not differences.any():
        return PairedTest(method, mean, 1.0, int(differences.size))
    if method == "wilcoxon":
        p_value = float(stats.wilcoxon(differences).pvalue)
    else:
        p_value = _sign_flip_p_value(differences, seed)
    return PairedTest(method, mean, p_value, int(differences.size))


def _sign_flip_p_value(differences: NDArray[np.float64], seed: int) -> float:
    count = differences.size
    observed = abs(differences.mean())
    if count <= _EXACT_FLIPS_UP_TO:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, size=(_SAMPLED_FLIPS, count))
        signs = np.vstack([np.ones(count, dtype=np.int64), 1 - 2 * drawn])  # the observed signs are one of the flips
    means = np.abs(signs @ differences) / count
    return float(np.mean(means >= observed * (1 - 1e-12)))  # rounding must not exclude the observed flip itself


def _summarise_rows(
    rows: Sequence[Mapping[str, float | int | None]], names: Sequence[str], owners: Sequence[str], seed: int
) -> dict[str, Summary]:
    return {name: summarise(patient_means([row.get(name) for row in rows], owners), seed=seed) for name in names}


def _finite(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([value for value in values if value is not None and math.isfinite(value)], dtype=np.float64)


def _require_equal_length(first: int, second: int, first_name: str, second_name: str) -> None:
    if first != second:
        raise UsageError(
            "MX-MET-006",
            f"there are {first} {first_name} and {second} {second_name}",
            expected="one of each a case, in one order",
            fix="give both for the same cases",
        )
