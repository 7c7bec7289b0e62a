"""Where to compute: choice of device and precision, each proven by a tiny computation before it is used."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from MedXlateCore.errors import ResourceError, UsageError, Warned

__all__ = [
    "CPU",
    "PRECISIONS",
    "Device",
    "choose_device",
    "cpu_name",
    "device_errors",
    "empty_cache",
    "first_line",
    "is_out_of_memory",
]

CPU = torch.device("cpu")
PRECISIONS = ("auto", "fp32", "bf16")

# what PyTorch's back ends say where they have no class of exception for it: the CPU's allocator on Linux, macOS and
# Windows, oneDNN (its convolutions on the CPU, which give no reason), MPS, CUDA's driver and libraries, C++
_OUT_OF_MEMORY = (
    "allocate memory", "not enough memory", "could not create a primitive", "could not create a memory",
    "out of memory", "alloc_failed", "bad_alloc", "bad allocation",
)  # fmt: skip
_OUT_OF_MEMORY_CLASSES = tuple(
    kind
    for kind in (MemoryError, getattr(torch, "OutOfMemoryError", None), getattr(torch.cuda, "OutOfMemoryError", None))
    if kind is not None
)
_DEVICE_LOST = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "MPS backend", "HIP error")


@dataclass(frozen=True)
class Device:
    """A device that has shown that it works.

    Attributes:
        torch_device: ``cpu``, ``cuda:0``, ``mps`` ...
        precision: ``fp32`` or ``bf16``.
        name: the device's own name, for the run record.
        warnings: why another choice than the preferred one was made.
        has_bf16: True if computing in bf16 saves memory and time there.
    """

    torch_device: torch.device
    precision: str
    name: str
    warnings: tuple[Warned, ...] = ()
    has_bf16: bool = False

    @property
    def is_cpu(self) -> bool:
        """True for the CPU, False for GPUs."""
        return self.torch_device.type == "cpu"


def choose_device(device: str = "auto", precision: str = "auto", *, bf16_allowed: bool = False) -> Device:
    """Choose and probe a device.

    Args:
        device: ``auto`` (first working GPU, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` (bf16 where that is allowed and the GPU has it, else fp32), ``fp32`` or ``bf16``.
        bf16_allowed: the model is known to give nearly the same in bf16; see ``ModelCard.bf16_deviation``.

    Raises:
        UsageError: ``MX-USE-020`` (no such device name), ``MX-USE-021`` (no such precision).
        ResourceError: ``MX-RES-020``, the device that was asked for does not work.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            "MX-USE-021",
            f"precision '{precision}' is not known",
            expected=f"one of {', '.join(PRECISIONS)}",
            where="--precision",
            fix="use --precision auto",
        )
    candidates = _candidates(device)
    warnings: list[Warned] = []
    for candidate in candidates:
        problem = _probe(candidate)
        if not problem:
            has_bf16 = candidate.type == "cuda" and torch.cuda.is_bf16_supported()
            automatic = "bf16" if bf16_allowed and has_bf16 else "fp32"
            chosen = automatic if precision == "auto" else precision
            return Device(candidate, chosen, _name(candidate), tuple(warnings), has_bf16)
        if device != "auto":
            raise ResourceError(
                "MX-RES-020",
                f"device '{device}' does not work: {problem}",
                expected="a device that this build of PyTorch can compute on",
                fix="use --device auto or --device cpu, or install the PyTorch build that fits this GPU and driver",
            )
        warnings.append(
            Warned("MX-RES-021", f"GPU '{candidate}' was found but does not work: {problem}", fix="running on the CPU")
        )
    raise ResourceError("MX-RES-022", "no device works, not even the CPU", fix="reinstall PyTorch")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out, on any device and in any supported PyTorch."""
    if isinstance(error, _OUT_OF_MEMORY_CLASSES):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 200 characters, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def empty_cache(device: torch.device) -> None:
    """Give back to the GPU what PyTorch holds in reserve; nothing happens on the CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextlib.contextmanager
def device_errors(where: str, fix: str) -> Iterator[None]:
    """Turn a lack of memory, or a device that fails, into an error that says what to do.

    Args:
        where: what was being computed.
        fix: what the user can do where memory is lacking.

    Raises:
        ResourceError: ``MX-RES-001`` (memory ran out), ``MX-RES-023`` (the GPU failed on the way).
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = first_line(error)
        if is_out_of_memory(error):
            raise ResourceError("MX-RES-001", f"memory ran out: {text}", where=where, fix=fix) from error
        if any(sign in str(error) for sign in _DEVICE_LOST):
            raise ResourceError(
                "MX-RES-023",
                f"the GPU failed: {text}",
                expected="a device that works to the end",
                where=where,
                fix="start again; if it stays, use --device cpu and check the GPU's driver",
            ) from error
        raise


def _candidates(device: str) -> list[torch.device]:
    if device == "auto":
        names = ["cuda:0"] if torch.cuda.is_available() else []
        names += ["mps"] if torch.backends.mps.is_available() else []
        return [*map(torch.device, names), CPU]
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in {"cpu", "cuda", "mps"}:
        raise UsageError(
            "MX-USE-020",
            f"device '{device}' is not known",
            expected="auto, cpu, cuda, cuda:0, cuda:1 ... or mps",
            where="--device",
            fix="use --device auto",
        )
    return [chosen]


def _probe(device: torch.device) -> str:
    """Return an empty string if a small convolution works on the device, else the reason."""
    try:
        weight = torch.ones(1, 1, 3, 3, device=device)
        image = torch.ones(1, 1, 8, 8, device=device)
        total = float(torch.nn.functional.conv2d(image, weight).sum().cpu())
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        return first_line(error)
    return "" if total == 9 * 36 else f"a small convolution gave {total} instead of 324"


def cpu_name() -> str:
    """Return the processor's name, or its kind where the system does not say."""
    return platform.processor() or platform.machine()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
