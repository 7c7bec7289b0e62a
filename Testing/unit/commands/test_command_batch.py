"""``medxlate batch``: twelve phantom cases of which two are broken; resuming, limits, locks; tables and BIDS."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from MedXlateCore.batch import Manifest
from MedXlateCore.cli import main
from MedXlateCore.commands import batch as command
from MedXlateCore.errors import ResourceError
from MedXlateCore.files import folder_lock, sha256_file
from MedXlateCore.io import read_record, read_volume, write_volume

pytestmark = pytest.mark.xdist_group("batch")  # one worker: what they share is made once

CASES = [f"case_{number:03d}" for number in range(12)]
TRUNCATED, LACKING = CASES[4], CASES[7]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Return the table of twelve phantom heads; the T2 of one is cut off, another has none. Nobody changes them."""
    folder = tmp_path_factory.mktemp("phantoms") / "cohort"
    line = [
        "phantom",
        "--out",
        folder,
        "--cases",
        12,
        "--size",
        28,
        32,
        12,
        "--modalities",
        "T1,T2",
        "--splits",
        "8,2,2",
    ]
    assert main([str(word) for word in line]) == 0
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    for row, name in zip(rows, CASES, strict=True):
        row["case"] = name
        if name == LACKING:
            row["T2"] = ""
        if name == TRUNCATED:
            (folder / "short.nii.gz").write_bytes((folder / row["T2"]).read_bytes()[:900])
            row["T2"] = "short.nii.gz"
    write_table(folder / "table.csv", rows)
    return folder / "table.csv"


@pytest.fixture(scope="module")
def finished(cohort, tiny_package, tmp_path_factory):
    """Return the output folder of one batch over the cohort; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    assert main(words(cohort, tiny_package, folder, "--roi-column", "seg")) == 3
    return folder


@pytest.fixture
def computed(monkeypatch):
    """Return the outputs that were really computed."""
    outputs = []
    original = command.translate_files

    def spy(request, model, advance):
        outputs.append(request.output.name)
        return original(request, model, advance)

    monkeypatch.setattr(command, "translate_files", spy)
    return outputs


def words(table, package, output, *more):
    line = ["batch", "--input", table, "--model", package, "--output", output, "--device", "cpu", *more]
    return [str(word) for word in line]


def write_table(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table_of(cohort, path, names, **cells):
    """Write a table with some of the cohort's cases, its files by absolute path."""
    rows = [row for row in csv.DictReader(cohort.open()) if row["case"] in names]
    for row in rows:
        for column in ("T1", "T2", "seg"):
            row[column] = str(cohort.parent / row[column])
        row.update(cells)
    return write_table(path, rows)


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def error_code(capsys):
    return json.loads(capsys.readouterr().err.splitlines()[-1])["code"]


# --- twelve cases, two of them broken ------------------------------------------------------------------------------


def test_the_manifest_says_of_every_case_what_became_of_it(finished):
    lines = manifest(finished)
    assert [line["case"] for line in lines] == CASES
    status = {line["case"]: line["status"] for line in lines}
    assert [name for name in CASES if status[name] != "done"] == [TRUNCATED, LACKING]
    codes = {line["case"]: line["error"]["code"] for line in lines if line["error"]}
    assert codes[LACKING] == "MX-DAT-008"
    assert codes[TRUNCATED].startswith("MX-FIL-03")
    for line in lines:
        if line["status"] == "done":
            assert line["sha256"] == sha256_file(finished / line["output"])
            assert line["target"] == "T1ce"


def test_every_good_case_has_its_volume_and_record_and_nothing_else_lies_about(finished):
    good = [name for name in CASES if name not in (TRUNCATED, LACKING)]
    wanted = {f"{name}/{name}_synthetic-T1ce{suffix}" for name in good for suffix in (".nii.gz", ".json")}
    assert files(finished) == wanted | {"manifest.jsonl"}
    assert read_volume(finished / good[0] / f"{good[0]}_synthetic-T1ce.nii.gz").synthetic


@pytest.mark.parametrize("name", [CASES[0], CASES[11]])
def test_the_voxels_are_those_of_medxlate_translate(finished, cohort, tiny_package, tmp_path, name):
    row = next(row for row in csv.DictReader(cohort.open()) if row["case"] == name)
    output = tmp_path / "one.nii.gz"
    line = ["translate", "--model", tiny_package, "--output", output, "--device", "cpu", "--quiet"]
    line += ["--source", f"T1={cohort.parent / row['T1']}", "--source", f"T2={cohort.parent / row['T2']}"]
    line += ["--roi", cohort.parent / row["seg"]] if row["seg"] else []
    assert main([str(word) for word in line]) == 0
    one, many = read_volume(output), read_volume(finished / name / f"{name}_synthetic-T1ce.nii.gz")
    assert np.array_equal(one.array, many.array)
    assert np.array_equal(one.geometry.affine_ras, many.geometry.affine_ras)


