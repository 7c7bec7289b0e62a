"""Targets in words on the command line: ``--target-text`` and ``--target-like``, of ``translate`` and of ``batch``."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dicom_made import write_series
from speaking import DOMAINS

from MedXlateCore.cli import main
from MedXlateCore.files import sha256_file
from MedXlateCore.io import read_volume
from MedXlateCore.pipeline import translate

T1_BRAIN, T2_BRAIN, _, _, CT_HEAD = DOMAINS
TEXT = "T2 of the brain, fat-suppressed, TE 90 ms at 3T"
SIDECAR = {
    "Modality": "MR", "BodyPartExamined": "BRAIN", "EchoTime": 0.09, "MagneticFieldStrength": 3, "ScanOptions": "FS",
    "PatientName": "Jane Doe", "InstitutionName": "General Hospital",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_judges(monkeypatch):
    """Leave the gate out: it has its own tests, and takes its time."""
    monkeypatch.setattr("MedXlateCore.inference.session.doubts", lambda *_: ())


@pytest.fixture
def words(speaking_package, patient_files):
    """Return a function from an output and further options to a command line."""

    def make(output, *more):
        source = f"T1={patient_files['T1']}"
        command = ["translate", "--model", speaking_package, "--source", source, "--output", output, "--quiet", *more]
        return [*map(str, command), "--device", "cpu"]

    return make


@pytest.fixture
def table(tmp_path, patient_files, speaking_package):
    """Return a function from an output folder and further options to a batch over two cases."""
    rows = [f"{name},{patient_files['T1']}," for name in ("p1", "p2")]
    (tmp_path / "cases.csv").write_text("\n".join(["case,T1,age", *rows]))

    def make(*more):
        command = ["batch", "--input", tmp_path / "cases.csv", "--model", speaking_package, "--device", "cpu", *more]
        return [*map(str, command), "--output", str(tmp_path / "out")]

    return make


def reference(folder, name="sub-07_T2w", **changes):
    (folder / f"{name}.nii.gz").write_bytes(b"voxels")  # the facts lie beside them
    (folder / f"{name}.json").write_text(json.dumps({**SIDECAR, **changes}))
    return folder / f"{name}.nii.gz"


def record_of(output):
    return json.loads((output.parent / f"{output.name.removesuffix('.nii.gz')}.json").read_text())


def codes(record):
    return [warning["code"] for warning in record["warnings"]]


def refusal(capsys):
    return json.loads(capsys.readouterr().err.splitlines()[-1])


# --- translate -----------------------------------------------------------------------------------------------------


def test_words_are_read_told_and_recorded(words, tmp_path, speaking_model, patient):
    output = tmp_path / "o.nii.gz"
    assert main(words(output, "--target-text", TEXT)) == 0
    expected = translate([patient["T1"]], speaking_model, target_text=TEXT, device="cpu").run()
    assert np.array_equal(read_volume(output, "T2").array, expected.array)
    record = record_of(output)
    assert (record["target"], codes(record)) == ("T2", [])
    described = record["described"]
    assert described["text"] == TEXT
    assert described["facts"]["echo_time_ms"] == 90
    assert described["sentence"].startswith("T2-weighted MR image of the brain.")
    assert described["nearest_known"]["name"] == T2_BRAIN


def test_an_image_like_a_reference_is_the_same_as_in_words(words, tmp_path):
    told, like = tmp_path / "told.nii.gz", tmp_path / "like.nii.gz"
    assert main(words(told, "--target-text", TEXT)) == 0
    assert main(words(like, "--target-like", reference(tmp_path))) == 0
    assert np.array_equal(read_volume(told, "T2").array, read_volume(like, "T2").array)
    assert record_of(like)["described"]["facts"] == record_of(told)["described"]["facts"]
    text = (tmp_path / "like.json").read_text()
    assert not [name for name in ("Jane", "Hospital", "sub-07") if name in text]


def test_a_dicom_series_is_a_reference_by_its_tags(words, tmp_path, patient):
    volume, facts = patient["T2"], {"EchoTime": 90.0, "RepetitionTime": 4000.0, "ScanOptions": "FS"}
    write_series(tmp_path / "scan", volume.array.astype(np.int16), volume.geometry.affine_ras, **facts)
    output = tmp_path / "o.nii.gz"
    assert main(words(output, "--target-like", tmp_path / "scan")) == 0
    record = record_of(output)
    assert record["target"] == "T2"
    facts = record["described"]["facts"]
    assert (facts["organ"], facts["echo_time_ms"], facts["scan_options"]) == ("brain", 90, ["FS"])
    assert not [name for name in ("Famous", "7777") if name in json.dumps(record)]


def test_a_reference_is_not_written_over(words, tmp_path, capsys):
    path = reference(tmp_path)
    assert main([*words(path, "--target-like", path), "--json"]) == 2
    assert refusal(capsys)["code"] == "MX-FIL-014"


@pytest.mark.parametrize(
    ("text", "code", "exit_code", "nearest"),
    [("", "MX-TXT-001", 2, T1_BRAIN), ("T2 " + "very " * 300, "MX-TXT-002", 2, T2_BRAIN),
     ("МРТ T2 головы", "MX-TXT-003", 2, T2_BRAIN), ("CT of the head, T2", "MX-TXT-005", 2, CT_HEAD),
     ("T2 with and without contrast", "MX-TXT-004", 2, T2_BRAIN)],
)  # fmt: skip
def test_a_text_that_cannot_be_used_is_refused(words, tmp_path, capsys, text, code, exit_code, nearest):
    assert main([*words(tmp_path / "o.nii.gz", "--target-text", text), "--json"]) == exit_code
    error = refusal(capsys)
    assert error["code"] == code
    assert nearest in error["fix"]
    assert list(tmp_path.iterdir()) == []


def test_an_organ_never_seen_is_warned_about(words, tmp_path, capsys):
    output = tmp_path / "o.nii.gz"
    assert main(words(output, "--target-text", "T2 of the knee, frobnicated")) == 0
    assert codes(record_of(output)) == ["MX-TXT-010", "MX-TXT-011"]
    told = capsys.readouterr().err
    assert "'frobnicated'" in told
    assert f"nearest known: {T2_BRAIN}" in told


def test_a_reference_without_facts_is_refused(words, tmp_path, capsys, patient_files):
    plain = tmp_path / "scan.nii.gz"
    shutil.copyfile(patient_files["T2"], plain)
    assert main([*words(tmp_path / "o.nii.gz", "--target-like", plain), "--json"]) == 3
    error = refusal(capsys)
    assert error["code"] == "MX-TXT-020"
    assert T1_BRAIN in error["fix"]


def test_a_reference_that_contradicts_itself_is_refused(words, tmp_path, capsys):
    path = reference(tmp_path, "scan", Modality="CT")
    assert main([*words(tmp_path / "o.nii.gz", "--target-like", path), "--json"]) == 3
    error = refusal(capsys)
    assert error["code"] == "MX-TXT-022"
    assert CT_HEAD in error["fix"]


def test_a_target_given_twice_is_refused(words, tmp_path, capsys):
    assert main([*words(tmp_path / "o.nii.gz", "--target-text", "T2", "--target", "T2"), "--json"]) == 2
    assert refusal(capsys)["code"] == "MX-USE-207"


def test_a_model_that_knows_names_only_is_not_told(tiny_package, patient_files, tmp_path, capsys):
    sources = [item for name in ("T1", "T2") for item in ("--source", f"{name}={patient_files[name]}")]
    command = ["translate", "--model", str(tiny_package), *sources, "--output", str(tmp_path / "o.nii.gz"), "--json"]
    for more in (("--target-text", "T1 after gadolinium"), ("--target-like", str(reference(tmp_path)))):
        assert main([*command, *more]) == 2
        assert refusal(capsys)["code"] == "MX-USE-208"


# --- batch ---------------------------------------------------------------------------------------------------------


def test_a_batch_makes_what_words_describe(table, tmp_path, words, capsys):
    assert main(table("--target-text", TEXT)) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done", "done"]
    assert main(words(tmp_path / "o.nii.gz", "--target-text", TEXT)) == 0
    one, other = (
        read_volume(path, "T2").array for path in (tmp_path / "o.nii.gz", tmp_path / "out" / lines[0]["output"])
    )
    assert np.array_equal(one, other)

    capsys.readouterr()
    assert main(table("--target-like", reference(tmp_path))) == 0  # the same facts
    assert "0 done, 2 skipped" in capsys.readouterr().out
    assert main(table("--target-text", "T2 of the brain", "--limit", "1")) == 0  # others
    assert "1 done, 0 skipped" in capsys.readouterr().out
    assert len({path.name for path in (tmp_path / "out" / "p1").glob("*.nii.gz")}) == 2
    assert sha256_file(tmp_path / "out" / lines[0]["output"]) == lines[0]["sha256"]


def test_a_bad_text_stops_a_batch_before_it_begins(table, tmp_path, capsys):
    assert main([*table("--target-text", "nonsense"), "--json"]) == 2
    assert refusal(capsys)["code"] == "MX-TXT-006"
    assert not (tmp_path / "out").exists()
