"""How much memory is free: the kernel's word, control groups of both versions, and what other systems say."""

from __future__ import annotations

import sys

import pytest
import torch

from MedXlateCore.inference import available
from MedXlateCore.inference.available import available_memory, linux_memory

GIB = 2**30


def system(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return linux_memory(root)


MEMINFO = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n"}


def test_without_control_groups_the_kernels_word_counts(tmp_path):
    assert system(tmp_path, MEMINFO) == 8 * GIB
    assert system(tmp_path / "nothing there", {}) is None


@pytest.mark.parametrize(("limit", "expected"), [(4 * GIB, 3 * GIB + 100), (100 * GIB, 8 * GIB), ("max", 8 * GIB)])
def test_a_control_group_of_version_2_limits(tmp_path, limit, expected):
    group = "sys/fs/cgroup/user/job"
    files = {
        "proc/self/cgroup": "0::/user/job\n", f"{group}/memory.max": f"{limit}\n",
        f"{group}/memory.current": f"{GIB}\n", f"{group}/memory.stat": "anon 5\ninactive_file 100\n",
    }  # fmt: skip
    assert system(tmp_path, MEMINFO | files) == expected


def test_the_tightest_group_above_counts(tmp_path):
    files = {
        "proc/self/cgroup": "0::/user/job\n",
        "sys/fs/cgroup/user/job/memory.max": "max\n", "sys/fs/cgroup/user/job/memory.current": "5\n",
        "sys/fs/cgroup/user/memory.max": f"{2 * GIB}\n", "sys/fs/cgroup/user/memory.current": f"{GIB}\n",
    }  # fmt: skip
    assert system(tmp_path, MEMINFO | files) == GIB


def test_in_a_container_whose_group_is_the_mount_itself_its_limit_counts(tmp_path):
    files = {
        "proc/self/cgroup": "0::/docker/0123456789\n",
        "sys/fs/cgroup/memory.max": f"{2 * GIB}\n", "sys/fs/cgroup/memory.current": f"{GIB}\n",
    }  # fmt: skip
    assert system(tmp_path, MEMINFO | files) == GIB


@pytest.mark.parametrize(("limit", "expected"), [(4 * GIB, 3 * GIB + 7), (9223372036854771712, 8 * GIB)])
def test_a_control_group_of_version_1_limits(tmp_path, limit, expected):
    group = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/cgroup": "12:cpu,cpuacct:/job\n9:memory:/job\n0::/\n",
        f"{group}/memory.limit_in_bytes": f"{limit}\n", f"{group}/memory.usage_in_bytes": f"{GIB}\n",
        f"{group}/memory.stat": "inactive_file 3\ntotal_inactive_file 7\n",
    }  # fmt: skip
    assert system(tmp_path, MEMINFO | files) == expected


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path):
    files = {
        "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5\n", "sys/fs/cgroup/memory.current": "9\n",
    }  # fmt: skip
    assert system(tmp_path, MEMINFO | files) == 0


def test_this_computers_cpu_has_memory():
    found = available_memory(torch.device("cpu"))
    assert found is None or 2**24 < found < 2**50
    assert sys.platform != "linux" or found is not None


def test_elsewhere_than_on_linux_physical_memory_is_the_bound(monkeypatch):
    monkeypatch.setattr(available.sys, "platform", "darwin")
    if sys.platform != "win32":
        import os

        assert available_memory(torch.device("cpu")) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_windows_is_asked_through_its_own_call(monkeypatch):
    class Kernel:
        class kernel32:
            @staticmethod
            def GlobalMemoryStatusEx(reference):
                assert reference._obj.length == 64  # as Windows demands
                reference._obj.available = 5 * GIB
                return 1

    monkeypatch.setattr(available.sys, "platform", "win32")
    monkeypatch.setattr(available.ctypes, "windll", Kernel, raising=False)
    assert available_memory(torch.device("cpu")) == 5 * GIB


def test_a_gpu_is_asked_for_what_is_free_and_held_in_reserve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    assert available_memory(torch.device("cuda:0")) == 13
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 50, raising=False)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 20, raising=False)
    assert available_memory(torch.device("mps")) == 30
