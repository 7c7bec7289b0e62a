"""What one evaluation found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from MedXlateCore.errors import Warned
from MedXlateCore.metrics.protocols import Protocol

__all__ = ["EvaluationResult", "Metrics", "intensity_map", "matched_window"]

Metrics = dict[str, float | None]
"""Figures by name; None stands for an infinite or undefined one."""


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation found.

    Attributes:
        protocol: the protocol the figures belong to.
        metrics: the protocol's figures by name; None where a figure is infinite or undefined (a warning says why).
        regions: per region its figures, ``voxels`` and ``volume_ml``; empty for protocols without regions.
        per_slice: the figures of every slice, for protocols that average slices.
        warnings: what a reader of the figures should know.
        details: scaling and mask actually used.
    """

    protocol: Protocol
    metrics: Metrics
    regions: dict[str, dict[str, float | int | None]] = field(default_factory=dict)
    per_slice: tuple[dict[str, float | int | None], ...] = ()
    warnings: tuple[Warned, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON: the protocol's name, its figures as top-level keys, then everything else."""
        return {
            "protocol": self.protocol.name,
            **self.metrics,
            "regions": self.regions,
            "per_slice": list(self.per_slice),
            "warnings": [warning.as_dict() for warning in self.warnings],
            "details": self.details,
            "protocol_definition": self.protocol.to_dict(),
            "research_use_only": True,
        }


def intensity_map(result: EvaluationResult) -> tuple[float, float]:
    """Return (factor, offset) applied to the synthetic image's intensities; (1, 0) if they were not matched."""
    matched = result.details.get("matched", {"factor": 1.0, "offset": 0.0})
    return float(matched["factor"]), float(matched["offset"])


def matched_window(window: tuple[float, float], result: EvaluationResult) -> tuple[float, float]:
    """Return the synthetic image's display window that looks like ``window`` does on the reference."""
    factor, offset = intensity_map(result)
    return (window[0] - offset) / factor, (window[1] - offset) / factor
