"""Acquisitions of every kind, for tests of prompts."""

from __future__ import annotations

from hypothesis import strategies as st

from MedXlateCore.acquisition import Acquisition
from MedXlateCore.prompts import glossary

_NAMES = st.text(st.characters(max_codepoint=0x24F, exclude_categories=("Cs",)), max_size=12)


def _some(*values: object, others: st.SearchStrategy[str] = _NAMES) -> st.SearchStrategy[object]:
    return st.none() | others | (st.sampled_from(values) if values else st.nothing())


def _number(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(low, high) | st.integers(int(low) + 1, int(high)).map(float)


def _codes(names: glossary.Names) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from([*names, "vendor's own", 'a "b", c. d']), max_size=3).map(tuple)


_COMMON = {
    "organ": _some(*glossary.ORGANS),
    "plane": st.sampled_from([None, "axial", "coronal", "sagittal"]),
    "contrast_agent": st.sampled_from([None, True, False]),
    "dynamic_phase": st.none() | st.integers(0, 130),
    "dynamic_seconds": _number(0, 36_000),
    "scanner_model": _some(*glossary.SCANNERS),
    "preprocessing": _codes(glossary.PREPROCESSING),
}

MR = st.builds(
    Acquisition,
    modality=st.sampled_from([None, "MR"]),
    sequence=_some(*(name for name in glossary.SEQUENCES if name != "FDG"), others=_NAMES.filter(lambda n: n != "FDG")),
    b_value_s_per_mm2=_number(0, 50_000),
    field_strength_t=_number(0.01, 30),
    coil=_some(),
    scanning_sequence=_codes(glossary.SCANNING_SEQUENCES),
    sequence_variant=_codes(glossary.SEQUENCE_VARIANTS),
    scan_options=_codes(glossary.SCAN_OPTIONS),
    flip_angle_deg=_number(0, 360),
    echo_time_ms=_number(0, 10_000),
    repetition_time_ms=_number(0, 1_000_000),
    inversion_time_ms=_number(0, 100_000),
    **_COMMON,
)

CT = st.builds(
    Acquisition,
    modality=st.sampled_from(["CT", "CBCT"]),
    tube_voltage_kv=_number(10, 400),
    tube_current_ma=_number(0, 5_000),
    exposure_time_ms=_number(0, 600_000),
    **_COMMON,
)

ANY = MR | CT
