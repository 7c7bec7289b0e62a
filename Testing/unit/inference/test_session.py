"""Sessions: an edit of the region recomputes what it can affect, and nothing tells the result from a full run's."""

from __future__ import annotations

import random

import numpy as np
import pytest
from short_of_memory import Short

from MedXlateCore.errors import Cancelled, InputError, ResourceError, UsageError
from MedXlateCore.pipeline import Finished, Progress, Started, TranslationSession, translate
from MedXlateCore.volume import Geometry, Modality, Volume


def pair(patient):
    return [patient["T1"], patient["T2"]]


def full(patient, model, roi, **options):
    return translate(pair(patient), model, roi=roi, device="cpu", **options).run().array


@pytest.fixture
def counted(tiny_model, altered):
    """Return the tiny model with a network that notes its passes."""
    return altered(Short(tiny_model.network))


@pytest.fixture
def session(patient, counted):
    return TranslationSession(pair(patient), counted, device="cpu")


def edited(region, slices, value=2, shift=0):
    """Return a region with a block painted into some slices."""
    array = region.array.copy()
    array[10 + shift : 14 + shift, 12:16, slices] = value
    return region.with_array(array)


def passes_of(session, model, roi):
    """Update, and return the number of forward passes it took."""
    model.network.passes.clear()
    session.update(roi).run()
    return len(model.network.passes)


# --- what is recomputed --------------------------------------------------------------------------------------------


def test_an_edit_recomputes_its_slices_and_gives_the_bits_of_a_full_run(session, counted, patient):
    assert passes_of(session, counted, patient["region"]) == 8
    roi = edited(patient["region"], [2, 3], value=1)
    assert passes_of(session, counted, roi) == 2
    assert session.changed_slices == 2
    assert np.array_equal(session.result.array, full(patient, counted, roi))
    assert not np.array_equal(session.result.array, full(patient, counted, patient["region"]))


def test_a_region_may_come_and_go(session, counted, patient):
    region = patient["region"]
    marked = int(region.array.any(axis=(0, 1)).sum())
    assert 0 < marked < 8
    for roi, passes in ((None, 8), (region, marked), (None, marked), (None, 0), (region, marked)):
        assert passes_of(session, counted, roi) == passes == session.changed_slices
        assert np.array_equal(session.result.array, full(patient, counted, roi))


def test_no_change_means_no_forward_pass(session, counted, patient):
    first = session.update(patient["region"]).run()
    again = edited(patient["region"], [], value=1)
    assert passes_of(session, counted, again) == 0
    assert np.array_equal(session.result.array, first.array)
    empty = patient["region"].with_array(np.zeros_like(patient["region"].array))
    session.update(None).run()
    assert passes_of(session, counted, empty) == 0  # the same as no prompt
    assert session.record.prompt["voxels_on_model_grid"] == 0


def test_an_edit_where_the_sources_show_nothing_recomputes_nothing(session, counted, patient):
    session.update(patient["region"]).run()
    occupied = [k for k in range(10) if patient["T1"].array[:, :, k].any()]
    free = [k for k in range(10) if k not in occupied]
    assert free
    roi = edited(patient["region"], free)
    assert passes_of(session, counted, roi) == 0
    assert np.array_equal(session.result.array, full(patient, counted, roi))
    assert session.record.prompt["voxels_on_model_grid"] > 0