def test_a_second_run_computes_only_what_is_missing(finished, cohort, tiny_package, tmp_path, computed):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    assert main(words(cohort, tiny_package, folder, "--roi-column", "seg")) == 3
    assert computed == [f"{TRUNCATED}_synthetic-T1ce.nii.gz"]
    assert {line["status"] for line in manifest(folder)} == {"skipped", "failed"}
    assert files(folder) == files(finished)


@pytest.mark.parametrize("harm", ["gone", "record gone", "changed", "record of another image"])
def test_a_result_that_is_not_whole_is_made_again(finished, cohort, tiny_package, tmp_path, computed, harm):
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    image = folder / CASES[2] / f"{CASES[2]}_synthetic-T1ce.nii.gz"
    record = image.with_name(f"{CASES[2]}_synthetic-T1ce.json")
    before = sha256_file(image)
    if harm == "gone":
        image.unlink()
    elif harm == "record gone":
        record.unlink()
    elif harm == "changed":
        image.write_bytes(image.read_bytes()[:-1] + b"x")
    else:
        facts = json.loads(record.read_text())
        facts["inputs"][0]["sha256"] = "0" * 64
        record.write_text(json.dumps(facts))
    assert main(words(cohort, tiny_package, folder, "--roi-column", "seg")) == 3
    assert image.name in computed and len(computed) == 2
    assert sha256_file(image) == before
    assert read_record(image) is not None


def test_other_inputs_model_or_region_make_a_result_stale(cohort, tiny_package, tmp_path, computed, patient_files):
    table, out = table_of(cohort, tmp_path / "t.csv", CASES[:1]), tmp_path / "out"
    line = words(table, tiny_package, out)
    assert main(line) == 0 and main(line) == 0 and len(computed) == 1
    assert main([*line, "--roi-column", "seg"]) == 0 and len(computed) == 2
    assert main([*line, "--roi-column", "seg", "--roi-label", "core=1,2"]) in (0, 3) and len(computed) == 3
    assert main(line) == 0 and len(computed) == 4
    table_of(cohort, tmp_path / "t.csv", CASES[:1], T1=str(patient_files["T1"]), T2=str(patient_files["T2"]))
    assert main(line) == 0 and len(computed) == 5
    assert main([*line, "--overwrite"]) == 0 and len(computed) == 6


def test_a_limit_leaves_the_rest_for_the_next_run(cohort, tiny_package, tmp_path, computed, capsys):
    table, out = table_of(cohort, tmp_path / "t.csv", CASES[:3]), tmp_path / "out"
    assert main(words(table, tiny_package, out, "--limit", 2)) == 0
    assert len(computed) == 2
    assert "3 cases: 2 done, 0 skipped, 0 failed, 1 left for the next run" in capsys.readouterr().out
    assert main(words(table, tiny_package, out, "--limit", 2)) == 0
    assert len(computed) == 3
    assert [line["status"] for line in manifest(out)] == ["skipped", "skipped", "done"]


def test_only_the_split_asked_for_is_translated(cohort, tiny_package, tmp_path, computed):
    assert main(words(cohort, tiny_package, tmp_path / "out", "--split", "test")) == 0
    split = {row["case"] for row in csv.DictReader(cohort.open()) if row["split"] == "test"}
    assert {line["case"] for line in manifest(tmp_path / "out")} == split
    assert len(computed) == len(split) == 2


def test_progress_goes_to_stdout_and_errors_to_stderr(cohort, tiny_package, tmp_path, capsys):
    table = table_of(cohort, tmp_path / "t.csv", CASES[3:5])
    assert main(words(table, tiny_package, tmp_path / "out")) == 3
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith(f"[1/2] {CASES[3]}: done in ")
    assert lines[1].startswith(f"[2/2] {CASES[4]}: failed, MX-FIL-03")
    assert lines[-1] == "synthetic images: research use only, not for diagnosis"
    assert captured.err.startswith("MX-FIL-03")


