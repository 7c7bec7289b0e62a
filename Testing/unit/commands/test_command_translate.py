"""``medxlate translate`` end to end, on files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types

import nibabel as nib
import numpy as np
import pytest

from MedXlateCore.cli import main
from MedXlateCore.errors import UsageError
from MedXlateCore.files import sha256_file
from MedXlateCore.io import read_volume, write_volume
from MedXlateCore.models.package import load_package
from MedXlateCore.pipeline import Translation, translate
from MedXlateCore.volume import Geometry, Volume


@pytest.fixture
def words(tiny_package, patient_files):
    """Return a function from an output and further options to a command line."""

    def make(output, *more, t1=None, t2=None):
        return [
            "translate", "--model", str(tiny_package), "--source", f"T1={t1 or patient_files['T1']}",
            "--source", f"T2={t2 or patient_files['T2']}", "--output", str(output), "--device", "cpu",
            *map(str, more),
        ]  # fmt: skip

    return make


@pytest.fixture
def computing(monkeypatch):
    """Return the list of translations that were started."""
    started = []
    original = Translation.__init__

    def spy(self, *arguments):
        started.append(self)
        original(self, *arguments)

    monkeypatch.setattr(Translation, "__init__", spy)
    return started


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def error_code(capsys):
    return json.loads(capsys.readouterr().err.splitlines()[-1])["code"]


# --- what is written -----------------------------------------------------------------------------------------------


def test_a_translation_writes_the_volume_and_its_record(words, tmp_path, patient, tiny_model, capsys):
    output = tmp_path / "T1ce.nii.gz"
    assert main(words(output)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["T1ce.json", "T1ce.nii.gz"]
    captured = capsys.readouterr()
    assert captured.out == f"{output}  (synthetic T1ce; research use only, not for diagnosis)\n"
    assert "T1ce from T1, T2: 8 slices" in captured.err
    volume = read_volume(output, "T1ce")
    assert volume.synthetic
    assert np.array_equal(volume.geometry.affine_ras, patient["T1"].geometry.affine_ras)
    expected = translate([patient["T1"], patient["T2"]], tiny_model, device="cpu").run()
    assert np.array_equal(volume.array, expected.array)


def test_the_record_names_the_inputs_by_their_hashes(words, tmp_path, patient_files, tiny_package):
    output = tmp_path / "T1ce.nii.gz"
    assert main(words(output, "--roi", patient_files["region"], "--quiet")) == 0
    record = json.loads((tmp_path / "T1ce.json").read_text())
    assert [v["sha256"] for v in record["inputs"]] == [sha256_file(patient_files[n]) for n in ("T1", "T2")]
    assert [v["name"] for v in record["inputs"]] == ["T1.nii.gz", "T2.nii.gz"]
    assert record["prompt"]["sha256"] == sha256_file(patient_files["region"])
    assert record["model"]["sha256"] == sha256_file(tiny_package / "model.safetensors")
    assert record["output_file"]["sha256"] == sha256_file(output)
    assert str(tmp_path) not in (tmp_path / "T1ce.json").read_text()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_output_format_keeps_the_grid(words, tmp_path, patient, suffix):
    output = tmp_path / f"out{suffix}"
    assert main(words(output, "--quiet")) == 0
    volume = read_volume(output, "T1ce")
    assert volume.geometry.allclose(patient["T1"].geometry, 1e-6)
    assert volume.synthetic


def test_a_report_is_the_record_in_another_place(words, tmp_path):
    assert main(words(tmp_path / "o.nii.gz", "--report", tmp_path / "logs" / "run.json", "--quiet")) == 0
    report, record = (json.loads((tmp_path / name).read_text()) for name in ("logs/run.json", "o.json"))
    assert record.pop("output_file")["name"] == "o.nii.gz"
    assert report == record


def test_quiet_says_only_where_the_result_is(words, tmp_path, capsys):
    assert main(words(tmp_path / "o.nii.gz", "--quiet")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(captured.out.splitlines()) == 1


def test_warnings_are_said_even_when_quiet(words, tmp_path, patient, capsys):
    synthetic = tmp_path / "synthetic.nii.gz"
    write_volume(patient["T1"].with_array(patient["T1"].array, synthetic=True), synthetic)
    assert main(words(tmp_path / "o.nii.gz", "--quiet", t1=synthetic)) == 0
    assert "warning: MX-IMG-012" in capsys.readouterr().err
    assert "MX-IMG-012" in {w["code"] for w in json.loads((tmp_path / "o.json").read_text())["warnings"]}


NAMES = [
    "with space.nii.gz", "it's \"quoted\".nii.gz", "Hirn 🧠.nii.gz", "größe_尺寸.nii.gz", "two\nlines.nii.gz",
    "-leading.nii.gz", "a=b,c.nii.gz", "%s{x}$HOME.nii.gz", "UPPER.NII.GZ", "x" * 240 + ".nii.gz",
]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_odd_names_work_for_inputs_and_outputs(words, tmp_path, patient_files, name, capsys):
    source, output = tmp_path / "in" / name, tmp_path / "out" / name
    source.parent.mkdir()
    source.write_bytes(patient_files["T1"].read_bytes())
    assert main(words(output, "--quiet", t1=source)) == 0
    assert len(list(output.parent.iterdir())) == 2
    assert read_volume(output, "T1ce").synthetic
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_relative_output_lands_in_the_current_folder(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words("o.nii.gz", "--quiet")) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.json", "o.nii.gz"]


def test_an_earlier_result_is_replaced_with_its_record(words, tmp_path, patient_files):
    output = tmp_path / "o.nii.gz"
    assert main(words(output, "--quiet")) == 0
    first = contents(tmp_path)
    assert main(words(output, "--quiet", "--roi", patient_files["region"])) == 0
    second = contents(tmp_path)
    assert set(first) == set(second)
    assert all(first[name] != second[name] for name in first)
    assert json.loads(second["o.json"])["output_file"]["sha256"] == sha256_file(output)


def test_inputs_keep_their_bytes(words, tmp_path, patient_files):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in patient_files.values()}
    assert main(words(tmp_path / "o.nii.gz", "--roi", patient_files["region"], "--quiet")) == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in patient_files.values()} == before


# --- options -------------------------------------------------------------------------------------------------------


def test_the_named_reference_decides_the_grid(words, tmp_path, patient):
    small = tmp_path / "small.nii.gz"
    t2 = patient["T2"]
    affine = t2.geometry.affine_ras.copy()
    affine[:3, 3] += affine[:3, :3] @ [2, 2, 1]
    array = t2.array[2:-2, 2:-2, 1:-1]
    write_volume(Volume(array, Geometry(array.shape, affine), t2.modality), small)
    assert main(words(tmp_path / "o.nii.gz", "--reference", "t2w", "--quiet", t2=small)) == 0
    assert read_volume(tmp_path / "o.nii.gz", "T1ce").array.shape == (20, 24, 8)


def test_label_values_of_the_region_are_read(words, tmp_path, make_patient, capsys):
    region = tmp_path / "region.nii.gz"
    write_volume(make_patient(labels=(30, 7))["region"], region)
    options = ["--roi", region, "--quiet", "--json"]
    assert main(words(tmp_path / "o.nii.gz", *options)) == 3
    assert error_code(capsys) == "MX-ROI-013"
    named = ["--roi-label", "oedema=7", "--roi-label", "core=30,31"]
    assert main(words(tmp_path / "o.nii.gz", *options, *named)) == 0
    prompt = json.loads((tmp_path / "o.json").read_text())["prompt"]
    assert prompt["labels"] == {"oedema": [7], "core": [30, 31]}
    assert prompt["voxels_on_model_grid"] > 0


@pytest.mark.parametrize("text", ["core", "core=", "=1", "core=one", "core=1,", "core=1.5", "core=1;2", "", "core==1"])
def test_labels_of_another_form_are_refused_before_anything_is_read(words, tmp_path, computing, capsys, text):
    assert main(words(tmp_path / "o.nii.gz", "--roi-label", text, "--json")) == 2
    assert error_code(capsys) == "MX-USE-031"
    assert not computing


def test_a_region_of_another_name_is_refused(words, tmp_path, patient_files, capsys):
    named = ["--roi", patient_files["region"], "--roi-label", "cor=1,2"]
    assert main(words(tmp_path / "o.nii.gz", *named, "--json")) == 2
    assert error_code(capsys) == "MX-ROI-032"
    assert list(tmp_path.iterdir()) == []


# --- refusals: coded, before computing where that can be, and nothing left behind -----------------------------------


@pytest.mark.parametrize("name", ["T1", "T2", "region"])
def test_an_output_that_is_an_input_is_refused_before_computing(
    words, tmp_path, patient_files, computing, name, capsys
):
    copies = {}
    for key, path in patient_files.items():
        copies[key] = tmp_path / path.name
        copies[key].write_bytes(path.read_bytes())
    before = contents(tmp_path)
    link = tmp_path / "link.nii.gz"
    link.symlink_to(copies[name])
    for output in (copies[name], link, tmp_path / "." / copies[name].name):
        line = words(output, "--roi", copies["region"], "--json", t1=copies["T1"], t2=copies["T2"])
        assert main(line) == 2
        assert error_code(capsys) == "MX-FIL-014"
    link.unlink()
    assert contents(tmp_path) == before
    assert not computing


@pytest.mark.parametrize(
    ("report", "code"), [("o.nii.gz", "MX-USE-032"), ("o.json", "MX-USE-032"), ("t1.nii.gz", "MX-FIL-014")]
)
def test_a_report_that_would_replace_something_is_refused(
    words, tmp_path, patient_files, computing, report, code, capsys
):
    source = tmp_path / "t1.nii.gz"
    source.write_bytes(patient_files["T1"].read_bytes())
    line = words(tmp_path / "o.nii.gz", "--report", tmp_path / report, "--json", t1=source)
    assert main(line) == 2
    assert error_code(capsys) == code
    assert [p.name for p in tmp_path.iterdir()] == ["t1.nii.gz"]
    assert not computing


def test_a_foreign_file_with_the_records_name_is_kept_and_refused_before_computing(words, tmp_path, computing, capsys):
    (tmp_path / "o.json").write_text('{"mine": true}')
    assert main(words(tmp_path / "o.nii.gz", "--json")) == 2
    assert error_code(capsys) == "MX-FIL-018"
    assert contents(tmp_path) == {"o.json": b'{"mine": true}'}
    assert not computing


@pytest.mark.parametrize(
    ("output", "exit_code", "code"),
    [
        (".", 2, "MX-FIL-019"),
        ("folder.nii.gz", 4, "MX-FIL-010"),
        ("file.txt/o.nii.gz", 4, "MX-FIL-011"),
        ("x" * 300 + ".nii.gz", 4, "MX-FIL-011"),
        ("o.mhd", 2, "MX-FIL-019"),
        ("o.dcm", 2, "MX-FIL-019"),
        ("o", 2, "MX-FIL-019"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_computing(
    words, tmp_path, computing, output, exit_code, code, capsys
):
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert main(words(tmp_path / output, "--json")) == exit_code
    assert error_code(capsys) == code
    assert contents(tmp_path) == {"file.txt": b"x"}
    assert not computing


def test_an_unusable_output_is_refused_before_model_and_volumes_are_read(words, tmp_path, capsys):
    (tmp_path / "o.json").write_text("[]")
    assert main([*words(tmp_path / "o.nii.gz", "--json", t1=tmp_path / "none.nii.gz"), "--model", "none"]) == 2
    assert error_code(capsys) == "MX-FIL-018"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_refused_before_computing(words, tmp_path, computing, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert main(words(locked / "o.nii.gz", "--json")) == 4
    assert error_code(capsys) == "MX-FIL-012"
    assert not computing


def test_a_full_disk_is_noticed_before_computing(words, tmp_path, monkeypatch, computing, capsys):
    room = types.SimpleNamespace(free=2**20 + 1000)  # what is always kept free, but not 24 x 28 x 10 floats more
    monkeypatch.setattr("MedXlateCore.files.shutil.disk_usage", lambda path: room)
    assert main(words(tmp_path / "o.nii.gz", "--json")) == 4
    assert error_code(capsys) == "MX-FIL-013"
    assert not computing


def damaged(path, target, what):
    data = path.read_bytes()
    if what == "missing":
        return target.with_name("none.nii.gz")
    half = len(data) // 2
    flipped = data[:half] + bytes([data[half] ^ 4]) + data[half + 1 :]
    target.write_bytes({"truncated": data[:half], "flipped": flipped, "empty": b"", "text": b"no image"}[what])
    return target


@pytest.mark.parametrize("what", ["missing", "truncated", "flipped", "empty", "text"])
@pytest.mark.parametrize("option", ["t1", "t2", "roi"])
def test_a_damaged_input_ends_with_3_and_leaves_no_file(words, tmp_path, patient_files, what, option, capsys):
    key = {"t1": "T1", "t2": "T2", "roi": "region"}[option]
    (tmp_path / "in").mkdir()
    bad = damaged(patient_files[key], tmp_path / "in" / "bad.nii.gz", what)
    out = tmp_path / "out"
    line = words(out / "o.nii.gz", "--roi", bad) if option == "roi" else words(out / "o.nii.gz", **{option: bad})
    assert main([*line, "--json"]) == 3
    error = json.loads(capsys.readouterr().err)
    assert error["code"].startswith("MX-FIL-")
    assert bad.name in error["where"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("source", "code"),
    [("T9=t.nii.gz", "MX-USE-010"), ("t.nii.gz", "MX-USE-030"), ("=t.nii.gz", "MX-USE-030"), ("T1=", "MX-USE-030")],
)
def test_a_source_without_a_known_modality_is_refused(words, tmp_path, source, code, computing, capsys):
    assert main([*words(tmp_path / "o.nii.gz", "--json"), "--source", source]) == 2
    assert error_code(capsys) == code
    assert not computing


@pytest.mark.parametrize(
    ("options", "exit_code", "code"),
    [
        (["--model", "no-such-model"], 3, "MX-MOD-010"),
        (["--target", "FLAIR"], 2, "MX-MOD-091"),
        (["--target", "T9"], 2, "MX-USE-010"),
        (["--reference", "FLAIR"], 2, "MX-USE-022"),
        (["--device", "gpu"], 2, "MX-USE-020"),
        (["--precision", "fp16"], 2, "MX-USE-021"),
    ],
)
def test_other_wrong_options_are_coded_and_leave_no_file(words, tmp_path, options, exit_code, code, capsys):
    assert main([*words(tmp_path / "o.nii.gz", "--json"), *options]) == exit_code
    assert error_code(capsys) == code
    assert list(tmp_path.iterdir()) == []


def test_one_file_given_as_two_modalities_is_refused(words, tmp_path, patient_files, capsys):
    assert main(words(tmp_path / "o.nii.gz", "--json", t2=patient_files["T1"])) == 3
    assert error_code(capsys) == "MX-IMG-033"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "exit_code"), [(KeyboardInterrupt(), 130), (MemoryError(), 4), (ZeroDivisionError(), 70)]
)
def test_a_run_that_breaks_off_midway_leaves_an_earlier_result_as_it_was(
    words, tmp_path, monkeypatch, error, exit_code, capsys
):
    output = tmp_path / "o.nii.gz"
    assert main(words(output, "--quiet")) == 0
    before = contents(tmp_path)
    steps = iter(range(4))
    original = Translation.__next__

    def fail(self):
        if next(steps, None) is None:
            raise error
        return original(self)

    monkeypatch.setattr(Translation, "__next__", fail)
    assert main(words(output, "--quiet")) == exit_code
    assert contents(tmp_path) == before


def test_a_write_that_fails_leaves_nothing(words, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedXlateCore.files.os.fsync", full)
    assert main(words(tmp_path / "o.nii.gz", "--quiet", "--json")) == 4
    assert error_code(capsys) == "MX-FIL-013"
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_format_that_cannot_hold_the_grid_is_refused_before_computing(
    words, tmp_path, make_patient, computing, suffix, capsys
):
    affine = np.array([[-8.0, 0, 0.12, 92], [0, -8, 0, 100], [0, 0, 12, -50], [0, 0, 0, 1]])
    sheared = make_patient(Geometry((24, 28, 10), affine))
    paths = {}
    for name in ("T1", "T2"):
        paths[name.lower()] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(sheared[name].array, affine), paths[name.lower()])
    assert main(words(tmp_path / f"o{suffix}", "--json", **paths)) == 3
    assert error_code(capsys) == "MX-GEO-014"
    assert not computing


def test_the_command_works_as_a_process_of_its_own(words, tmp_path, patient_files):
    line = words(tmp_path / "o.nii.gz", "--roi", patient_files["region"])
    done = subprocess.run(
        [sys.executable, "-m", "MedXlateCore", *line], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not for diagnosis" in done.stdout
    assert "8 slices" in done.stderr
    assert "\r" not in done.stderr  # no progress line where nobody watches
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.json", "o.nii.gz"]


def test_the_package_given_by_folder_and_by_card_is_the_same(words, tmp_path, tiny_package):
    assert load_package(tiny_package / "model.json").card.name == "tiny"
    assert main([*words(tmp_path / "o.nii.gz", "--quiet"), "--model", str(tiny_package / "model.json")]) == 0


def test_split_named_and_parse_labels_accept_what_the_help_shows():
    from MedXlateCore.commands.options import parse_labels, split_named

    assert split_named("T1=a=b.nii", "--source") == ("T1", "a=b.nii")
    assert parse_labels(["oedema=2", "core=1, 4", "core=3"], "--roi-label") == {"oedema": [2], "core": [1, 4, 3]}
    assert parse_labels([], "--roi-label") == {}
    with pytest.raises(UsageError, match="MX-USE-031"):
        parse_labels(["x"], "--roi-label")


# --- memory and batches --------------------------------------------------------------------------------------------


def test_the_batch_size_can_be_chosen_and_auto_is_one_slice_on_the_cpu(words, tmp_path):
    for text, expected in (("auto", 1), ("3", 3)):
        output = tmp_path / f"{text}.nii.gz"
        assert main(words(output, "--quiet", "--batch-size", text)) == 0
        assert json.loads((tmp_path / f"{text}.json").read_text())["compute"]["batch_size"] == expected


@pytest.mark.parametrize("text", ["0", "-2", "1.5", "many", "³", ""])
def test_a_batch_size_that_is_none_is_refused_and_nothing_is_written(words, tmp_path, computing, capsys, text):
    assert main([*words(tmp_path / "o.nii.gz", "--json"), f"--batch-size={text}"]) == 2
    assert error_code(capsys) == "MX-USE-023"
    assert computing == []
    assert contents(tmp_path) == {}


def test_the_needed_memory_is_told(words, tmp_path, capsys):
    assert main(words(tmp_path / "o.nii.gz")) == 0
    assert re.search(r"about \d[\d.]* [GM]iB of memory", capsys.readouterr().err)
