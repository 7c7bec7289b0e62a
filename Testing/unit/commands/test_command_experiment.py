"""``medxlate experiment``: templates, refusals, and a whole experiment in processes of their own."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from training_cases import blob_case, write_table

from MedXlateCore.cli import main
from MedXlateCore.experiment.templates import list_templates

TEXT = """
[experiment]
name = "blobs"
directions = ["T1->T2"]

[budget]
steps = 1

[data]
table = "cases.csv"

[grid.crop]
kind = "fixed"
size = [32, 32, "none"]
centre = "grid"

[intensity]
T1 = { kind = "minmax" }
T2 = { kind = "minmax" }

[training]
batch_size = 1
tensorboard = false
previews = 0

[[method]]
method = "tlp"
config = { levels = 1 }
recipe = { discriminator_width = 8 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return an experiment file beside its table of three cases."""
    rows = [blob_case(tmp_path, case, seed=n, shape=(32, 32, 3)) for n, case in enumerate("ade")]
    for row, split in zip(rows, ("train", "val", "test"), strict=True):
        row["split"] = split
    write_table(tmp_path / "cases.csv", rows)
    (tmp_path / "blobs.toml").write_text(TEXT)
    return tmp_path / "blobs.toml"


def test_a_whole_experiment_runs_and_runs_no_second_time(file: Path, capfd: pytest.CaptureFixture[str]):
    line = ["experiment", str(file), "--device", "cpu"]
    assert main(line) == 0
    out = capfd.readouterr().out
    assert "[3/3] tlp/t1-to-t2/seed-0: finished, 1 results" in out
    assert "research use only, not for diagnosis" in out
    folder = file.with_name("blobs-results")
    for name in ("results.csv", "summary.csv", "report.md", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert "Command: medxlate experiment blobs.toml --device cpu" in (folder / "report.md").read_text("utf-8")
    tested = json.loads((folder / "runs/tlp/t1-to-t2/seed-0/tested.json").read_text())
    assert tested["memory"]["peak_bytes"] > 0
    assert main(line) == 0
    assert capfd.readouterr().out.count("finished earlier") == 3


def test_the_exit_code_tells_that_a_run_failed(file: Path, capfd: pytest.CaptureFixture[str], monkeypatch):
    from MedXlateCore.experiment import running

    class Dead:
        def poll(self) -> int:
            return 1

    monkeypatch.setattr(running.subprocess, "Popen", lambda *words, **settings: Dead())
    assert main(["experiment", str(file), "--device", "cpu"]) == 4
    assert "failed, MX-EXP-007" in capfd.readouterr().out
    assert "MX-EXP-007" in (file.with_name("blobs-results") / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "MX-EXP-012"),
        (["--template", "tlp"], "MX-EXP-009"),
        (["{file}", "--jobs", "0"], "MX-EXP-011"),
        (["{file}", "--set", "budget.steps=0"], "MX-EXP-001"),
        (["{file}", "--set", "experiment.nmae=x"], "MX-USE-040"),
        (["{file}", "--device", "gpu"], "MX-USE-020"),
        (["nowhere.toml"], "MX-USE-044"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(file: Path, capsys, words: list[str], code: str):
    line = [str(file) if word == "{file}" else word for word in words]
    assert main(["experiment", "--json", *line]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == code
    assert not file.with_name("blobs-results").exists()


def test_templates_are_listed_and_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["experiment", "--list-templates"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in list_templates())
    assert main(["experiment", "--template", "tlp-ablation"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["experiment"]["name"] == "TLP, ablation"
