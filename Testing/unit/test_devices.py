"""Choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from MedXlateCore import devices
from MedXlateCore.devices import choose_device, device_errors, first_line, is_out_of_memory
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


# --- lack of memory, lost devices ----------------------------------------------------------------------------------

LACKS = [
    MemoryError(),
    MemoryError("Unable to allocate 9 GiB"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),  # older PyTorch
    RuntimeError("CUDA error: out of memory"),  # the driver's own
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 384.0 KB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("could not create a primitive"),  # oneDNN
    RuntimeError("std::bad_alloc"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("shapes cannot be multiplied"),
    ValueError("out of memory"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", LACKS, ids=lambda error: f"{type(error).__name__} {error}"[:60])
def test_every_back_ends_lack_of_memory_is_known_as_one(error):
    assert is_out_of_memory(error)
    with pytest.raises(ResourceError, match="MX-RES-001"), device_errors("here", "do this"):
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: f"{type(error).__name__} {error}"[:60])
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "text", ["CUDA error: device lost", "CUDA driver error: unknown", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"]
)
def test_a_device_that_fails_on_the_way_has_its_own_code(text):
    with pytest.raises(ResourceError, match="MX-RES-023"), device_errors("here", "do this"):
        raise RuntimeError(text)


def test_of_a_long_message_the_first_line_is_told():
    assert first_line(RuntimeError("\n one\ntwo")) == "one"
    assert first_line(MemoryError()) == "MemoryError"
    assert len(first_line(RuntimeError("x" * 999))) == 200


@pytest.mark.parametrize(
    ("asked", "allowed", "has_bf16", "expected"),
    [
        ("auto", True, True, "bf16"),
        ("auto", False, True, "fp32"),
        ("auto", True, False, "fp32"),
        ("fp32", True, True, "fp32"),
        ("bf16", False, True, "bf16"),
    ],
)
def test_on_a_gpu_bf16_is_chosen_only_where_the_model_allows_it(monkeypatch, asked, allowed, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(devices, "_probe", lambda device: "")
    monkeypatch.setattr(devices, "_name", lambda device: "a card")
    chosen = choose_device("auto", asked, bf16_allowed=allowed)
    assert (chosen.precision, chosen.has_bf16, chosen.is_cpu) == (expected, has_bf16, False)
