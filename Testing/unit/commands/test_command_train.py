"""``medxlate train`` from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from MedXlateCore.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import CONFIG, write_cohort


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cohort and a configuration beside it."""
    folder = tmp_path_factory.mktemp("project")
    write_cohort(folder)
    (folder / "config.toml").write_text(CONFIG.replace('target = "T1ce"', 'target = "T1ce", table = "cases.csv"'))
    return folder


def test_a_configuration_trains_a_model_and_says_where_it_is(project: Path, capsys: pytest.CaptureFixture[str]):
    out = project / "run"
    assert main(["train", str(project / "config.toml"), "--out", str(out), "--steps", "1", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert str(out / "model") in captured.out
    assert "not for diagnosis" in captured.out
    assert captured.err == ""
    assert (out / "model/model.json").exists()


def test_a_run_is_resumed_with_its_own_configuration(project: Path):
    out = project / "resumed"
    arguments = ["train", str(project / "config.toml"), "--out", str(out), "--set", "training.steps=2", "--quiet"]
    assert main(arguments) == 0
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu", "--quiet"]) == 0


def test_a_preset_needs_a_table(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--preset", "tlp-tiny", "--out", str(tmp_path / "run")]) == 2
    assert "MX-DAT-001" in capsys.readouterr().err


def test_a_preset_trains_on_a_table(project: Path, tmp_path: Path):
    arguments = ["train", "--preset", "tlp-tiny", "--data", str(project / "cases.csv"), "--out", str(tmp_path / "run")]
    small = ["--set", "grid.crop.size=[32, 32, 'none']"]
    assert (
        main([*arguments, *small, "--steps", "1", "--device", "cpu", "--set", "training.tensorboard=false", "--quiet"])
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "MX-USE-049"),
        (["--resume"], "MX-TRN-002"),
        (["--preset", "tlp-tyni"], "MX-USE-042"),
        (["--preset", "tlp-tiny", "--set", "training.stpes=3"], "MX-USE-040"),
        (["--preset", "tlp-tiny", "--set", "training"], "MX-USE-045"),
        (["--preset", "tlp-tiny", "--data", "missing.csv"], "MX-FIL-001"),
        (["--preset", "tlp-tiny", "--device", "tpu", "--data", "missing.csv"], "MX-USE-020"),
        (["missing.toml"], "MX-USE-044"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
):
    status = main(["train", *arguments, "--out", str(tmp_path / "run")])
    assert status in (2, 3)
    assert code in capsys.readouterr().err


def test_a_run_in_an_occupied_folder_is_refused(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.toml").write_text("")
    assert main(["train", str(project / "config.toml"), "--out", str(tmp_path)]) == 2
    assert "MX-TRN-001" in capsys.readouterr().err


def test_a_run_that_never_began_leaves_no_folder_behind(project: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    arguments = ["train", str(project / "config.toml"), "--data", str(tmp_path / "none.csv"), "--quiet"]
    for out in (tmp_path / "mine", tmp_path / "a" / "b" / "run"):
        assert main([*arguments, "--out", str(out)]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # a folder that was there before stays
    assert list((tmp_path / "mine").iterdir()) == []
