"""Choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore import devices
from MedXlateCore.devices import choose_device, device_errors
from MedXlateCore.errors import ResourceError, UsageError

HAS_CUDA = torch.cuda.is_available()
no_gpu = pytest.mark.skipif(HAS_CUDA or torch.backends.mps.is_available(), reason="this computer has a GPU")


@pytest.fixture
def broken_gpu(monkeypatch):
    """A GPU that the driver shows and that fails at the first kernel, as new cards do with an old PyTorch."""
    true_probe = devices._probe
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    reason = "CUDA error: no kernel image is available for execution on the device"
    monkeypatch.setattr(devices, "_probe", lambda device: reason if device.type == "cuda" else true_probe(device))


@no_gpu
def test_auto_is_the_cpu_in_full_precision_where_there_is_no_gpu():
    chosen = choose_device()
    assert (chosen.torch_device, chosen.precision, chosen.warnings) == (torch.device("cpu"), "fp32", ())
    assert chosen.name


def test_a_gpu_that_does_not_work_gives_the_cpu_and_one_warning(broken_gpu):
    chosen = choose_device("auto")
    assert (chosen.torch_device.type, chosen.precision) == ("cpu", "fp32")
    assert [warning.code for warning in chosen.warnings] == ["MX-RES-021"]
    assert "no kernel image" in chosen.warnings[0].found
    assert "CPU" in chosen.warnings[0].fix


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_was_asked_for_and_does_not_work_is_an_error(broken_gpu, name):
    with pytest.raises(ResourceError, match="MX-RES-020") as caught:
        choose_device(name)
    assert name in caught.value.found
    assert "no kernel image" in caught.value.found


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_gpu_that_is_not_there_is_an_error(name):
    with pytest.raises(ResourceError, match="MX-RES-020"):
        choose_device(name)


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, NotImplementedError, ValueError])
def test_the_probe_reports_what_the_library_raises_in_one_line(monkeypatch, error):
    def fail(*_, **__):
        raise error("it is broken\nand here is a long story")

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    assert devices._probe(torch.device("cpu")) == "it is broken"
    with pytest.raises(ResourceError, match="MX-RES-020"):
        choose_device("cpu")
    with pytest.raises(ResourceError, match="MX-RES-022"):
        choose_device("auto")


def test_a_device_that_computes_nonsense_does_not_count_as_working(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda image, weight: torch.zeros(1))
    assert "instead of 324" in devices._probe(torch.device("cpu"))


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-2", "meta", "xpu", "CPU0", "cpu "])
def test_unknown_names_of_devices_are_refused(name):
    with pytest.raises(UsageError, match="MX-USE-020") as caught:
        choose_device(name)
    assert "auto" in caught.value.expected


@pytest.mark.parametrize("name", ["fp16", "", "FP32", "float32"])
def test_unknown_precisions_are_refused(name):
    with pytest.raises(UsageError, match="MX-USE-021"):
        choose_device("cpu", name)


def test_the_precision_asked_for_is_used():
    assert [choose_device("cpu", p).precision for p in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]


def test_errors_that_are_no_lack_of_memory_pass_unchanged():
    with pytest.raises(RuntimeError, match="other") as caught, device_errors("here", "do this"):
        raise RuntimeError("other")
    assert not isinstance(caught.value, ResourceError)


def test_a_real_lack_of_memory_is_a_resource_error():
    with pytest.raises(ResourceError, match="MX-RES-001") as caught, device_errors("here", "do this"):
        torch.empty(2**60)
    assert (caught.value.where, caught.value.fix) == ("here", "do this")
