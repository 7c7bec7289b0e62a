"""The memory of training does not grow with the cohort."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's account of memory")
def test_training_on_64_cases_takes_the_memory_of_training_on_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything resident counts, pages of mapped files too; see the script and Docs/results/memory."""
    monkeypatch.syspath_prepend(str(ROOT / "Testing" / "benchmarks"))
    import training_memory

    report = training_memory.compare(tmp_path, [4, 64], (96, 112, 40), steps=8)
    small, large = report["cohorts"]
    print(report)
    assert large["prepared_mib"] > 0.5 * small["resident_mib"]  # held in memory, the data would show
    assert 0.9 < report["ratio_of_resident_memory"] < 1.1
    assert large["anonymous_mib"] < 1.1 * small["anonymous_mib"]