# --- what one case does, and what ends the batch --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (MemoryError(), "MX-RES-001", 4),
        (ZeroDivisionError("once"), "MX-INT-001", 70),
        (OSError(5, "x"), "MX-INT-001", 70),
    ],
)
def test_whatever_a_case_does_the_others_are_translated(
    cohort, tiny_package, tmp_path, monkeypatch, error, code, exit_code
):
    original = command.translate_files

    def failing(request, model, advance):
        if request.output.name.startswith(CASES[0]):
            raise error
        return original(request, model, advance)

    monkeypatch.setattr(command, "translate_files", failing)
    out = tmp_path / "out"
    assert main(words(table_of(cohort, tmp_path / "t.csv", CASES[:2]), tiny_package, out)) == exit_code
    assert [line["status"] for line in manifest(out)] == ["failed", "done"]
    assert manifest(out)[0]["error"]["code"] == code


def test_ctrl_c_keeps_what_is_finished(cohort, tiny_package, tmp_path, monkeypatch):
    original = command.translate_files

    def interrupted(request, model, advance):
        if request.output.name.startswith(CASES[1]):
            raise KeyboardInterrupt
        return original(request, model, advance)

    monkeypatch.setattr(command, "translate_files", interrupted)
    out = tmp_path / "out"
    assert main(words(table_of(cohort, tmp_path / "t.csv", CASES[:3]), tiny_package, out)) == 130
    assert [(line["case"], line["status"]) for line in manifest(out)] == [(CASES[0], "done")]
    with folder_lock(out):
        pass


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "MX-FIL-013"), (errno.EIO, "MX-FIL-016")])
def test_a_manifest_that_cannot_be_written_says_why(number, code, tmp_path, monkeypatch):
    manifest = Manifest(tmp_path)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("MedXlateCore.batch.os.fsync", fail)
    with pytest.raises(ResourceError, match=os.strerror(number)) as raised:
        manifest.add({"case": "a", "target": "T1ce", "status": "done"})
    assert raised.value.code == code
    assert raised.value.where.endswith("manifest.jsonl")


def test_a_manifest_that_a_killed_run_left_torn_is_read_as_far_as_it_goes(cohort, tiny_package, tmp_path):
    table, out = table_of(cohort, tmp_path / "t.csv", CASES[:2]), tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text('{"case": "old", "target": "T2", "status": "done"}\n{"case": "ca')
    assert main(words(table, tiny_package, out)) == 0
    assert [line["case"] for line in manifest(out)] == [*CASES[:2], "old"]


def test_two_batches_on_one_output_are_refused(cohort, tiny_package, tmp_path, capsys):
    out = tmp_path / "out"
    line = words(table_of(cohort, tmp_path / "t.csv", CASES[:1]), tiny_package, out)
    holder = "from MedXlateCore.files import folder_lock\nimport sys\nwith folder_lock(sys.argv[1]):\n" \
             "    print('held', flush=True); sys.stdin.read()"  # fmt: skip
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as other:
        assert other.stdout.readline() == b"held\n"
        assert main([*line, "--json"]) == 4
        assert error_code(capsys) == "MX-FIL-015"
        other.communicate(b"")
    assert main(line) == 0


@pytest.mark.parametrize(
    ("options", "exit_code", "code"),
    [
        (["--model", "no-such-model"], 3, "MX-MOD-010"),
        (["--target", "FLAIR"], 2, "MX-MOD-091"),
        (["--device", "gpu"], 2, "MX-USE-020"),
        (["--precision", "fp16"], 2, "MX-USE-021"),
        (["--roi-column", "lesion"], 2, "MX-DAT-003"),
        (["--roi-label", "core"], 2, "MX-USE-031"),
        (["--input", "none.csv"], 3, "MX-FIL-001"),
        (["--split", "holdout"], 3, "MX-DAT-015"),
    ],
)
def test_what_concerns_all_cases_is_refused_before_any(
    cohort, tiny_package, tmp_path, options, exit_code, code, capsys
):
    assert main([*words(cohort, tiny_package, tmp_path / "out", "--json"), *options]) == exit_code
    assert error_code(capsys) == code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "a:b", "nul\x01", ".hidden", "dot.", "x" * 101, " "])
def test_names_that_cannot_be_folders_fail_alone(cohort, tiny_package, tmp_path, name):
    rows = list(csv.DictReader(table_of(cohort, tmp_path / "t.csv", CASES[:2]).open()))
    rows[0]["case"] = name
    out = tmp_path / "out"
    code = main(words(write_table(tmp_path / "t.csv", rows), tiny_package, out))
    if name == " ":  # a cell of blanks is an empty cell: the whole table is refused
        assert code == 3 and not out.exists()
        return
    assert code == 3
    assert [line["status"] for line in manifest(out)] == ["failed", "done"]
    assert manifest(out)[0]["error"]["code"] == "MX-DAT-013"
    assert not [path for path in files(tmp_path) if not path.startswith(("out/", "t.csv"))]


