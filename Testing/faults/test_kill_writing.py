"""Runs that are killed at random moments, and runs that want the same output at once: whole files only.

Training is killed in ``Testing/unit/training/test_training_killed.py``. More kills: ``make test-slow``.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny_network
from warm import Run, WarmProcess, kill_at_random_moments, warm_process

from MedXlateCore.errors import InputError
from MedXlateCore.files import path_lock, sha256_file
from MedXlateCore.io import read_record, read_volume, write_volume
from MedXlateCore.models.package import load_package
from MedXlateCore.volume import Geometry, Volume

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork")
HIDDEN = re.compile(r"\.mxtmp-.*|\..*\.medxlate-lock")
N_RIVALS = 8
SMALL = Geometry((16, 16, 4), np.diag([-12.0, -12.0, 30.0, 1.0]))  # writing counts here, not computing


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    with warm_process(tmp_path_factory.mktemp("logs")) as process:
        yield process


class Patients:
    """Eight patients as files, and what the tiny model makes of each."""

    def __init__(self, folder: Path, package: Path, make_patient: Callable[..., dict[str, Volume]]) -> None:
        self.package = package
        self.files: list[dict[str, Path]] = []
        self.expected: list[np.ndarray] = []
        for seed in range(N_RIVALS):
            patient = make_patient(SMALL, seed)
            self.files.append({name: folder / f"{seed}-{name}.nii.gz" for name in ("T1", "T2")})
            for name, path in self.files[-1].items():
                write_volume(patient[name], path)
        self.hashes = [sha256_file(files["T1"]) for files in self.files]

    def start(self, warm: WarmProcess, number: int, output: Path, **settings: object) -> Run:
        """Start the real command on one patient."""
        sources = [f"--source={name}={path}" for name, path in self.files[number].items()]
        arguments = ["translate", "--model", str(self.package), *sources, "--output", str(output)]
        return warm.start(*arguments, "--device=cpu", "--quiet", folder=output.parent, **settings)

    def translate_all(self, warm: WarmProcess, folder: Path) -> None:
        """Make every patient's result, undisturbed."""
        for number in range(N_RIVALS):
            run = self.start(warm, number, folder / f"{number}.nii.gz")
            assert run.wait() == 0, run.output
            self.expected.append(read_volume(folder / f"{number}.nii.gz").array)

    def of(self, path: Path) -> int:
        """Return whose complete result an image is."""
        volume = read_volume(path)
        assert volume.synthetic
        (number,) = [n for n, array in enumerate(self.expected) if np.array_equal(volume.array, array)]
        return number


@pytest.fixture(scope="module")
def patients(tmp_path_factory, tiny_package, make_patient, warm) -> Patients:
    folder = tmp_path_factory.mktemp("patients")
    patients = Patients(folder, tiny_package, make_patient)
    patients.translate_all(warm, tmp_path_factory.mktemp("expected"))
    return patients


def visible(folder: Path) -> set[str]:
    """Return the names in a folder that are not those of temporary files and locks."""
    return {path.name for path in folder.iterdir() if not HIDDEN.fullmatch(path.name)}


# --- translate -----------------------------------------------------------------------------------------------------


