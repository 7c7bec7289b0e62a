"""The one path from checked volumes to a synthetic volume."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from MedXlateCore.errors import Cancelled, InputError, MedXlateError, ResourceError, UsageError, Warned
from MedXlateCore.files import write_json
from MedXlateCore.pipeline import Finished, Progress, Started, translate
from MedXlateCore.transforms.orientation import axis_codes
from MedXlateCore.volume import Geometry, Modality, Volume


class Constant(nn.Module):
    """Gives one value everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images, roi):
        return torch.full_like(images[:, :1], self.value)


class Failing(nn.Module):
    """Gives the first source, and raises at the n-th slice."""

    def __init__(self, error, at=3):
        super().__init__()
        self.error, self.left = error, at

    def forward(self, images, roi):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return images[:, :1]


def run(sources, model, **options):
    return translate(sources, model, device="cpu", **options)


def pair(patient):
    return [patient["T1"], patient["T2"]]


def codes(translation):
    return [warning.code for warning in translation.warnings]


def moved(volume, shift_mm=(0.0, 0.0, 0.0), shape=None):
    """Return a volume on another grid: shifted by some mm, or cropped."""
    affine = volume.geometry.affine_ras.copy()
    affine[:3, 3] += shift_mm
    array = volume.array if shape is None else volume.array[tuple(slice(0, n) for n in shape)]
    return Volume(array, Geometry(array.shape, affine), volume.modality, volume.source)