def test_a_region_on_another_grid_counts_by_what_it_is_on_the_model_grid(session, counted, patient):
    region = patient["region"]
    session.update(region).run()
    affine = region.geometry.affine_ras.copy()
    affine[:3, 3] -= affine[:3, :3] @ [2, 2, 2]
    wider = Volume(np.pad(region.array, 2), Geometry((28, 32, 14), affine), Modality.LABEL)
    assert passes_of(session, counted, wider) == 0
    finer = Volume(
        np.repeat(region.array, 2, axis=0),
        Geometry((48, 28, 10), region.geometry.affine_ras @ np.diag([0.5, 1, 1, 1.0])),
        Modality.LABEL,
    )
    session.update(finer).run()
    assert np.array_equal(session.result.array, full(patient, counted, finer))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_random_edits_one_after_the_other_equal_full_runs(patient, tiny_model, batch_size):
    draw = random.Random(batch_size)
    session = TranslationSession(pair(patient), tiny_model, device="cpu", batch_size=batch_size)
    region, roi = patient["region"], None
    for _ in range(14):
        kind = draw.choice(["paint", "paint", "paint", "erase", "none", "start", "same"])
        if kind == "none":
            roi = None
        elif kind == "start":
            roi = region
        elif kind != "same":
            slices = draw.sample(range(10), draw.randint(1, 4))
            value = 0 if kind == "erase" else draw.choice([1, 2, 4])
            roi = edited(roi or region, slices, value, shift=draw.randint(-4, 4))
        session.update(roi).run()
        assert np.array_equal(session.result.array, full(patient, tiny_model, roi, batch_size=batch_size)), kind


# --- events and records --------------------------------------------------------------------------------------------


def test_events_and_record_say_what_was_recomputed_and_what_reused(session, patient):
    session.update(patient["region"]).run()
    assert (session.record.compute["slices_recomputed"], session.record.compute["slices_reused"]) == (8, 0)
    events = list(session.update(edited(patient["region"], [2, 3, 4], value=1)))
    assert isinstance(events[0], Started)
    assert events[0].total == 3
    assert [(e.done, e.total) for e in events if isinstance(e, Progress)] == [(1, 3), (2, 3), (3, 3)]
    assert isinstance(events[-1], Finished)
    assert (events[-1].slices_recomputed, events[-1].slices_reused) == (3, 5)
    assert (session.record.compute["slices_recomputed"], session.record.compute["slices_reused"]) == (3, 5)
    assert session.record.compute["slices"] == 8


def test_each_records_prompt_is_its_own(session, patient):
    first = session.update(patient["region"])
    first.run()
    session.update(None).run()
    assert session.record.prompt is None
    assert first.record.prompt["sha256"] == "3" * 64


def test_warnings_of_the_sources_travel_with_every_result_and_those_of_a_region_with_its_own(patient, counted):
    synthetic = patient["T1"].with_array(patient["T1"].array, synthetic=True)
    session = TranslationSession([synthetic, patient["T2"]], counted, device="cpu")
    empty = patient["region"].with_array(np.zeros_like(patient["region"].array))
    for roi, expected in ((empty, ["MX-IMG-012", "MX-ROI-015"]), (None, ["MX-IMG-012"])):
        session.update(roi).run()
        assert [warning["code"] for warning in session.record.warnings] == expected


def test_a_translation_is_a_session_of_one_update(patient, tiny_model):
    session = TranslationSession(pair(patient), tiny_model, device="cpu")
    translation = translate(pair(patient), tiny_model, device="cpu", roi=patient["region"])
    assert [type(e) for e in session.update(patient["region"])] == [type(e) for e in translation]
    ours, theirs = session.record.as_dict(), translation.record.as_dict()
    for record in (ours, theirs):
        record.pop("created_utc")
        record["compute"].pop("seconds")
    assert ours == theirs


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_before_the_first_update_there_is_nothing_to_read(session):
    for read in (lambda: session.result, lambda: session.record):
        with pytest.raises(UsageError, match="MX-RUN-001"):
            read()
    assert session.changed_slices == 0


@pytest.mark.parametrize("steps", range(5))
def test_a_cancelled_update_leaves_the_session_as_it_was(session, counted, patient, steps):
    first = session.update(patient["region"]).run()
    record = session.record
    roi = edited(patient["region"], [2, 3, 4], value=1)
    update = session.update(roi)
    for _ in range(steps):
        next(update)
    update.cancel()
    with pytest.raises(Cancelled):
        next(update)
    assert session.result is first
    assert session.record is record
    assert session.changed_slices == 8
    assert passes_of(session, counted, roi) == 3
    assert np.array_equal(session.result.array, full(patient, counted, roi))