def kill_translations(warm: WarmProcess, patients: Patients, folder: Path, count: int) -> None:
    outputs = [folder / "head.nii.gz", folder / "brain.mha"]
    numbers = itertools.count()
    states: Counter[str] = Counter()

    def start(**settings: object) -> Run:
        number = next(numbers)
        return patients.start(warm, number % N_RIVALS, outputs[number // 3 % 2], **settings)

    def look(run: Run, status: int) -> None:
        assert status in (0, -9), run.output
        assert visible(folder) <= {"head.nii.gz", "head.json", "brain.mha", "brain.json"}
        for path in outputs:
            if path.exists():
                whose, record = patients.of(path), read_record(path)
                # without a record that describes it: killed between the two renames, and the hash tells
                assert record is None or record["inputs"][0]["sha256"] == patients.hashes[whose]
                states["with its record" if record else "between two renames"] += 1
        if status == 0 or next(turns) % 4 == 0:  # the next start succeeds, and takes away what the killed ones left
            for number, path in enumerate(outputs):
                again = patients.start(warm, number, path)
                assert again.wait() == 0, again.output
                assert patients.of(path) == number
                assert read_record(path)["inputs"][0]["sha256"] == patients.hashes[number]
            assert {path.name for path in folder.iterdir()} == {"head.nii.gz", "head.json", "brain.mha", "brain.json"}

    turns = itertools.count(1)
    totals = kill_at_random_moments(start, look, count)
    print(dict(states))
    assert totals["while writing"] > count // 8
    assert states["with its record"] > count // 2


def test_6_killed_translations_leave_whole_files(warm, patients, tmp_path: Path) -> None:
    kill_translations(warm, patients, tmp_path / "out", 6)


@pytest.mark.slow
def test_40_killed_translations_leave_whole_files(warm, patients, tmp_path: Path) -> None:
    kill_translations(warm, patients, tmp_path / "out", 40)


# --- packages ------------------------------------------------------------------------------------------------------


def kill_package_writing(warm: WarmProcess, folder: Path, count: int) -> None:
    package = folder / "model"
    seeds = itertools.count(1)
    seen: Counter[str] = Counter()

    def start(**settings: object) -> Run:
        if next(turns) % 5 == 0 and package.exists():  # also where there is no earlier package
            for path in package.iterdir():
                path.unlink()
        return warm.start("save-package", str(package), str(next(seeds)), folder=package, **settings)

    def look(run: Run, status: int) -> None:
        assert status in (0, -9), run.output
        try:
            model = load_package(package)
        except InputError as error:
            assert error.code == "MX-MOD-010"  # no card, hence no package
            assert status == -9
            seen["none"] += 1
            return
        seen["whole"] += 1
        network = make_tiny_network(int(model.card.version.split(".")[-1]))
        assert all(torch.equal(model.network.state_dict()[key], t) for key, t in network.state_dict().items())
        if status == 0:
            assert {path.name for path in package.iterdir()} == {"model.json", model.card.weights["file"]}

    turns = itertools.count(1)
    totals = kill_at_random_moments(start, look, count)
    last = warm.start("save-package", str(package), "0", folder=package)
    status = last.wait()
    assert status == 0, last.output
    look(last, status)
    print(dict(seen))
    assert totals["while writing"] > count // 8
    assert seen["whole"] > count // 4


def test_8_kills_while_packages_are_written_leave_whole_packages(warm, tmp_path: Path) -> None:
    kill_package_writing(warm, tmp_path, 8)


@pytest.mark.slow
def test_40_kills_while_packages_are_written_leave_whole_packages(warm, tmp_path: Path) -> None:
    kill_package_writing(warm, tmp_path, 40)


# --- rivals --------------------------------------------------------------------------------------------------------


def let_rivals_run(warm: WarmProcess, patients: Patients, folder: Path, rounds: int) -> None:
    """Eight processes, one output: one complete winner; the others wrote before it or say that it is locked."""
    output = folder / "head.nii.gz"
    outcomes: Counter[str] = Counter()
    winners = set()
    for turn in range(rounds):
        # in odd rounds nobody waits, so that those who come late are refused
        runs = [
            patients.start(warm, number, output, lock_timeout_s=0.0 if turn % 2 else None) for number in range(N_RIVALS)
        ]
        statuses = [run.wait() for run in runs]
        for run, status in zip(runs, statuses, strict=True):
            assert status == 0 or (status == 4 and "MX-FIL-015" in run.output), run.output
            outcomes["written" if status == 0 else "locked"] += 1
        winner = patients.of(output)
        record = read_record(output)
        assert statuses[winner] == 0
        assert record is not None
        assert [entry["sha256"] for entry in record["inputs"]] == [
            sha256_file(path) for path in patients.files[winner].values()
        ]
        assert {path.name for path in folder.iterdir()} == {"head.nii.gz", "head.json"}
        assert turn % 2 or statuses == [0] * N_RIVALS
        winners.add(winner)
    print(dict(outcomes), f"{len(winners)} different winners")
    if rounds >= N_RIVALS:  # in fewer rounds they may all come one after the other
        assert outcomes["locked"] > 0
    before = visible(folder), sha256_file(output)
    with path_lock(output, 0.0):  # who comes while another writes is refused, whatever the machine's load
        late = patients.start(warm, 0, output, lock_timeout_s=0.0)
        assert late.wait() == 4, late.output
    assert "MX-FIL-015" in late.output
    assert (visible(folder), sha256_file(output)) == before
    assert outcomes["written"] >= rounds


def test_eight_runs_that_want_one_output_leave_one_complete_winner(warm, patients, tmp_path: Path) -> None:
    let_rivals_run(warm, patients, tmp_path / "out", 2)


@pytest.mark.slow
def test_eight_runs_that_want_one_output_leave_one_complete_winner_in_20_rounds(warm, patients, tmp_path: Path) -> None:
    let_rivals_run(warm, patients, tmp_path / "out", 20)
