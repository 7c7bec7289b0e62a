"""``medxlate phantom`` from the command line."""

import csv
import json

import pytest

from MedXlateCore.cli import main
from MedXlateCore.commands.phantom import parse_acquisitions
from MedXlateCore.errors import UsageError
from MedXlateCore.volume import Modality

SMALL = ["--size", "24", "30", "20", "--modalities", "t1n,t2w"]


def test_a_cohort_is_made_with_progress_on_stderr_and_the_table_on_stdout(tmp_path, capsys):
    out = tmp_path / "heads"
    arguments = ["phantom", "--out", str(out), "--cases", "2", "--splits", "1,1,0", "--acquisition", "T1:tr=600,te=12"]
    assert main([*arguments, *SMALL, "--vary-acquisition"]) == 0
    output = capsys.readouterr()
    assert output.out.strip() == str(out / "cases.csv")
    assert "[2/2] phantom_s0_0002 (val)" in output.err
    with (out / "cases.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(row["case"], row["split"]) for row in table] == [("phantom_s0_0001", "train"), ("phantom_s0_0002", "val")]
    settings = json.loads((out / "phantom.json").read_text())["cases"][0]["acquisitions"]["T1"]
    assert 500 < settings["repetition_time_ms"] < 710


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--cases", "0"], "MX-USE-184"),
        (["--size", "2", "2", "2"], "MX-USE-182"),
        (["--splits", "a,b"], "MX-USE-187"),
        (["--modalities", "T9"], "MX-USE-010"),
        (["--field-strength", "9"], "MX-USE-181"),
        (["--acquisition", "T1"], "MX-USE-187"),
        (["--jobs", "0"], "MX-USE-189"),
        (["--cases", "many"], "MX-USE-001"),
    ],
)
def test_wrong_options_exit_with_2_and_make_nothing(tmp_path, capsys, arguments, code):
    assert main(["phantom", "--out", str(tmp_path / "heads"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(code)
    assert not (tmp_path / "heads").exists()


def test_an_absurd_size_exits_with_4(tmp_path, capsys):
    assert main(["phantom", "--out", str(tmp_path / "heads"), "--size", "9000", "9000", "9000"]) == 4
    assert "MX-RES-180" in capsys.readouterr().err


def test_a_folder_with_content_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["phantom", "--out", str(tmp_path), "--cases", "1", *SMALL]) == 2
    assert "MX-USE-186" in capsys.readouterr().err
    assert main(["phantom", "--out", str(tmp_path), "--cases", "1", *SMALL, "--overwrite"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_settings_are_read_by_modality():
    changes = parse_acquisitions(["T1:sequence=spin_echo,tr=600", "t1n:te=12", "T2:fatsat=yes"])
    assert changes[Modality.T1] == {"sequence": "spin_echo", "repetition_time_ms": 600.0, "echo_time_ms": 12.0}
    assert changes[Modality.T2] == {"fat_suppressed": True}


@pytest.mark.parametrize("text", ["T1", "T1:", "T1:tr", "T1:tr=fast", "T1:fatsat=perhaps", "T1:sequence=epi"])
def test_unreadable_settings_are_refused(text):
    with pytest.raises(UsageError, match="MX-USE-187"):
        parse_acquisitions([text])


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'flip'"):
        parse_acquisitions(["T1:flipp=20"])


def test_scans_with_varied_settings_are_told_in_a_table(tmp_path, capsys):
    out = tmp_path / "scans"
    arguments = ["phantom", "--out", str(out), "--cases", "1", "--splits", "0,0,1", "--size", "24", "30", "20"]
    assert main([*arguments, "--scans", "2", "--hold-out", "fat_suppressed+contrast"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "scans.csv")
    with (out / "scans.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["held_out"] for row in rows] == ["fat_suppressed+contrast", ""]
    assert json.loads(rows[0]["facts"])["scan_options"] == ["FS"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--with-ct"], "MX-USE-190"),
        (["--hold-out", "T1"], "MX-USE-190"),
        (["--scans", "4", "--modalities", "T1"], "MX-USE-190"),
        (["--scans", "4", "--vary-acquisition"], "MX-USE-190"),
        (["--scans", "0"], "MX-USE-191"),
        (["--scans", "4", "--hold-out", "quirky"], "MX-USE-192"),
        (["--scans", "4", "--hold-out", "CT"], "MX-USE-193"),
    ],
)
def test_options_of_scans_that_make_no_sense_exit_with_2(tmp_path, capsys, arguments, code):
    assert main(["phantom", "--out", str(tmp_path / "scans"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(code)
    assert not (tmp_path / "scans").exists()
