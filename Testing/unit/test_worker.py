"""The resident worker: the same voxels as the command line, a model that stays, errors that arrive whole."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny_card

from MedXlateCore.errors import Cancelled, InputError, InternalError, MedXlateError, ResourceError, UsageError, Warned
from MedXlateCore.inference.events import Finished, Progress, Started
from MedXlateCore.io import read_volume
from MedXlateCore.models.sampling import Sampling
from MedXlateCore.volume import Geometry, Modality, Source, Volume
from MedXlateCore.worker import Failed, Opened, Ready, Result, WorkerClient
from MedXlateCore.worker import arrays as arrays_module
from MedXlateCore.worker.arrays import Parcel, array_header, read_parcel, remove_parcels, write_parcel
from MedXlateCore.worker.messages import describe, error_from_dict, event_from_dict, event_to_dict, rebuild

ROOT = Path(__file__).resolve().parents[2]
LONG = 120.0


def collect(client, until=(Result, Failed), timeout_s=LONG):
    """Poll until an event of these kinds has come; return all events."""
    events, deadline = [], time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        events += client.poll()
        if any(isinstance(event, until) for event in events):
            return events
        time.sleep(0.01)
    raise AssertionError(f"nothing came within {timeout_s} s: {events}")


@pytest.fixture(scope="module")
def client():
    """Return one client for all tests that do not end its worker."""
    with WorkerClient() as client:
        yield client


@pytest.fixture
def sources(patient_files):
    return [read_volume(patient_files[name], name) for name in ("T1", "T2")]


def shared_memory():
    folder = Path("/dev/shm")
    return {path.name for path in folder.glob("medxlate-*")} if folder.is_dir() else set()


def shared_by(client):
    """Return what the client has in shared memory; other tests that run meanwhile have theirs there too."""
    return {name for name in shared_memory() if name.startswith(client._scratch.name)}


# --- results -------------------------------------------------------------------------------------------------------


def test_voxels_and_record_are_those_of_the_command_line(client, sources, patient_files, tiny_package, tmp_path):
    output = tmp_path / "cli.nii.gz"
    line = ["translate", "--model", tiny_package, "--output", output, "--roi", patient_files["region"]]
    line += ["--source", f"T1={patient_files['T1']}", "--source", f"T2={patient_files['T2']}", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "MedXlateCore", *map(str, line)], cwd=ROOT, check=True, capture_output=True)
    client.open(sources, tiny_package, device="cpu")
    client.update(read_volume(patient_files["region"], "label"))
    result = collect(client)[-1]
    expected = read_volume(output, "T1ce")
    assert np.array_equal(result.volume.array, expected.array)
    assert result.volume.array.dtype == np.float32
    assert np.array_equal(result.volume.geometry.affine_ras, expected.geometry.affine_ras)
    assert result.volume.synthetic and result.volume.modality is Modality.T1CE
    facts = read_json_record(tmp_path / "cli.json")
    for key in ("inputs", "model", "prompt", "grid", "intensity", "target", "warnings", "statement"):
        assert result.record[key] == facts[key], key


def read_json_record(path):
    from MedXlateCore.files import read_json

    return read_json(path)


def test_events_come_in_order_and_progress_is_complete(client, sources, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    client.update()
    events = collect(client)
    kinds = [type(event) for event in events if not isinstance(event, (Ready, Warned, Progress))]
    assert kinds == [Opened, Started, Finished, Result]
    total = next(event.total for event in events if isinstance(event, Started))
    assert [event.done for event in events if isinstance(event, Progress)] == list(range(1, total + 1))
    assert not client.busy


def test_an_edit_of_the_region_recomputes_only_what_it_changes(client, sources, patient, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    client.update()
    before = collect(client)[-1]
    client.update(patient["region"])
    events = collect(client)
    client.update(patient["region"])
    again = collect(client)
    finished, repeated = (next(e for e in events if isinstance(e, Finished)) for events in (events, again))
    assert 0 < finished.slices_recomputed < finished.slices_recomputed + finished.slices_reused
    assert repeated.slices_recomputed == 0
    assert np.array_equal(again[-1].volume.array, events[-1].volume.array)
    assert not np.array_equal(before.volume.array, events[-1].volume.array)


def test_the_worker_and_its_model_stay_between_sessions(client, sources, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    client.update()
    first = collect(client)[-1]
    pid = client.pid
    client.forget()
    deadline = time.monotonic() + LONG
    while client.busy and time.monotonic() < deadline:
        assert client.poll() == []
        time.sleep(0.01)
    assert not client.has_session
    client.open(sources, tiny_package, device="cpu")
    client.update()
    assert np.array_equal(collect(client)[-1].volume.array, first.volume.array)
    assert client.pid == pid


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory cannot be listed here")
def test_shared_memory_is_given_back_after_every_request(client, sources, patient, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    client.update(patient["region"])
    assert shared_by(client)
    collect(client)
    assert not shared_by(client)


def test_files_carry_the_voxels_where_shared_memory_does_not(sources, tiny_package, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(arrays_module, "SharedMemory", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    with WorkerClient() as client:
        client.open(sources, tiny_package, device="cpu")
        client.update()
        assert not shared_by(client)
        events = collect(client)
        assert isinstance(events[-1], Result)
        assert not list(client._scratch.glob("medxlate-*"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # the panel's test goes the same way
def test_samples_and_their_spread_are_those_of_the_same_call_without_a_worker(drawing_package, sources):
    from MedXlateCore.models.package import load_package
    from MedXlateCore.pipeline import translate

    with WorkerClient() as client:
        client.open(sources, drawing_package, device="cpu", sampling=Sampling(samples=3, seed=5))
        client.update()
        events = collect(client)
        client.open(sources, drawing_package, device="cpu", sampling=Sampling(seed=5))
        client.update()
        single = collect(client)[-1]
    assert not shared_by(client)
    several = events[-1]
    assert [event.done for event in events if isinstance(event, Progress)] == list(range(1, 10))
    expected = translate(sources, load_package(drawing_package), device="cpu", sampling=Sampling(samples=3, seed=5))
    assert np.array_equal(several.volume.array, expected.run().array)
    assert np.array_equal(several.uncertainty.array, expected.uncertainty.array)
    assert several.uncertainty.array.max() > 0
    assert several.uncertainty.source == expected.uncertainty.source
    assert several.uncertainty.synthetic
    assert several.record["compute"]["sampling"]["asked"]["samples"] == 3
    assert single.uncertainty is None
    assert not np.array_equal(single.volume.array, several.volume.array)


def test_a_diffusion_model_tells_its_steps_and_the_spread_of_its_samples(client, sources, tmp_path):
    from MedXlateCore.config import to_mapping
    from MedXlateCore.models.package import save_package
    from MedXlateCore.models.registry import get_method

    method = get_method("aldm")
    config = method.presets["tiny"]
    multiple = method.size_multiple(config)
    percentile = {"kind": "percentile", "lower": 0.1, "upper": 99.9, "clip": True}
    card = make_tiny_card(
        name="aldm", method="aldm", config=to_mapping(config), prompts="none", directions=config.directions,
        sources=("T1", "T2"), targets=("T2", "FLAIR", "T1"), normalisers={"T1": percentile, "T2": percentile},
        grid={"orientation": "LPS", "size_multiple": [multiple] * 3},
        output={name: {"kind": "relative", "low": 0.0, "high": 1.2} for name in config.directions},
    )  # fmt: skip
    assert save_package(tmp_path / "aldm", card, method.build(config)).draws_samples
    client.open(sources[:1], tmp_path / "aldm", target="FLAIR", device="cpu", sampling=Sampling(samples=2, steps=2))
    client.update()
    events = collect(client)
    done = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert len(done) >= 4
    assert done[-1][0] == done[-1][1]
    result = events[-1]
    assert result.volume.modality is Modality.FLAIR
    assert result.uncertainty.array.max() > 0
    assert result.uncertainty.geometry.allclose(sources[0].geometry)


# --- errors --------------------------------------------------------------------------------------------------------


def test_an_error_arrives_with_its_code_and_the_session_goes_on(client, sources, patient, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    client.update()
    first = collect(client)[-1]
    bad = patient["region"].with_array(patient["region"].array + np.uint8(40))
    client.update(bad)
    error = collect(client)[-1].error
    assert isinstance(error, InputError) and error.code == "MX-ROI-013"
    client.update()
    assert np.array_equal(collect(client)[-1].volume.array, first.volume.array)


def test_inputs_that_are_refused_end_the_request_once(client, sources, tiny_package):
    client.open(sources, tiny_package, target="FLAIR", device="cpu")
    client.update()
    events = collect(client)
    assert [e.error.code for e in events if isinstance(e, Failed)] == ["MX-MOD-091"]
    assert not client.busy and not client.has_session
    with pytest.raises(UsageError, match="MX-WRK-003"):
        client.update()
    client.open(sources, tiny_package, device="cpu")
    client.update()
    events = collect(client)
    assert isinstance(events[-1], Result)
    assert not [event for event in events if isinstance(event, Failed)]


def test_a_missing_source_is_told_like_on_the_command_line(client, sources, tiny_package):
    client.open(sources[:1], tiny_package, device="cpu")
    client.update()
    assert collect(client, (Failed,))[-1].error.code == "MX-IMG-030"


def test_one_request_after_the_other(client, sources, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    with pytest.raises(UsageError, match="MX-WRK-003"):
        client.open(sources, tiny_package, device="cpu")
    collect(client, (Opened,))


def test_a_model_that_is_not_there_is_refused_before_a_worker_starts(sources):
    client = WorkerClient()
    with pytest.raises(InputError, match="MX-MOD-010"):
        client.open(sources, "no-such-model")
    assert client.pid is None


def test_an_interpreter_that_cannot_run_is_reported(sources, tiny_package, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = WorkerClient([str(tmp_path / "no-python")])
    with pytest.raises(ResourceError, match="MX-WRK-002"):
        client.open(sources, tiny_package)
    assert list(tmp_path.iterdir()) == []
    assert not client.busy


def test_an_interpreter_without_torch_says_what_to_install(sources, tiny_package, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('No module', name='torch')")
    with WorkerClient(environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as client:
        client.open(sources, tiny_package, device="cpu")
        error = collect(client, (Failed,))[-1].error
    assert error.code == "MX-RES-024"
    assert "torch" in error.found


def test_a_defect_in_the_worker_is_told_and_the_worker_lives_on(client, sources, tiny_package):
    client.open(sources, tiny_package, device="cpu")
    collect(client, (Opened,))
    client._ask(next(client._ids), {"command": "no such command"})
    error = collect(client, (Failed,))[-1].error
    assert isinstance(error, InternalError) and error.code == "MX-INT-001"
    client.open(sources, tiny_package, device="cpu")
    collect(client, (Opened,))


# --- parcels and messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "bool", ">i4"])
def test_arrays_arrive_with_type_and_memory_order(tmp_path, shared, order, dtype):
    array = np.asarray(np.arange(60).reshape(3, 4, 5) % 7, dtype=dtype, order=order)
    parcel = Parcel(f"medxlate-test-{order}{array.dtype.char}", array.nbytes, tmp_path, shared)
    try:
        write_parcel(parcel.reference, array)
        copy = read_parcel(parcel.reference, array_header(array))
    finally:
        parcel.free()
        parcel.free()
    assert np.array_equal(copy, array) and copy.dtype == array.dtype
    assert copy.strides == array.strides
    assert list(tmp_path.iterdir()) == []


def test_a_strided_view_is_passed_as_what_it_shows(tmp_path):
    array = np.arange(120, dtype=np.float32).reshape(4, 5, 6)[::2, :, ::-1]
    parcel = Parcel("medxlate-test-view", array.nbytes, tmp_path)
    parcel.put(array)
    assert np.array_equal(parcel.take(array_header(array)), array)
    parcel.free()


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="MX-WRK-004"):
        array_header(np.array([None]))


@pytest.mark.parametrize("shared", [True, False])
def test_a_parcel_that_is_gone_or_too_small_is_an_error_with_a_code(tmp_path, shared):
    parcel = Parcel("medxlate-test-small", 8, tmp_path, shared)
    array = np.zeros(5000, np.float64)
    if shared:
        with pytest.raises(ResourceError, match="MX-WRK-004"):
            write_parcel(parcel.reference, array)
    reference = parcel.reference
    parcel.free()
    with pytest.raises(ResourceError, match="MX-WRK-004"):
        read_parcel(reference, array_header(array))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory cannot be listed here")
def test_what_a_dead_client_left_is_found_by_its_token(tmp_path):
    for number in range(3):
        Parcel(f"medxlate-dead-{number}", 100, tmp_path)
    other = Parcel("medxlate-alive-0", 100, tmp_path)
    remove_parcels("medxlate-dead", 0)
    assert {"medxlate-alive-0"} == {name for name in shared_memory() if name.startswith(("medxlate-d", "medxlate-al"))}
    other.free()


def test_a_volume_is_the_same_after_the_journey():
    affine = np.array([[0.1 + 0.2, 1e-17, 0, -1 / 3], [0, 2 / 3, 0, 0], [0, 0, 1.1, 7], [0, 0, 0, 1]])
    source = Source("bad \udcff name", Path("/x/y.nii"), "a" * 64)
    note = Warned("MX-GEO-010", "a", "b", "c")
    volume = Volume(np.ones((2, 3, 4), np.int16), Geometry((2, 3, 4), affine), Modality.PD, source, True, (note,))
    import json

    twin = rebuild(json.loads(json.dumps(describe(volume))), volume.array)
    assert twin.geometry.affine_ras.tobytes() == volume.geometry.affine_ras.tobytes()
    assert (twin.modality, twin.source, twin.synthetic, twin.notes) == (volume.modality, source, True, (note,))


@pytest.mark.parametrize("event", [Started(3, "x", 5), Progress(1, 3), Warned("MX-GEO-010", "f"), Finished(1.5, 2, 1)])
def test_events_are_the_same_after_the_journey(event):
    assert event_from_dict({**event_to_dict(event), "id": 3}) == event


@pytest.mark.parametrize("several", [True, False])
def test_a_result_is_the_same_after_the_journey_with_its_uncertainty_and_without(tmp_path, several):
    import json

    grid = Geometry((2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0]))
    result = Volume(np.full(grid.shape, 5, np.float32), grid, Modality.T1CE, Source("result"), True)
    spread = Volume(np.full(grid.shape, 2, np.float32), grid, Modality.OTHER, Source("spread"), True)
    rooms = [Parcel(f"medxlate-test-room-{n}", 96, tmp_path) for n in range(2)]
    for room, volume in zip(rooms, (result, spread), strict=True):
        room.put(volume.array)
    facts = {"event": "result", "id": 3, "volume": describe(result), "record": {"target": "T1ce"}}
    facts["uncertainty"] = describe(spread) if several else None
    twin = event_from_dict(json.loads(json.dumps(facts)), rooms if several else rooms[:1])
    for room in rooms:
        room.free()
    assert (twin.volume.source, twin.record) == (result.source, {"target": "T1ce"})
    assert np.array_equal(twin.volume.array, result.array)
    assert (twin.uncertainty is None) is not several
    if several:
        assert twin.uncertainty.source == spread.source
        assert np.array_equal(twin.uncertainty.array, spread.array)


@pytest.mark.parametrize("kind", [UsageError, InputError, ResourceError, InternalError])
def test_errors_are_the_same_after_the_journey(kind):
    error = kind("MX-XYZ-001", "found", expected="expected", where="where", fix="fix")
    twin = error_from_dict(error.as_dict())
    assert type(twin) is kind and twin.as_dict() == error.as_dict()
    assert isinstance(error_from_dict(Cancelled("there").as_dict()), Cancelled)
    assert isinstance(error_from_dict({**error.as_dict(), "exit_code": 99}), MedXlateError)


def test_the_clients_side_needs_no_torch():
    code = "import sys, MedXlateCore.worker; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
