"""``medxlate models`` and ``medxlate import-weights`` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedXlateCore.cli import main
from MedXlateCore.models import catalogue

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def checkpoint(tmp_path):
    with np.load(GOLDEN / "tlp_two_input_dim8.npz") as archive:
        state = {k.removeprefix("weights/"): torch.from_numpy(archive[k]) for k in archive.files if "/" in k}
    torch.save(state, tmp_path / "G.pth")
    return tmp_path / "G.pth"


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(catalogue, "bundled_models_folder", lambda: tmp_path / "bundled")
    return catalogue.user_models_folder()


def test_a_checkpoint_is_imported_listed_shown_and_verified(checkpoint, user_folder, capsys):
    assert main(["import-weights", "--method", "tlp", str(checkpoint), str(user_folder / "authors")]) == 0
    out = capsys.readouterr().out
    assert "T1, T2 to T1ce" in out
    assert "assumed" in out
    assert main(["models", "list"]) == 0
    assert "authors  1.0.0  T1, T2 + region to T1ce  (tlp)" in capsys.readouterr().out
    assert main(["models", "show", "authors"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "tlp"
    assert main(["models", "verify", "authors"]) == 0
    out = capsys.readouterr().out
    assert "is sound" in out
    assert "464122 parameters" in out


def test_sources_and_target_can_be_named(checkpoint, tmp_path, capsys):
    out_dir = tmp_path / "p"
    arguments = ["--sources", "T2,FLAIR", "--target", "t1c", "--name", "mine", "--licence", "MIT"]
    assert main(["import-weights", "--method", "tlp", str(checkpoint), str(out_dir), *arguments]) == 0
    assert "assumed" not in capsys.readouterr().out
    card = json.loads((out_dir / "model.json").read_text())
    assert (card["sources"], card["targets"], card["name"]) == (["T2", "FLAIR"], ["T1ce"], "mine")


def test_without_packages_the_list_says_where_it_looked(user_folder, capsys):
    assert main(["models", "list"]) == 0
    assert str(user_folder) in capsys.readouterr().out


def test_a_broken_package_is_listed_as_such(user_folder, capsys):
    (user_folder / "broken").mkdir(parents=True)
    (user_folder / "broken" / "model.json").write_text("{")
    assert main(["models", "list"]) == 0
    assert "MX-MOD-011" in capsys.readouterr().out
    assert main(["models", "verify", "broken"]) == 3


def test_wrong_use_exits_with_2_and_bad_input_with_3(tmp_path, capsys):
    assert main(["models"]) == 2
    assert main(["models", "erase", "x"]) == 2
    assert main(["models", "show", str(tmp_path)]) == 3
    assert main(["import-weights", str(tmp_path / "x.pth"), str(tmp_path / "p")]) == 2
    assert main(["import-weights", "--method", "nope", str(tmp_path / "x.pth"), str(tmp_path / "p")]) == 2
    assert main(["import-weights", "--method", "tlp", str(tmp_path / "x.pth"), str(tmp_path / "p")]) == 3
    assert "Traceback" not in capsys.readouterr().err
