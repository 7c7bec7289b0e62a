"""Sequence equations, contrast agent and fat suppression."""

from dataclasses import replace
from itertools import pairwise
from math import exp, log, radians, sin

import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.phantom.physics import (
    MRAcquisition,
    Sequence,
    acquisition_for,
    inversion_recovery,
    signal,
    spin_echo,
    spoiled_gradient_echo,
)
from MedXlateCore.phantom.tissues import TISSUES, Tissue
from MedXlateCore.volume import Modality

GREY, WHITE, CSF = TISSUES[Tissue.GREY_MATTER], TISSUES[Tissue.WHITE_MATTER], TISSUES[Tissue.CSF]
FAT, RIM, CORE, OEDEMA = (TISSUES[t] for t in (Tissue.FAT, Tissue.ENHANCING_RIM, Tissue.NECROTIC_CORE, Tissue.OEDEMA))


def test_spin_echo_equals_the_hand_value():
    # PD 0.8, one T1 of recovery, one T2 of decay
    assert spin_echo(0.8, 500.0, 100.0, tr_ms=500.0, te_ms=100.0) == pytest.approx(0.8 * (1 - exp(-1)) * exp(-1))


def test_inversion_recovery_is_null_at_t1_ln_2_for_long_tr():
    t1 = 900.0
    assert inversion_recovery(1.0, t1, 80.0, tr_ms=1e6, te_ms=10.0, ti_ms=t1 * log(2)) == pytest.approx(0.0, abs=1e-9)


def test_inversion_recovery_is_a_magnitude():
    before, after = (inversion_recovery(1.0, 1000.0, 80.0, 1e5, 10.0, ti) for ti in (100.0, 3000.0))
    assert before > 0.5
    assert after > 0.5


def test_spoiled_gradient_echo_peaks_at_the_ernst_angle():
    from math import acos, degrees

    ernst = degrees(acos(exp(-100.0 / 1000.0)))
    at = [spoiled_gradient_echo(1.0, 1000.0, 50.0, 100.0, 3.0, a) for a in (ernst - 4, ernst, ernst + 4)]
    assert at[1] > at[0]
    assert at[1] > at[2]


def test_spoiled_gradient_echo_at_90_degrees_is_saturation_recovery():
    value = spoiled_gradient_echo(1.0, 1000.0, 50.0, 300.0, 5.0, 90.0)
    assert value == pytest.approx(sin(radians(90)) * (1 - exp(-0.3)) * exp(-0.1))


@pytest.mark.parametrize("field", [1.5, 3.0])
@pytest.mark.parametrize(
    ("modality", "bright_to_dark"),
    [
        (Modality.T1, [FAT, WHITE, GREY, CORE, CSF]),
        (Modality.T2, [CSF, OEDEMA, GREY, WHITE]),
        (Modality.FLAIR, [OEDEMA, GREY, WHITE, CSF]),
        (Modality.PD, [GREY, WHITE]),
        (Modality.T1CE, [RIM, WHITE, GREY, CORE]),
    ],
)
def test_each_sequence_orders_the_tissues_as_radiologists_know_them(modality, bright_to_dark, field):
    scan = acquisition_for(modality, field)
    values = [signal(tissue, scan) for tissue in bright_to_dark]
    assert values == sorted(values, reverse=True)
    assert min(a / b for a, b in pairwise(values)) > 1.03


@pytest.mark.parametrize("field", [1.5, 3.0])
def test_the_rim_is_bright_only_with_the_agent(field):
    scan = acquisition_for(Modality.T1CE, field)
    assert signal(RIM, scan) > 1.2 * signal(WHITE, scan)
    assert signal(RIM, replace(scan, agent_dose_mmol_per_kg=0.0)) < signal(WHITE, scan)


def test_a_double_dose_enhances_more():
    scan = acquisition_for(Modality.T1CE)
    assert signal(RIM, replace(scan, agent_dose_mmol_per_kg=0.2)) > signal(RIM, scan)


def test_the_agent_leaves_normal_white_matter_nearly_unchanged():
    with_agent, without = (signal(WHITE, acquisition_for(m)) for m in (Modality.T1CE, Modality.T1))
    assert without < with_agent < 1.05 * without


def test_fat_suppression_darkens_fat_and_nothing_else():
    scan = acquisition_for(Modality.T2)
    suppressed = replace(scan, fat_suppressed=True)
    assert signal(FAT, suppressed) < 0.1 * signal(FAT, scan)
    assert signal(GREY, suppressed) == signal(GREY, scan)


def test_longer_te_raises_t2_contrast_and_longer_tr_raises_signal():
    scan = acquisition_for(Modality.T2)
    longer_te, longer_tr = replace(scan, echo_time_ms=130.0), replace(scan, repetition_time_ms=8000.0)
    assert signal(GREY, longer_te) < signal(GREY, scan) < signal(GREY, longer_tr)
    assert signal(CSF, longer_te) / signal(WHITE, longer_te) > signal(CSF, scan) / signal(WHITE, scan)


def test_ti_nulls_csf_in_flair():
    scan = acquisition_for(Modality.FLAIR)
    assert signal(CSF, scan) < 0.02 * signal(GREY, scan)
    assert signal(CSF, replace(scan, inversion_time_ms=1800.0)) > 10 * signal(CSF, scan)


def test_more_water_is_darker_in_t1_and_brighter_in_t2():
    t1, t2 = acquisition_for(Modality.T1), acquisition_for(Modality.T2)
    assert signal(WHITE, t1, 1.0) < signal(WHITE, t1, -1.0)
    assert signal(WHITE, t2, 1.0) > signal(WHITE, t2, -1.0)


def test_t1_is_longer_at_3_t():
    for tissue in (GREY, WHITE, FAT, RIM):
        assert tissue.relaxation_ms(3.0)[0] > tissue.relaxation_ms(1.5)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"repetition_time_ms": 0.0},
        {"echo_time_ms": 600.0},
        {"echo_time_ms": 0.0},
        {"flip_angle_deg": 200.0},
        {"field_strength_t": 7.0},
        {"agent_dose_mmol_per_kg": -0.1},
        {"noise": float("nan")},
        {"bias_field": 2.0},
    ],
)
def test_impossible_settings_are_refused_with_their_value(change):
    with pytest.raises(UsageError) as caught:
        MRAcquisition(**{"sequence": Sequence.SPIN_ECHO, "repetition_time_ms": 500.0, "echo_time_ms": 10.0, **change})
    assert caught.value.code == "MX-USE-181"
    assert str(next(iter(change.values()))) in caught.value.found


def test_inversion_recovery_needs_an_inversion_time():
    with pytest.raises(UsageError, match="MX-USE-181"):
        MRAcquisition(Sequence.INVERSION_RECOVERY, 9000.0, 100.0)


def test_ct_has_no_mr_settings():
    with pytest.raises(UsageError, match="MX-USE-180"):
        acquisition_for(Modality.CT)
