"""How far a wanted image lies from what a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError, Warned
from MedXlateCore.prompts.compatibility import regions_of

__all__ = ["FAR", "Nearest", "domain_distance", "domain_warnings", "nearest_domain"]

FAR = 1.0
"""A domain at this distance or further is another kind of image: at least another sequence or organ."""

_WEIGHTS = {"modality": 3.0, "sequence": 1.5, "contrast_agent": 0.75, "dynamic_phase": 0.25, "plane": 0.25}
_TIMES = {
    "echo_time_ms": 0.3, "repetition_time_ms": 0.3, "inversion_time_ms": 0.3, "flip_angle_deg": 0.2,
    "field_strength_t": 0.3, "b_value_s_per_mm2": 0.3, "tube_voltage_kv": 0.2,
}  # fmt: skip
_ORGAN, _SAME_REGION, _FAT, _SKULL, _CODES = 1.5, 0.5, 0.75, 0.5, 0.2


@dataclass(frozen=True)
class Nearest:
    """The known domain closest to a wanted image.

    Attributes:
        name: the domain.
        distance: 0 if nothing that is known of both differs; from ``FAR`` on it is another kind of image.
        differences: names of the facts that differ, the weightiest first.
    """

    name: str
    distance: float
    differences: tuple[str, ...]


def nearest_domain(facts: Acquisition, domains: Mapping[str, Acquisition]) -> Nearest:
    """Return the known domain closest to these facts; at equal distance the first one.

    Args:
        facts: what is wanted.
        domains: what the model was trained on, by name.

    Raises:
        UsageError: ``MX-TXT-008``, there are no domains.
    """
    if not domains:
        raise UsageError(
            "MX-TXT-008",
            "the model names no domains that it was trained on",
            expected="at least one domain",
            where="domains",
            fix="take a model for targets in words",
        )
    name, parts = min(
        ((name, domain_distance(facts, domain)) for name, domain in domains.items()), key=lambda d: sum(d[1].values())
    )
    differing = sorted(parts, key=lambda fact: -parts[fact])
    return Nearest(name, round(sum(parts.values()), 4), tuple(differing))


def domain_warnings(facts: Acquisition, domains: Mapping[str, Acquisition]) -> tuple[Warned, ...]:
    """Return what a user must know before such an image is made.

    ``MX-TXT-011``, an organ that no domain has; ``MX-TXT-012``, the nearest domain is another kind of image. Both name
    the nearest domain.

    Raises:
        UsageError: ``MX-TXT-008``, there are no domains.
    """
    nearest = nearest_domain(facts, domains)
    advice = f"nearest known: {nearest.name}; do not trust the result without a check"
    organs = {domain.organ for domain in domains.values() if domain.organ is not None}
    if facts.organ is not None and organs and not any(_organ(facts.organ, organ) < _ORGAN for organ in organs):
        found = f"the model never saw the organ '{facts.organ}', only {', '.join(sorted(organs))}"
        return (Warned("MX-TXT-011", found, "target text", advice),)
    if nearest.distance >= FAR:
        found = f"nothing like this was in training: it differs by {', '.join(nearest.differences)}"
        return (Warned("MX-TXT-012", found, "target text", advice),)
    return ()


def domain_distance(facts: Acquisition, domain: Acquisition) -> dict[str, float]:
    """Return by how much each fact differs, by name: only facts known of both count, and only differences above 0."""
    known, other = facts.known(), domain.known()
    parts = {name: weight for name, weight in _WEIGHTS.items() if _differ(name, known, other)}
    if facts.contrast_agent and domain.contrast_agent is None:  # unsaid mostly means without
        parts["contrast_agent"] = _WEIGHTS["contrast_agent"] / 2
    for name, weight in _TIMES.items():
        if name in known and name in other:
            ratio = abs(math.log((known[name] + 1e-3) / (other[name] + 1e-3)))
            parts[name] = weight * min(2.0, ratio)
    if facts.organ is not None and domain.organ is not None:
        parts["organ"] = _organ(facts.organ, domain.organ)
    if _is_mr(facts) and _is_mr(domain) and facts.fat_suppressed != domain.fat_suppressed:
        parts["scan_options"] = _FAT
    if ("skull removed" in facts.preprocessing) != ("skull removed" in domain.preprocessing):
        parts["preprocessing"] = _SKULL
    if _differ("scanning_sequence", known, other):
        parts["scanning_sequence"] = _CODES
    return {name: part for name, part in parts.items() if part > 1e-6}


def _is_mr(facts: Acquisition) -> bool:
    return facts.modality in (None, "MR")


def _differ(name: str, known: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return name in known and name in other and known[name] != other[name]


def _organ(one: str, other: str) -> float:
    if one == other:
        return 0.0
    return _SAME_REGION if {one, *regions_of(one)} & {other, *regions_of(other)} else _ORGAN
