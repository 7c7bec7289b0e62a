"""What the benchmarks of networks share: pairs of slices, seconds and memory of a call, the machine, the profile."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side import Side, memory_of_call

__all__ = ["MIB", "compare_slices", "machine", "measured", "profile_of"]

MIB = 2**20


def compare_slices(plain: Side, ours: Side, rounds: int, size: tuple[int, int], precision: str) -> dict[str, float]:
    """Compare one slice, side by side, round by round; the sides have the jobs ``plain_slice`` and ``our_slice``."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {"plain": f"{folder}/plain.npy", "ours": f"{folder}/ours.npy"}
        pairs = []
        for _ in range(rounds + 1):  # the first warms up
            a = plain.call("plain_slice", size=size, out=paths["plain"])
            b = ours.call("our_slice", size=size, out=paths["ours"], precision=precision)
            pairs.append((a, b))
        difference = float(np.abs(np.load(paths["plain"]) - np.load(paths["ours"])).max())
    rest = pairs[1:]
    return {
        "plain_s": statistics.median(a["seconds"] for a, _ in rest),
        "ours_s": statistics.median(b["seconds"] for _, b in rest),
        "speedup": round(statistics.median(a["seconds"] / b["seconds"] for a, b in rest), 2),
        "max_difference": difference,
        "plain_memory_mib": max(a["memory"] for a, _ in pairs) / MIB,
        "ours_memory_mib": max(b["memory"] for _, b in pairs) / MIB,
        "memory_ratio": round(max(b["memory"] for _, b in pairs) / max(a["memory"] for a, _ in pairs), 3),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Say on what the figures were measured, with the machine's own peaks of convolution and matrix product."""
    convolution = torch.nn.Conv2d(192, 192, 3, padding=1, bias=False, device=device)
    image, square = torch.randn(1, 192, 96, 80, device=device), torch.randn(1536, 1536, device=device)
    with torch.inference_mode():
        best = {
            "conv": min(measured(device, lambda: convolution(image))[0] for _ in range(30)),
            "matmul": min(measured(device, lambda: square @ square)[0] for _ in range(30)),
        }
    return {
        "processor": platform.processor() or platform.machine(), "cpu": _cpu_model(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__, "python": platform.python_version(), "system": platform.system(),
        "convolution_peak_gflops": round(2 * 192 * 192 * 9 * 96 * 80 / best["conv"] / 1e9, 1),
        "matrix_product_peak_gflops": round(2 * 1536**3 / best["matmul"] / 1e9, 1),
    }  # fmt: skip


def measured(device: torch.device, call: Callable[[], Any]) -> tuple[float, int | None, Any]:
    """Return seconds, how far memory rose (the GPU's on a GPU), and the result."""
    if device.type != "cuda":
        return memory_of_call(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before, start = torch.cuda.memory_allocated(device), time.perf_counter()
    result = call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, torch.cuda.max_memory_allocated(device) - before, result


def profile_of(device: torch.device, call: Callable[[], Any]) -> dict[str, float]:
    """Return the operations that take the most time in a call, with their share."""
    with torch.inference_mode(), torch.profiler.profile() as record:
        call()
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(record.key_averages(), key=lambda row: -getattr(row, field))
    total = sum(getattr(row, field) for row in rows)
    return {row.key: round(getattr(row, field) / total, 3) for row in rows[:8]}


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
