"""The model manager: adding, verifying and deleting packages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from MedXlateSlicerLib import models

from MedXlateCore.errors import InputError, ResourceError, UsageError
from MedXlateCore.models.card import card_text as card_json
from MedXlateCore.models.card import read_card, sealed
from MedXlateCore.models.catalogue import InstalledPackage, bundled_models_folder, list_packages


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the starter under a name of its own."""
    from dataclasses import replace

    folder = tmp_path / "download" / "some folder"
    shutil.copytree(bundled_models_folder() / "starter", folder)
    card = sealed(replace(read_card(folder), name="mine"))
    (folder / "model.json").write_text(card_json(card), encoding="utf-8")
    (folder / "notes.txt").write_text("not part of the package", encoding="utf-8")
    return folder


def test_a_package_is_added_under_its_own_name_with_card_and_weights_only(package, tmp_path):
    entry = models.add_package(package, tmp_path / "models")
    assert entry.name == "mine"
    assert {path.name for path in entry.path.iterdir()} == {"model.json", entry.card.weights["file"]}
    assert [found.name for found in list_packages([tmp_path / "models"])] == ["mine"]


def test_a_damaged_package_is_not_added(package, tmp_path):
    weights = package / read_card(package).weights["file"]
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError) as caught:
        models.add_package(package, tmp_path / "models")
    assert caught.value.code == "MX-MOD-015"
    assert not (tmp_path / "models" / "mine").exists()


def test_a_name_that_is_taken_is_refused_and_the_old_model_stays(package, tmp_path):
    models.add_package(package, tmp_path / "models")
    before = (tmp_path / "models" / "mine" / "model.json").read_bytes()
    with pytest.raises(InputError) as caught:
        models.add_package(package, tmp_path / "models")
    assert caught.value.code == "MX-SLI-041"
    assert (tmp_path / "models" / "mine" / "model.json").read_bytes() == before


def test_a_model_cannot_hide_one_that_comes_with_medxlate(package, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    shutil.rmtree(package)
    shutil.copytree(bundled_models_folder() / "starter", package)
    with pytest.raises(InputError) as caught:
        models.add_package(package)
    assert caught.value.code == "MX-SLI-041"


def test_a_copy_that_fails_leaves_nothing(package, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models.shutil, "copyfile", fail)
    with pytest.raises(ResourceError) as caught:
        models.add_package(package, tmp_path / "models")
    assert caught.value.code == "MX-SLI-042"
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        models.add_package(tmp_path, tmp_path / "models")
    assert caught.value.code == "MX-MOD-010"


def test_a_sound_package_passes_the_check_and_one_changed_byte_does_not(package):
    assert models.verify_package(package).name == "mine"
    card = json.loads((package / "model.json").read_text(encoding="utf-8"))
    (package / "model.json").write_text(json.dumps({**card, "licence": "none"}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        models.verify_package(package)
    assert caught.value.code == "MX-MOD-022"


def test_ones_own_model_can_be_deleted(package, tmp_path):
    entry = models.add_package(package, tmp_path / "models")
    assert models.is_removable(entry, tmp_path / "models")
    models.delete_package(entry, tmp_path / "models")
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_a_model_that_comes_with_medxlate_cannot_be_deleted():
    folder = bundled_models_folder() / "starter"
    with pytest.raises(UsageError) as caught:
        models.delete_package(InstalledPackage("starter", folder, card=read_card(folder)))
    assert caught.value.code == "MX-SLI-043"
    assert (folder / "model.json").exists()


def test_a_deletion_that_fails_says_so(package, tmp_path, monkeypatch):
    entry = models.add_package(package, tmp_path / "models")

    def fail(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ResourceError) as caught:
        models.delete_package(entry, tmp_path / "models")
    assert caught.value.code == "MX-SLI-044"
    monkeypatch.undo()
    assert models.verify_package(entry.path).name == "mine"


def test_the_card_names_what_the_model_is_for_and_what_it_is_not_for():
    folder = bundled_models_folder() / "starter"
    text = models.card_text(InstalledPackage("starter", folder, card=read_card(folder)))
    for word in (
        "T1, T2 → T1ce",
        "Research use only, not for diagnosis",
        "Not for: diagnosis",
        "Apache-2.0",
        "SHA-256",
    ):
        assert word in text
    assert "numerical head phantoms" in text


def test_a_package_that_cannot_be_used_shows_its_problem(package):
    (package / "model.json").write_text("{", encoding="utf-8")
    entry = next(iter(list_packages([package.parent])))
    assert "MX-MOD-011" in models.card_text(entry)
