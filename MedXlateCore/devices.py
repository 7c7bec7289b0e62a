"""Where to compute: choice of device and precision, each proven by a tiny computation before it is used."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from MedXlateCore.errors import ResourceError, UsageError, Warned

__all__ = ["PRECISIONS", "Device", "choose_device", "device_errors"]

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Device:
    """A device that has shown that it works.

    Attributes:
        torch_device: ``cpu``, ``cuda:0``, ``mps`` ...
        precision: ``fp32`` or ``bf16``.
        name: the device's own name, for the run record.
        warnings: why another choice than the preferred one was made.
    """

    torch_device: torch.device
    precision: str
    name: str
    warnings: tuple[Warned, ...] = ()


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Choose and probe a device.

    Args:
        device: ``auto`` (first working GPU, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` (bf16 on CUDA devices that have it, else fp32), ``fp32`` or ``bf16``.

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
            return Device(candidate, _precision(precision, candidate), _name(candidate), tuple(warnings))
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
    except (MemoryError, RuntimeError) as error:  # on a CPU, PyTorch has no class of its own for a lack of memory
        lines = str(error).strip().splitlines()
        text = lines[0][:200] if lines else type(error).__name__
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "allocate memory" in str(error):
            raise ResourceError("MX-RES-001", f"memory ran out: {text}", where=where, fix=fix) from error
        if "CUDA error" in str(error) or "CUDA driver error" in str(error):
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
        return [torch.device(name) for name in [*names, "cpu"]]
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
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return "" if total == 9 * 36 else f"a small convolution gave {total} instead of 324"


def _precision(precision: str, device: torch.device) -> str:
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else (platform.processor() or platform.machine())
