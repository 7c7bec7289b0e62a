"""Scans of one head with varied settings, and the facts that tell about them: data for models guided by words.

Ranges of settings are those of clinical protocols for the brain (Bernstein, King and Zhou, Handbook of MRI Pulse
Sequences, 2004, ch. 14 to 16). The inversion time of FLAIR lies within 4 percent of the one that nulls CSF.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.errors import UsageError
from MedXlateCore.files import csv_text
from MedXlateCore.phantom import render
from MedXlateCore.phantom.fields import generator
from MedXlateCore.phantom.head import Subject
from MedXlateCore.phantom.hold_out import HoldOut
from MedXlateCore.phantom.physics import FIELD_STRENGTHS_T, MRAcquisition, vary_quality
from MedXlateCore.phantom.physics import Sequence as PulseSequence
from MedXlateCore.phantom.tissues import TISSUES, Tissue
from MedXlateCore.volume import Modality, Source, Volume

__all__ = ["CTAcquisition", "Scan", "ScanPlan", "render_scan", "scan_table"]

_MOST_SCANS = 100
_MOST_DRAWS_OUTSIDE, _MOST_DRAWS_INSIDE = 300, 2500  # what is rarer than 1 in 500 counts as never
_FAT_SUPPRESSED, _WITH_AGENT = 0.35, 0.45
_DOSE_MMOL_PER_KG = 0.1
_USUAL_MAS, _USUAL_KV = 150.0, 120.0


@dataclass(frozen=True)
class CTAcquisition:
    """How one CT image is taken; the phantom's CT shows tube settings by its noise only.

    Attributes:
        tube_voltage_kv: peak voltage.
        tube_current_ma: current.
        exposure_time_ms: of one turn.
    """

    tube_voltage_kv: float = 120.0
    tube_current_ma: float = 200.0
    exposure_time_ms: float = 750.0

    @property
    def noise_hu(self) -> float:
        """Standard deviation in water, HU: falls with the root of the charge, rises as the voltage falls."""
        charge = self.tube_current_ma * self.exposure_time_ms / 1000.0
        return 3.0 * math.sqrt(_USUAL_MAS / charge) * (_USUAL_KV / self.tube_voltage_kv) ** 1.3


@dataclass(frozen=True)
class Scan:
    """One scan to make.

    Attributes:
        kind: name of the protocol, such as ``T1 spin echo``.
        settings: what is simulated.
        facts: what is told; without a plane, which is chosen when slices are cut.
        held_out: text of the rule that keeps such scans out of training, or empty.
    """

    kind: str
    settings: MRAcquisition | CTAcquisition
    facts: Acquisition
    held_out: str = ""

    @property
    def modality(self) -> Modality:
        """What the image shows."""
        if isinstance(self.settings, CTAcquisition):
            return Modality.CT
        agent_in_t1 = self.facts.sequence == "T1" and self.facts.contrast_agent
        return Modality.T1CE if agent_in_t1 else Modality(str(self.facts.sequence))

    def to_dict(self) -> dict[str, Any]:
        """Return facts and settings for JSON."""
        settings = self.settings
        told = settings.to_dict() if isinstance(settings, MRAcquisition) else asdict(settings)
        return {"kind": self.kind, "facts": self.facts.to_dict(), "held_out": self.held_out, "settings": told}


@dataclass(frozen=True)
class ScanPlan:
    """How many scans of each head, and which are kept out of training.

    Attributes:
        scans: of each head; the protocols take turns, in random order.
        with_ct: True to make CT one of the protocols.
        trained_kinds: names of the protocols of which the rules leave something for training.
        hold_out: rules; scans that one of them matches occur in the test split only, where they are a quarter of each
            head's scans (at least one). The rules take turns.

    Raises:
        UsageError: ``MX-USE-191`` (number of scans), ``MX-USE-193`` (a rule that no scan, or every scan, matches).
    """

    scans: int
    with_ct: bool = False
    hold_out: tuple[HoldOut, ...] = ()
    trained_kinds: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.scans <= _MOST_SCANS:
            raise UsageError(
                "MX-USE-191",
                f"{self.scans} scans of each head cannot be made",
                expected=f"1 to {_MOST_SCANS}",
                where="number of scans",
                fix="correct the number",
            )
        rng = np.random.default_rng(0)
        object.__setattr__(self, "trained_kinds", tuple(kind for kind in self.kinds if self._outside(kind, rng)))
        if not self.trained_kinds:
            raise _no_scan("every scan that could be made matches a rule", self.hold_out)
        for rule in self.hold_out:
            self._inside(rule, rng)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the protocols."""
        return tuple(kind for kind in _PROTOCOLS if self.with_ct or kind != "CT")

    def draw(self, seed: int, split: str, number: int) -> list[Scan]:
        """Return the scans of one head.

        Args:
            seed: of the head.
            split: ``train``, ``val`` or ``test``.
            number: of the case in its cohort; the rules take turns by it.
        """
        rng = generator(seed, "scans")
        held = max(1, self.scans // 4) if self.hold_out and split == "test" else 0
        rules = [self.hold_out[(number + n) % len(self.hold_out)] for n in range(held)]
        scans = [self._inside(rule, rng) for rule in rules]
        while len(scans) < self.scans:
            kinds = [self.trained_kinds[n] for n in rng.permutation(len(self.trained_kinds))]
            turn = [scan for kind in kinds if (scan := self._outside(kind, rng))]
            scans += turn[: self.scans - len(scans)]
        return scans

    def _outside(self, kind: str, rng: np.random.Generator) -> Scan | None:
        """Draw a scan that no rule matches; None if there is none of this kind."""
        for _ in range(_MOST_DRAWS_OUTSIDE if self.hold_out else 1):
            scan = _PROTOCOLS[kind](rng)
            if not any(rule.matches(scan.facts) for rule in self.hold_out):
                return scan
        return None

    def _inside(self, rule: HoldOut, rng: np.random.Generator) -> Scan:
        kinds = self.kinds
        for _ in range(_MOST_DRAWS_INSIDE):
            scan = _PROTOCOLS[kinds[int(rng.integers(len(kinds)))]](rng)
            if rule.matches(scan.facts):
                return Scan(scan.kind, scan.settings, scan.facts, rule.text)
        raise _no_scan("no scan that could be made matches the rule", (rule,))


def _no_scan(found: str, rules: Sequence[HoldOut]) -> UsageError:
    return UsageError(
        "MX-USE-193",
        found,
        expected="rules that leave scans for training and scans for the test",
        where=f"hold-out {' and '.join(repr(rule.text) for rule in rules)}",
        fix="the protocols are " + ", ".join(_PROTOCOLS) + "; agents occur in T1 and FLAIR",
    )


# --- protocols -----------------------------------------------------------------------------------------------------


def _between(rng: np.random.Generator, low: float, high: float, digits: int = 0) -> float:
    """Draw a number, even on the logarithm's scale, rounded so that sentences tell it exactly."""
    return round(float(np.exp(rng.uniform(math.log(low), math.log(high)))), digits)


def _t1_spin_echo(rng: np.random.Generator) -> Scan:
    times = {"repetition_time_ms": _between(rng, 380, 800), "echo_time_ms": _between(rng, 8, 20, 1)}
    return _mr("T1 spin echo", "T1", PulseSequence.SPIN_ECHO, times, _WITH_AGENT, rng)


def _t1_gradient_echo(rng: np.random.Generator) -> Scan:
    if rng.random() < 0.5:  # in two dimensions: long TR, large angle
        times = {"repetition_time_ms": _between(rng, 150, 320), "flip_angle_deg": _between(rng, 55, 85)}
    else:
        times = {"repetition_time_ms": _between(rng, 7, 14, 1), "flip_angle_deg": _between(rng, 12, 28)}
    times["echo_time_ms"] = _between(rng, 1.8, 5, 1)
    return _mr("T1 gradient echo", "T1", PulseSequence.SPOILED_GRADIENT_ECHO, times, _WITH_AGENT, rng)


def _t2(rng: np.random.Generator) -> Scan:
    times = {"repetition_time_ms": _between(rng, 2800, 6500), "echo_time_ms": _between(rng, 70, 130)}
    return _mr("T2", "T2", PulseSequence.SPIN_ECHO, times, 0.0, rng)


def _pd(rng: np.random.Generator) -> Scan:
    times = {"repetition_time_ms": _between(rng, 2300, 5000), "echo_time_ms": _between(rng, 9, 30, 1)}
    return _mr("PD", "PD", PulseSequence.SPIN_ECHO, times, 0.0, rng)


def _flair(rng: np.random.Generator) -> Scan:
    repetition, field = _between(rng, 7000, 11_000), float(rng.choice(FIELD_STRENGTHS_T))
    csf, _ = TISSUES[Tissue.CSF].relaxation_ms(field)
    null = csf * math.log(2.0 / (1.0 + math.exp(-repetition / csf)))
    times = {
        "repetition_time_ms": repetition,
        "echo_time_ms": _between(rng, 85, 145),
        "inversion_time_ms": round(null * float(rng.uniform(0.96, 1.04))),
        "field_strength_t": field,
    }
    return _mr("FLAIR", "FLAIR", PulseSequence.INVERSION_RECOVERY, times, _WITH_AGENT / 3, rng)


def _ct(rng: np.random.Generator) -> Scan:
    settings = CTAcquisition(
        float(rng.choice((80.0, 100.0, 120.0, 140.0))), _between(rng, 100, 400), _between(rng, 500, 1000)
    )
    told: dict[str, Any] = asdict(settings)
    return Scan("CT", settings, Acquisition(modality="CT", organ="brain", contrast_agent=False, **told))


_PROTOCOLS: Mapping[str, Callable[[np.random.Generator], Scan]] = {
    "T1 spin echo": _t1_spin_echo,
    "T1 gradient echo": _t1_gradient_echo,
    "T2": _t2,
    "PD": _pd,
    "FLAIR": _flair,
    "CT": _ct,
}


def _mr(
    kind: str,
    name: str,
    sequence: PulseSequence,
    times: Mapping[str, float],
    with_agent: float,
    rng: np.random.Generator,
) -> Scan:
    """Draw what all MR protocols share: field strength, agent, fat suppression, noise and shading; tell the facts."""
    drawn = {"field_strength_t": float(rng.choice(FIELD_STRENGTHS_T)), **times}
    agent, suppressed = bool(rng.random() < with_agent), bool(rng.random() < _FAT_SUPPRESSED)
    dose = _DOSE_MMOL_PER_KG if agent else 0.0
    settings = MRAcquisition(sequence, agent_dose_mmol_per_kg=dose, fat_suppressed=suppressed, **drawn)
    codes = {
        PulseSequence.SPIN_ECHO: (("SE",), ()),
        PulseSequence.INVERSION_RECOVERY: (("SE", "IR"), ()),
        PulseSequence.SPOILED_GRADIENT_ECHO: (("GR",), ("SP",)),
    }[sequence]
    facts = Acquisition(
        modality="MR",
        sequence=name,
        organ="brain",
        contrast_agent=agent,
        field_strength_t=settings.field_strength_t,
        scanning_sequence=codes[0],
        sequence_variant=codes[1],
        scan_options=("FS",) if suppressed else (),
        flip_angle_deg=settings.flip_angle_deg,
        echo_time_ms=float(settings.echo_time_ms),
        repetition_time_ms=float(settings.repetition_time_ms),
        inversion_time_ms=float(settings.inversion_time_ms) or None,
    )
    return Scan(kind, vary_quality(settings, rng), facts)


# --- images --------------------------------------------------------------------------------------------------------


def render_scan(subject: Subject, scan: Scan, number: int, mask: np.ndarray | None = None) -> Volume:
    """Return the image of one scan, float32: MR in arbitrary units, CT in HU.

    Args:
        subject: the head.
        scan: how it is taken.
        number: of the scan; scans with different numbers have different noise and shading.
        mask: bool ``[I, J, K]``; outside it the image is set to the value of air (skull stripping).
    """
    rng = generator(subject.seed, "scan", number)
    head = (subject.layers, subject.properties, subject.grain)
    if isinstance(scan.settings, CTAcquisition):
        array = render.ct(*head, rng, noise_hu=scan.settings.noise_hu)
    else:
        array = render.mr_image(*head, subject.grid, scan.settings, rng)
    if mask is not None:
        array = np.where(mask, array, np.float32(scan.modality.air_value))
    source = Source(name=f"phantom {subject.seed} scan {number}")
    return Volume(array.astype(np.float32, copy=False), subject.geometry, scan.modality, source)


def scan_table(cases: Iterable[tuple[str, str, Mapping[str, str], Iterable[Mapping[str, Any]]]]) -> str:
    """Return the table of scans as CSV, one row a scan.

    Args:
        cases: name, split, label maps by column (the same ones for all cases), and scans: ``image`` and what
            ``Scan.to_dict`` returns.
    """
    columns: Iterable[str] = ()
    rows = []
    for case, split, labels, scans in cases:
        columns = labels
        for scan in scans:
            told = json.dumps(scan["facts"])
            rows.append([case, case, split, scan["image"], *labels.values(), told, scan["held_out"]])
    return csv_text(["case", "patient", "split", "image", *columns, "facts", "held_out"], rows)