def oblique(geometry, degrees=12.0):
    """Return a grid turned about its own centre."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ geometry.affine_ras
    affine[:3, 3] += geometry.corners_ras().mean(axis=0) - Geometry(geometry.shape, affine).corners_ras().mean(axis=0)
    return Geometry(geometry.shape, affine)


# --- events, result, cancelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_the_result_lies_on_the_references_grid_bit_for_bit(make_patient, patient, tiny_model, turned):
    volumes = make_patient(oblique(patient["T1"].geometry)) if turned else patient
    result = run(pair(volumes), tiny_model).run()
    assert result.array.shape == volumes["T1"].array.shape
    assert np.array_equal(result.geometry.affine_ras, volumes["T1"].geometry.affine_ras)
    assert result.array.dtype == np.float32
    assert result.modality is Modality.T1CE
    assert result.synthetic
    assert "SYNTHETIC" in result.name


def test_events_come_in_order_and_progress_counts_to_the_total(patient, tiny_model):
    events = list(run(pair(patient), tiny_model, batch_size=3))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    steps = events[1:-1]
    assert all(isinstance(event, Progress) for event in steps)
    assert [event.done for event in steps] == [3, 6, 8]
    assert {event.total for event in steps} == {events[0].total} == {8}
    assert events[-1].seconds > 0
    assert "T1ce from T1, T2" in events[0].text


def test_warnings_are_events_before_the_work_starts(patient, tiny_model):
    synthetic = patient["T1"].with_array(patient["T1"].array, synthetic=True)
    events = list(run([synthetic, patient["T2"]], tiny_model))
    assert isinstance(events[0], Warned)
    assert events[0].code == "MX-IMG-012"
    assert isinstance(events[1], Started)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_cancelling_takes_effect_at_the_next_step_and_leaves_nothing(patient, altered, steps):
    network = Failing(AssertionError("computed after cancelling"), at=steps)  # Started is a step without a slice
    network.train()
    translation = run(pair(patient), altered(network))
    for _ in range(steps):
        next(translation)
    translation.cancel()
    for _ in range(2):
        with pytest.raises(Cancelled):
            next(translation)
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = translation.result
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = translation.record
    assert network.training


def test_no_result_can_be_read_before_the_end(patient, tiny_model):
    translation = run(pair(patient), tiny_model)
    for event in translation:
        if not isinstance(event, Finished):
            with pytest.raises(UsageError, match="MX-RUN-001"):
                _ = translation.result
            with pytest.raises(UsageError, match="MX-RUN-001"):
                _ = translation.record
    assert translation.result.synthetic
    assert translation.record.target == "T1ce"


def test_nothing_is_computed_before_the_first_step(patient, altered):
    translation = run([patient["T1"]], altered(Failing(AssertionError("computed"), at=1)))
    with pytest.raises(InputError, match="MX-IMG-030"):
        next(translation)


# --- which grid ----------------------------------------------------------------------------------------------------


def test_the_order_of_the_sources_does_not_matter(patient, tiny_model):
    results = [run(order, tiny_model).run().array for order in (pair(patient), pair(patient)[::-1])]
    assert np.array_equal(*results)


def test_the_reference_decides_the_grid_whatever_the_order(make_patient, patient, tiny_model):
    sources = [patient["T1"], make_patient(oblique(patient["T1"].geometry))["T2"]]
    for reference, geometry in (("T1", sources[0].geometry), (Modality.T2, sources[1].geometry)):
        results = [run(order, tiny_model, reference=reference).run() for order in (sources, sources[::-1])]
        assert all(np.array_equal(r.geometry.affine_ras, geometry.affine_ras) for r in results)
        assert np.array_equal(results[0].array, results[1].array)
    assert np.array_equal(run(sources, tiny_model).run().geometry.affine_ras, sources[0].geometry.affine_ras)
    assert np.array_equal(run(sources[::-1], tiny_model).run().geometry.affine_ras, sources[1].geometry.affine_ras)


def test_sources_are_checked_against_the_chosen_reference(patient, tiny_model):
    small = moved(patient["T2"], shape=(24, 14, 10))  # the front half: inside the T1, but it does not cover it
    assert run([patient["T1"], small], tiny_model, reference="T2").run().array.shape == (24, 14, 10)
    assert run([small, patient["T1"]], tiny_model, reference="T2").run().array.shape == (24, 14, 10)
    for order in ([patient["T1"], small], [small, patient["T1"]]):
        with pytest.raises(InputError, match="MX-GEO-030"):
            run(order, tiny_model, reference="T1").run()


def test_a_source_on_another_grid_is_brought_by_its_affine(patient, altered):
    # 2 voxels of padding on each side: another shape and origin, the same voxels in space
    padded = np.pad(patient["T2"].array, 2)
    affine = patient["T2"].geometry.affine_ras.copy()
    affine[:3, 3] -= affine[:3, :3] @ [2, 2, 2]
    wider = Volume(padded, Geometry(padded.shape, affine), Modality.T2)
    second = nn.Module()
    second.forward = lambda images, roi: images[:, 1:]
    expected = run(pair(patient), altered(second)).run().array
    assert np.array_equal(run([patient["T1"], wider], altered(second)).run().array, expected)
    assert expected.std() > 10


def test_a_reference_that_is_no_source_is_refused(patient, tiny_model):
    with pytest.raises(UsageError, match="MX-USE-022"):
        run(pair(patient), tiny_model, reference="FLAIR").run()


def test_the_result_has_the_orientation_of_the_reference_not_of_the_model(make_patient, patient, tiny_model):
    affine = patient["T1"].geometry.affine_ras @ np.array([[0, 0, 1, 0], [-1, 0, 0, 27], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    geometry = Geometry((28, 10, 24), affine)
    result = run(pair(make_patient(geometry)), tiny_model).run()
    assert axis_codes(result.geometry) == axis_codes(geometry) != "LPS"


# --- prompt --------------------------------------------------------------------------------------------------------


def test_no_region_and_an_empty_region_give_the_same_bits(patient, tiny_model):
    empty = patient["region"].with_array(np.zeros_like(patient["region"].array))
    without, with_empty = run(pair(patient), tiny_model), run(pair(patient), tiny_model, roi=empty)
    assert np.array_equal(without.run().array, with_empty.run().array)
    assert codes(without) == []
    assert codes(with_empty) == ["MX-ROI-015"]
    assert without.record.prompt is None
    assert with_empty.record.prompt["voxels_on_model_grid"] == 0


def test_a_region_is_used_exactly_as_drawn(patient, altered):
    class Echo(nn.Module):
        def forward(self, images, roi):
            return roi

    model = altered(Echo(), output={"T1ce": {"kind": "absolute", "low": -1.0, "high": 1.0}})
    translation = run(pair(patient), model, roi=patient["region"])
    result = translation.run().array
    drawn = patient["region"].array
    inside = drawn > 0
    assert np.array_equal(result[inside], np.where(drawn == 1, 1.0, 0.5)[inside].astype(np.float32))
    assert not (result[~inside] > 0).any()
    assert translation.record.prompt["voxels_on_model_grid"] == int(inside.sum())
    assert translation.record.prompt["used"] == "as drawn"


def test_a_region_changes_the_result_and_two_runs_agree_bit_for_bit(patient, tiny_model):
    results = [run(pair(patient), tiny_model, roi=patient["region"]).run().array for _ in range(2)]
    assert np.array_equal(*results)
    assert not np.array_equal(results[0], run(pair(patient), tiny_model).run().array)


def test_label_values_can_be_named(make_patient, patient, tiny_model):
    other = make_patient(labels=(30, 7))["region"]
    with pytest.raises(InputError, match="MX-ROI-013"):
        run(pair(patient), tiny_model, roi=other).run()
    translation = run(pair(patient), tiny_model, roi=other, roi_labels={"oedema": [7], "core": [30]})
    expected = run(pair(patient), tiny_model, roi=patient["region"]).run()
    assert np.array_equal(translation.run().array, expected.array)
    assert translation.record.prompt["labels"] == {"oedema": [7], "core": [30]}


def test_a_model_without_prompts_refuses_a_region(patient, altered):
    with pytest.raises(UsageError, match="MX-ROI-010"):
        run(pair(patient), altered(prompts="none"), roi=patient["region"]).run()


# --- refusals ------------------------------------------------------------------------------------------------------


def test_an_unknown_target_is_refused_at_once(patient, tiny_model, altered):
    for target, code in (("CT", "MX-MOD-091"), ("T9", "MX-USE-010")):
        with pytest.raises(UsageError, match=code):
            translate(pair(patient), tiny_model, target=target)
    two = altered(
        targets=("T1ce", "FLAIR"),
        output={name: {"kind": "absolute", "low": 0.0, "high": 1.0} for name in ("T1ce", "FLAIR")},
    )
    with pytest.raises(UsageError, match="MX-MOD-091"):  # which of the two?
        translate(pair(patient), two)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_needs_a_slice(patient, tiny_model, size):
    with pytest.raises(UsageError, match="MX-USE-023"):
        translate(pair(patient), tiny_model, batch_size=size)


def with_nan(volume, count):
    array = volume.array.copy()
    array[9:12, 12:15, 4].flat[:count] = np.nan
    return volume.with_array(array)


def spoil(patient, what):
    t1, t2 = pair(patient)
    return {
        "nothing": [],
        "missing": [t1],
        "duplicate role": [t1, t2, moved(t1)],
        "identical arrays": [t1, t2.with_array(t1.array)],
        "many NaN": [with_nan(t1, 4), t2],
        "apart": [t1, moved(t2, (500.0, 0, 0))],
        "partly apart": [t1, moved(t2, (0, 60.0, 0))],
        "constant": [t1, t2.with_array(np.full_like(t2.array, 7))],
        "too small": [moved(t1, shape=(24, 5, 5)), moved(t2, shape=(24, 5, 5))],
        "huge": [t1.with_array(t1.array * 1e15), t2],
    }[what]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("nothing", "MX-IMG-030"),
        ("missing", "MX-IMG-030"),
        ("duplicate role", "MX-IMG-031"),
        ("identical arrays", "MX-IMG-033"),
        ("many NaN", "MX-IMG-001"),
        ("apart", "MX-GEO-030"),
        ("partly apart", "MX-GEO-030"),
        ("constant", "MX-IMG-003"),
        ("too small", "MX-IMG-011"),
        ("huge", "MX-IMG-005"),
    ],
)
def test_unusable_sources_are_refused_before_computing(patient, altered, what, code):
    translation = run(spoil(patient, what), altered(Failing(AssertionError("computed"), at=1)))
    with pytest.raises(InputError, match=code) as caught:
        translation.run()
    assert caught.value.expected
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = translation.result


@pytest.mark.parametrize(
    ("value", "expected"), [(float("nan"), "MX-MOD-092"), (float("inf"), "MX-MOD-092"), (-float("inf"), "MX-MOD-092")]
)
def test_a_network_that_gives_no_numbers_gives_no_result(patient, altered, value, expected):
    translation = run(pair(patient), altered(Constant(value)))
    with pytest.raises(InputError, match=expected) as caught:
        translation.run()
    assert "8 of 8 slices" in caught.value.found
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = translation.result


def test_one_bad_slice_is_named(patient, altered):
    class Once(nn.Module):
        def forward(self, images, roi):
            self.calls = getattr(self, "calls", 0) + 1
            return images[:, :1] * (float("nan") if self.calls == 3 else 1.0)

    with pytest.raises(InputError, match="1 of 8 slices"):
        run(pair(patient), altered(Once())).run()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "MX-RES-001"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "MX-RES-001"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "MX-RES-001"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), "MX-RES-023"),
    ],
)
def test_a_lack_of_memory_or_a_lost_device_is_a_coded_error(patient, altered, error, code):
    with pytest.raises(ResourceError, match=code) as caught:
        run(pair(patient), altered(Failing(error))).run()
    assert caught.value.fix
    assert "\n" not in caught.value.found


def test_a_programming_error_is_not_dressed_up(patient, altered):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        run(pair(patient), altered(Failing(RuntimeError("shapes cannot be multiplied")))).run()
    assert not isinstance(caught.value, MedXlateError)


# --- what travels with the result ----------------------------------------------------------------------------------


def test_a_constant_result_is_warned_of(patient, altered):
    translation = run(pair(patient), altered(Constant(0.25)))
    events = list(translation)
    assert [e.code for e in events if isinstance(e, Warned)] == ["MX-MOD-093"]
    assert [w["code"] for w in translation.record.warnings] == ["MX-MOD-093"]


def test_a_synthetic_source_is_warned_of(patient, tiny_model):
    first = run(pair(patient), tiny_model).run()
    again = run([first.with_array(first.array, modality=Modality.T1), patient["T2"]], tiny_model)
    assert again.run().synthetic
    assert "MX-IMG-012" in [w["code"] for w in again.record.warnings]
    assert [v["synthetic"] for v in again.record.inputs] == [True, False]


def test_repaired_voxels_are_warned_of_and_the_caller_keeps_the_own_ones(make_patient, tiny_model):
    large = make_patient(Geometry((32, 32, 10), np.diag([-6.0, -6.0, 12.0, 1.0])))
    sources = [with_nan(large["T1"], 1), large["T2"]]
    translation = run(sources, tiny_model)
    assert np.isfinite(translation.run().array).all()
    assert codes(translation) == ["MX-IMG-002"]
    assert np.isnan(sources[0].array).sum() == 1


def test_remarks_from_reading_travel_with_the_result_once(patient, tiny_model):
    note = Warned("MX-GEO-010", "the header was repaired", "t1.nii.gz")
    sources = [v.with_array(v.array, notes=(note,)) for v in pair(patient)]
    translation = run(sources, tiny_model)
    translation.run()
    assert translation.warnings == [note]
    assert translation.record.warnings == [note.as_dict()]


def test_a_source_the_model_does_not_use_is_warned_of_and_changes_nothing(patient, tiny_model):
    flair = patient["T2"].with_array(patient["T2"].array ** 1.1, modality=Modality.FLAIR)
    translation = run([*pair(patient), flair], tiny_model)
    assert np.array_equal(translation.run().array, run(pair(patient), tiny_model).run().array)
    assert codes(translation) == ["MX-IMG-032"]


@pytest.mark.parametrize("factor", [4.0, 0.37, 1000.0])
def test_the_result_follows_the_scale_of_its_first_source(patient, tiny_model, factor):
    result = run(pair(patient), tiny_model).run().array
    louder = patient["T1"].with_array(patient["T1"].array * np.float32(factor))
    scaled = run([louder, patient["T2"]], tiny_model).run().array
    if factor == 4.0:  # a power of two rounds nowhere
        assert np.array_equal(scaled, result * 4)
    np.testing.assert_allclose(scaled, result * factor, atol=1e-4 * factor * result.max())
    louder = patient["T2"].with_array(patient["T2"].array * np.float32(factor))
    np.testing.assert_allclose(run([patient["T1"], louder], tiny_model).run().array, result, atol=1e-4 * result.max())


def test_inputs_stay_as_they_are_byte_for_byte(make_patient, tiny_model):
    volumes = make_patient()
    own = {name: volume.array.copy() for name, volume in volumes.items()}
    affines = {name: volume.geometry.affine_ras.tobytes() for name, volume in volumes.items()}
    weights = {key: value.clone() for key, value in tiny_model.network.state_dict().items()}
    run(pair(volumes), tiny_model, roi=volumes["region"]).run()
    for name, volume in volumes.items():
        assert volume.array.tobytes() == own[name].tobytes()
        assert volume.array.dtype == own[name].dtype
        assert volume.geometry.affine_ras.tobytes() == affines[name]
    assert all(torch.equal(value, weights[key]) for key, value in tiny_model.network.state_dict().items())


def test_the_run_record_is_complete_and_json(patient, tiny_model, tmp_path):
    translation = run(pair(patient)[::-1], tiny_model, reference="T1", roi=patient["region"], batch_size=2)
    translation.run()
    record = translation.record.as_dict()
    write_json(tmp_path / "record.json", record)
    read = json.loads((tmp_path / "record.json").read_text())
    assert json.loads(json.dumps(record, allow_nan=False)) == read
    assert read["synthetic"] is True
    assert "not for diagnosis" in read["statement"]
    assert (read["target"], read["model"]["name"], read["model"]["method"]) == ("T1ce", "tiny", "tlp")
    assert read["model"]["sha256"] == tiny_model.card.weights["sha256"]
    assert [(v["role"], v["sha256"]) for v in read["inputs"]] == [("T1", "1" * 64), ("T2", "2" * 64)]
    assert read["prompt"]["sha256"] == "3" * 64
    assert read["grid"]["exact"] is True
    assert set(read["intensity"]["sources"]) == {"T1", "T2"}
    high = read["intensity"]["sources"]["T1"]["high"]
    assert read["intensity"]["result"]["high"] == pytest.approx(1.2 * high)
    compute = read["compute"]
    assert (compute["device"], compute["precision"], compute["batch_size"]) == ("cpu", "fp32", 2)
    assert (compute["slices"], compute["slices_on_grid"]) == (8, 10)
    assert set(compute["seconds"]) == {"prepare", "predict", "restore"}
    assert {"medxlate", "numpy", "torch", "python"} <= set(read["software"])
    assert read["warnings"] == []
    assert read["created_utc"].endswith("+00:00")


def test_batch_size_does_not_change_what_a_slice_becomes(patient, tiny_model):
    one, three = (run(pair(patient), tiny_model, batch_size=n).run().array for n in (1, 3))
    np.testing.assert_allclose(three, one, atol=1e-4 * one.max())
