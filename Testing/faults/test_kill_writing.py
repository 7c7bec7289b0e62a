"""Runs that are killed at random moments while they write leave whole files only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.files import read_json, remove_stale_temporaries
from MedXlateCore.io import read_record, read_volume

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")

WRITER = """
    import sys
    import numpy as np
    from MedXlateCore.io import write_volume
    from MedXlateCore.volume import Geometry, Volume
    import nibabel.nifti1, nibabel.nifti2  # loaded on first use otherwise, when the clock is already running
    geometry = Geometry((40, 40, 30), np.eye(4))
    print("ready", flush=True)
    for turn in range(10**9):
        array = np.full(geometry.shape, turn % 7, np.float32)
        write_volume(Volume(array, geometry, synthetic=True), sys.argv[1], {"value": turn % 7})
"""


def kill_and_look(folder: Path, count: int) -> None:
    path = folder / "out.nii.gz"
    rng = np.random.default_rng(0)
    seen = matching = 0
    for _ in range(count):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            time.sleep(float(rng.uniform(0, 0.4)))
            writer.send_signal(signal.SIGKILL)
        if path.exists():
            volume = read_volume(path)
            assert volume.synthetic and np.unique(volume.array).size == 1
            assert "output_file" in read_json(folder / "out.json")
            record = read_record(path)  # None: killed between two renames, and the hash tells
            assert record is None or record["value"] == volume.array[0, 0, 0]
            seen, matching = seen + 1, matching + (record is not None)
        remove_stale_temporaries(folder)
        assert {p.name for p in folder.iterdir()} <= {"out.nii.gz", "out.json"}
    print({"killed": count, "with an image": seen, "record of that very image": matching})
    assert seen > count // 2


def test_5_kills_leave_whole_files(tmp_path: Path) -> None:
    kill_and_look(tmp_path, 5)


@pytest.mark.slow
def test_200_kills_leave_whole_files(tmp_path: Path) -> None:
    kill_and_look(tmp_path, 200)
