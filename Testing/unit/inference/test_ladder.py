"""Where memory runs out: smaller batches, bf16 where the card allows it, the CPU; every step recorded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from short_of_memory import Short, pretended_gpu

from MedXlateCore.devices import CPU, Device
from MedXlateCore.errors import ResourceError, UsageError, Warned
from MedXlateCore.inference import ladder, session
from MedXlateCore.inference.ladder import Settings
from MedXlateCore.pipeline import Progress, TranslationSession, translate

GIB = 2**30


def pair(patient):
    return [patient["T1"], patient["T2"]]


@pytest.fixture
def gpu(monkeypatch):
    """Let every run find a GPU, which is the CPU in disguise."""
    monkeypatch.setattr(session, "choose_device", pretended_gpu)
    monkeypatch.setattr(ladder, "available_memory", lambda device: None)


@pytest.fixture
def short(tiny_model, altered):
    """Return a function that makes the tiny model short of memory."""

    def make(card=None, **how):
        return altered(Short(tiny_model.network, **how), **(card or {}))

    return make


@pytest.fixture
def on_the_cpu(patient, tiny_model):
    """Return a function that gives the result of a run on the CPU that is short of nothing."""

    def run(roi=None, **options):
        device = Device(CPU, options.pop("precision", "fp32"), "")
        translation = translate(pair(patient), tiny_model, roi=roi, device="cpu", precision=device.precision, **options)
        return translation.run().array

    return run


def steps_of(translation):
    return [(rung["before"], rung["after"]) for rung in translation.record.compute["ladder"]]


# --- five stages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["weights", "first batch", "middle batch", "last batch", "update"])
def test_a_lack_of_memory_at_any_stage_ends_in_the_result_of_the_smaller_settings(
    gpu, patient, short, on_the_cpu, stage
):
    at = {"weights": (), "first batch": {1}, "middle batch": {2}, "last batch": {4}, "update": {5}}[stage]
    model = short(fails_at=at, moves_fail=int(stage == "weights"))
    run = TranslationSession(pair(patient), model, batch_size=2)
    if stage == "update":
        run.update(None).run()
        assert run.record.compute["ladder"] == []
    translation = run.update(patient["region"])
    events = list(translation)
    warned = [event for event in events if isinstance(event, Warned)]
    assert [warning.code for warning in warned] == ["MX-RES-025"]
    assert "CUDA out of memory" in warned[0].found
    assert "batch size 1" in warned[0].fix
    assert [w["code"] for w in translation.record.warnings] == ["MX-RES-025"]
    assert len(translation.record.compute["ladder"]) == 1
    assert translation.record.compute["batch_size"] == 1
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done[-8:] == [1, 2, 3, 4, 5, 6, 7, 8]  # all slices again, with the smaller settings
    result = translation.result.array
    assert np.array_equal(result, on_the_cpu(patient["region"], batch_size=1))
    full = on_the_cpu(patient["region"], batch_size=2)
    assert np.abs(result - full).max() <= 1e-3 * np.ptp(full)


def test_the_steps_are_halves_then_bf16_then_the_cpu_and_then_nothing(gpu, patient, short, on_the_cpu):
    allowed = {"bf16_deviation": 0.0005}
    expected = ["batch size 4", "batch size 2", "batch size 1", "in bf16, batch size 1", "in fp32, batch size 1"]
    for failures in range(5):
        model = short(allowed, fails_at=range(1, failures + 1))
        translation = translate(pair(patient), model, batch_size=4)
        translation.run()
        steps = steps_of(translation)
        assert len(steps) == failures
        assert all(after.endswith(end) for (_, after), end in zip(steps, expected[1:], strict=False))
        compute = translation.record.compute
        same = on_the_cpu(batch_size=compute["batch_size"], precision=compute["precision"])
        assert np.array_equal(translation.result.array, same)
    translation = translate(pair(patient), short(allowed, fails_at=range(1, 6)), batch_size=4)
    with pytest.raises(ResourceError, match="MX-RES-001") as caught:
        translation.run()
    assert caught.value.fix
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = translation.result


@pytest.mark.parametrize("deviation", [None, 0.0011])
def test_bf16_is_passed_over_where_the_card_does_not_allow_it(gpu, patient, short, deviation):
    translation = translate(pair(patient), short({"bf16_deviation": deviation}, fails_at={1}), batch_size=1)
    translation.run()
    assert len(steps_of(translation)) == 1
    assert translation.record.compute["precision"] == "fp32"
    assert translation.record.compute["device_name"] != "pretended"  # the CPU in earnest


def test_weights_that_do_not_fit_leave_only_the_cpu(gpu, patient, short):
    translation = translate(pair(patient), short({"bf16_deviation": 0.0}, moves_fail=1), batch_size=8)
    translation.run()
    assert len(steps_of(translation)) == 1
    compute = translation.record.compute
    assert (compute["precision"], compute["batch_size"], compute["device"]) == ("fp32", 1, "cpu")


def test_on_the_cpu_at_one_slice_nothing_is_left(patient, short):
    model = short(fails_at={3}, error=RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"))
    run = TranslationSession(pair(patient), model, device="cpu")
    with pytest.raises(ResourceError, match="MX-RES-001"):
        run.update(patient["region"]).run()
    with pytest.raises(UsageError, match="MX-RUN-001"):
        _ = run.result
    run.update(patient["region"]).run()  # with memory again, the session works
    assert run.record.compute["ladder"] == []


# --- sessions ------------------------------------------------------------------------------------------------------


def test_a_session_stays_on_the_rung_that_worked_and_says_so_every_time(gpu, patient, short, on_the_cpu):
    model = short(fails_at={1})
    run = TranslationSession(pair(patient), model, batch_size=2)
    run.update(None).run()
    model.network.passes.clear()
    model.network.fails_at = set()
    run.update(patient["region"]).run()
    assert set(model.network.passes) == {1}
    assert run.changed_slices == len(model.network.passes) < 8
    assert [w["code"] for w in run.record.warnings] == ["MX-RES-025"]
    assert np.array_equal(run.result.array, on_the_cpu(patient["region"], batch_size=1))


def test_an_update_that_finds_no_memory_at_all_leaves_the_session_as_it_was(gpu, patient, short, on_the_cpu):
    model = short()
    run = TranslationSession(pair(patient), model, batch_size=2)
    first = run.update(None).run()
    model.network.fails_at = set(range(5, 50))
    with pytest.raises(ResourceError, match="MX-RES-001"):
        run.update(patient["region"]).run()
    assert run.result is first
    model.network.fails_at = set()
    run.update(patient["region"]).run()
    assert run.record.compute["batch_size"] == 2
    assert np.array_equal(run.result.array, on_the_cpu(patient["region"], batch_size=2))


def test_a_lost_device_is_no_lack_of_memory(gpu, patient, short):
    model = short(fails_at={2}, error=RuntimeError("CUDA error: unspecified launch failure"))
    translation = translate(pair(patient), model, batch_size=2)
    with pytest.raises(ResourceError, match="MX-RES-023"):
        translation.run()
    assert len(model.network.passes) == 2  # no second try
    assert translation.warnings == []


# --- before computing ----------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_before_computing(patient, short, monkeypatch):
    monkeypatch.setattr(ladder, "available_memory", lambda device: 1 << 20)
    model = short()
    with pytest.raises(ResourceError, match="MX-RES-002") as caught:
        translate(pair(patient), model, device="cpu").run()
    assert "1 MiB are free" in caught.value.found
    assert model.network.passes == []


def test_a_batch_that_cannot_fit_is_made_smaller_before_computing(patient, short, monkeypatch):
    model = short()
    run = TranslationSession(pair(patient), model, device="cpu", batch_size=8)
    for _ in run.update():
        pass
    large = run.record.compute["estimated_memory_bytes"]
    monkeypatch.setattr(ladder, "available_memory", lambda device: large - 1)
    model.network.passes.clear()
    translation = translate(pair(patient), model, device="cpu", batch_size=8)
    translation.run()
    assert set(model.network.passes) == {4}
    assert steps_of(translation) == [("cpu in fp32, batch size 8", "cpu in fp32, batch size 4")]


def test_the_estimate_is_told_before_and_recorded(patient, tiny_model):
    translation = translate(pair(patient), tiny_model, device="cpu")
    started = next(iter(translation))
    assert 10_000 < started.memory_bytes < GIB
    translation.run()
    assert translation.record.compute["estimated_memory_bytes"] == started.memory_bytes


# --- automatic batches ---------------------------------------------------------------------------------------------


def test_on_the_cpu_the_automatic_batch_is_one_slice(patient, tiny_model):
    translation = translate(pair(patient), tiny_model, device="cpu")
    translation.run()
    assert translation.record.compute["batch_size"] == 1


def test_on_a_gpu_the_automatic_batch_is_what_half_of_the_memory_holds(gpu, patient, short, monkeypatch):
    need = {1: 10, 2: 20, 4: 40, 8: 80}
    monkeypatch.setattr(ladder, "estimate_model_memory", lambda model, h, w, batch, *_: need[batch])
    for free, expected in ((1000, 8), (160, 8), (159, 4), (80, 4), (40, 2), (39, 1), (12, 1)):
        monkeypatch.setattr(ladder, "available_memory", lambda device, free=free: free)
        translation = translate(pair(patient), short())
        translation.run()
        assert translation.record.compute["batch_size"] == expected, free


def test_each_step_down_is_smaller_and_they_end():
    for batch, allowed in itertools.product((1, 2, 7, 32), (True, False)):
        settings, seen = Settings(pretended_gpu(), batch), []
        while settings is not None:
            seen.append(str(settings))
            settings = settings.lower("none left", bf16_allowed=allowed)
        assert len(set(seen)) <= len(seen) <= 8
        assert seen[-1] == "cpu in fp32, batch size 1"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_real_gpu_a_run_without_memory_ends_on_the_cpu(patient, tiny_model, on_the_cpu):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        translation = translate(pair(patient), tiny_model, roi=patient["region"], device="cuda:0")
        result = translation.run().array
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert translation.record.compute["device"] == "cpu"
    assert translation.record.compute["ladder"]
    assert np.array_equal(result, on_the_cpu(patient["region"]))
