"""How much memory is there to be had, without asking more than the operating system and PyTorch know."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["available_memory", "linux_memory"]


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that can still be taken on a device, or None where that is unknown.

    CUDA: free memory and what PyTorch holds in reserve. MPS: what is recommended, less what is taken. CPU: on Linux
    what the kernel calls available, within the limits of control groups and address space; on Windows the free
    physical memory; elsewhere all physical memory, an upper bound.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        recommended = getattr(torch.mps, "recommended_max_memory", None)  # not in older versions
        return None if recommended is None else recommended() - torch.mps.current_allocated_memory()
    if sys.platform == "win32":
        return _windows_memory()
    known = [linux_memory() if sys.platform == "linux" else _physical_memory(), _address_space()]
    return min((value for value in known if value is not None), default=None)


def linux_memory(root: Path = Path("/")) -> int | None:
    """Return the kernel's estimate of available memory, or less where a control group (v1 or v2) limits it.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    rooms = [_meminfo(root), *_group_rooms(root)]
    return min((max(0, room) for room in rooms if room is not None), default=None)


def _meminfo(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _group_rooms(root: Path) -> Iterator[int]:
    """Give the room left in the process's control groups and in those around them."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mount = root / "sys/fs/cgroup"
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = mount / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # in a container the path may be the host's and not be there; the mount itself is then the container's group
        group = mount / path.strip().lstrip("/")
        for folder in (group, *group.parents):
            room = _room(folder, *names)
            if room is not None:
                yield room
            if folder == mount:
                break


def _room(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    """Return limit - usage + file cache that can be given up, or None where there is no limit."""
    limit, usage = (_number(folder / name) for name in (limit_name, usage_name))
    if limit is None or usage is None:
        return None
    pairs = (line.split() for line in _lines(folder / "memory.stat"))
    cache = next((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == cache_name), 0)
    return limit - usage + cache


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None  # "max": no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _address_space() -> int | None:
    """Return what a limit on the process's address space (``ulimit -v``) leaves; None without a limit."""
    import resource  # Unix only

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = "".join(_lines(Path("/proc/self/statm"))).split()
    if limit == resource.RLIM_INFINITY or not taken:
        return None
    return max(0, limit - int(taken[0]) * resource.getpagesize())


def _physical_memory() -> int | None:
    with suppress(ValueError, OSError):  # names that this system does not have
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64), ("total_page_file", ctypes.c_uint64), ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64), ("available_virtual", ctypes.c_uint64), ("extended", ctypes.c_uint64),
    )  # fmt: skip


def _windows_memory() -> int | None:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