def test_a_cancelled_first_update_leaves_a_session_that_works(session, counted, patient):
    update = session.update(patient["region"])
    for _ in range(4):
        next(update)
    update.cancel()
    with pytest.raises(Cancelled):
        next(update)
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = session.result
    assert passes_of(session, counted, None) == 8
    assert np.array_equal(session.result.array, full(patient, counted, None))


def test_an_abandoned_update_does_not_disturb_a_later_one(session, counted, patient):
    session.update(None).run()
    abandoned = session.update(edited(patient["region"], [2, 3, 4, 5], value=1))
    for _ in range(3):
        next(abandoned)
    session.update(patient["region"]).run()
    assert np.array_equal(session.result.array, full(patient, counted, patient["region"]))
    abandoned.run()  # the last to finish is what the session goes on from
    roi = edited(patient["region"], [5], value=4)
    session.update(roi).run()
    assert np.array_equal(session.result.array, full(patient, counted, roi))


def test_a_region_that_cannot_be_used_is_refused_and_the_session_goes_on(session, counted, patient):
    region = patient["region"]
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 900
    unusable = {
        "MX-ROI-013": region.with_array(region.array * 30),
        "MX-ROI-001": region.with_array(region.array * np.float32(0.5)),
        "MX-ROI-011": Volume(region.array, Geometry(region.geometry.shape, elsewhere), Modality.LABEL),
    }
    for code, roi in unusable.items():  # as the first update
        with pytest.raises(InputError, match=code):
            session.update(roi).run()
    first = session.update(region).run()
    for code, roi in unusable.items():
        with pytest.raises(InputError, match=code):
            session.update(roi).run()
        assert session.result is first
    assert passes_of(session, counted, edited(region, [4], value=1)) == 1


def test_a_model_without_prompts_refuses_a_region_and_translates_without(patient, altered):
    session = TranslationSession(pair(patient), altered(prompts="none"), device="cpu")
    with pytest.raises(UsageError, match="MX-ROI-010"):
        session.update(patient["region"]).run()
    session.update().run()
    with pytest.raises(UsageError, match="MX-ROI-010"):
        session.update(patient["region"]).run()
    assert session.changed_slices == 8


def test_sources_that_cannot_be_used_are_refused_at_every_update(patient, counted):
    session = TranslationSession([patient["T1"]], counted, device="cpu")
    for _ in range(2):
        with pytest.raises(InputError, match="MX-IMG-030"):
            session.update().run()
    assert counted.network.passes == []


def test_a_network_that_fails_in_an_update_leaves_the_last_result(session, counted, patient):
    first = session.update(patient["region"]).run()
    counted.network.error = RuntimeError("CUDA error: device lost")
    counted.network.fails_at = {len(counted.network.passes) + 2}
    with pytest.raises(ResourceError, match="MX-RES-023"):
        session.update(None).run()
    assert session.result is first
    session.update(None).run()
    assert np.array_equal(session.result.array, full(patient, counted, None))


@pytest.mark.parametrize(("option", "value", "code"), [
    ("target", "CT", "MX-MOD-091"), ("reference", "T9", "MX-USE-010"), ("batch_size", 0, "MX-USE-023"),
    ("batch_size", "many", "MX-USE-023"), ("batch_size", True, "MX-USE-023"), ("batch_size", 1.5, "MX-USE-023"),
])  # fmt: skip
def test_a_session_that_cannot_work_is_refused_at_once(patient, tiny_model, option, value, code):
    with pytest.raises(UsageError, match=code):
        TranslationSession(pair(patient), tiny_model, **{option: value})