def test_names_that_differ_in_case_only_do_not_share_a_folder(cohort, tiny_package, tmp_path):
    rows = list(csv.DictReader(table_of(cohort, tmp_path / "t.csv", CASES[:2]).open()))
    rows[0]["case"], rows[1]["case"] = "Anna", "ANNA"
    assert main(words(write_table(tmp_path / "t.csv", rows), tiny_package, tmp_path / "out")) == 3
    assert [line["status"] for line in manifest(tmp_path / "out")] == ["done", "failed"]


def test_an_input_is_never_overwritten(cohort, tiny_package, tmp_path):
    name = CASES[0]
    folder = tmp_path / name
    folder.mkdir()
    source = folder / f"{name}_synthetic-T1ce.nii.gz"
    shutil.copy(cohort.parent / next(csv.DictReader(cohort.open()))["T1"], source)
    before = source.read_bytes()
    table = table_of(cohort, tmp_path / "t.csv", [name], T1=str(source))
    assert main(words(table, tiny_package, tmp_path)) == 3
    assert manifest(tmp_path)[0]["error"]["code"] == "MX-FIL-014"
    assert source.read_bytes() == before


# --- BIDS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bids(patient, tmp_path):
    """Return a BIDS folder: one subject with two sessions, one without, one with two T1w, one without T2w."""
    folder = tmp_path / "bids"

    def put(place, name, key):
        write_volume(patient[key], folder / place / "anat" / f"{name}.nii.gz")

    for place, name in (("sub-01/ses-a", "sub-01_ses-a"), ("sub-01/ses-b", "sub-01_ses-b"), ("sub-02", "sub-02")):
        put(place, f"{name}_T1w", "T1")
        put(place, f"{name}_T2w", "T2")
    put("sub-02", "sub-02_ce-gadolinium_T1w", "T1")
    put("sub-02", "sub-02_dseg", "region")
    for name in ("sub-03_run-1_T1w", "sub-03_run-2_T1w"):
        put("sub-03", name, "T1")
    put("sub-03", "sub-03_T2w", "T2")
    put("sub-04", "sub-04_T1w", "T1")
    return folder


def test_a_bids_folder_becomes_derivatives(bids, tiny_package, tmp_path):
    out = tmp_path / "derivatives"
    assert main(words(bids, tiny_package, out, "--roi-column", "dseg")) == 3
    status = {line["case"]: line["status"] for line in manifest(out)}
    wanted = {"sub-01_ses-a": "done", "sub-01_ses-b": "done", "sub-02": "done", "sub-03": "failed", "sub-04": "failed"}
    assert status == wanted
    codes = [line["error"]["code"] for line in manifest(out) if line["error"]]
    assert codes == ["MX-DAT-014", "MX-DAT-008"]
    assert files(out) == {
        "manifest.jsonl",
        "dataset_description.json",
        "sub-01/ses-a/anat/sub-01_ses-a_ce-gadolinium_desc-synthetic_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_ce-gadolinium_desc-synthetic_T1w.json",
        "sub-01/ses-b/anat/sub-01_ses-b_ce-gadolinium_desc-synthetic_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_ce-gadolinium_desc-synthetic_T1w.json",
        "sub-02/anat/sub-02_ce-gadolinium_desc-synthetic_T1w.nii.gz",
        "sub-02/anat/sub-02_ce-gadolinium_desc-synthetic_T1w.json",
    }
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    records = [json.loads((out / line["output"].replace(".nii.gz", ".json")).read_text()) for line in manifest(out)[:3]]
    assert [record["prompt"] is not None for record in records] == [False, False, True]


def test_a_folder_without_cases_says_what_was_expected(tiny_package, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(words(tmp_path / "empty", tiny_package, tmp_path / "out", "--json")) == 3
    assert error_code(capsys) == "MX-DAT-015"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_output_folder_that_is_read_only_is_refused_at_once(cohort, tiny_package, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert main(words(cohort, tiny_package, locked / "out", "--json")) == 4
    assert error_code(capsys) == "MX-FIL-012"


def test_a_library_that_is_not_installed_is_a_lack_and_no_defect(cohort, tiny_package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel.nifti1", None)
    table = table_of(cohort, tmp_path / "one.csv", CASES[:1])
    assert main(words(table, tiny_package, tmp_path / "out")) == 4
    [line] = manifest(tmp_path / "out")
    assert line["error"]["code"] == "MX-RES-024"
    assert "PythonSlicer -m pip install nibabel" in line["error"]["fix"]
