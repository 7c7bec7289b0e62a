"""Packages are found by name; broken ones come with their problem."""

from __future__ import annotations

import pytest

from MedXlateCore.errors import InputError
from MedXlateCore.models import catalogue
from MedXlateCore.models.catalogue import find_package, list_packages, user_models_folder
from MedXlateCore.models.package import load_package, save_package


def test_packages_are_found_by_name_in_the_model_folders(tmp_path, package, make_card, make_network):
    other = tmp_path / "more"
    save_package(other / "small", make_card(version="9.0.0"), make_network())
    save_package(other / "large", make_card(name="large"), make_network())
    folders = [package.parent, other]
    assert find_package("small", folders) == package  # the first folder wins
    assert load_package("large", folders).card.name == "large"
    assert [entry.name for entry in list_packages(folders)] == ["large", "small"]


def test_a_missing_package_is_refused_with_the_nearest_name(package):
    with pytest.raises(InputError, match="MX-MOD-010") as caught:
        find_package("smal", [package.parent])
    assert "small" in caught.value.fix


@pytest.mark.parametrize("name", ["weights.pth", "model.ckpt"])
def test_a_checkpoint_in_place_of_a_package_is_pointed_to_the_importer(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="MX-MOD-010") as caught:
        load_package(tmp_path / name)
    assert "import-weights" in caught.value.fix


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "/" + "y" * 300, "no/such/folder"])
def test_names_that_no_file_system_holds_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"MX-(MOD-010|FIL-007)"):
        find_package(name, [tmp_path])


def test_a_broken_package_is_listed_with_its_problem(tmp_path, package):
    (package / "model.json").write_text("{")
    (entry,) = list_packages([tmp_path])
    assert entry.card is None
    assert entry.problem.code == "MX-MOD-011"


def test_missing_model_folders_are_empty(tmp_path):
    assert list_packages([tmp_path / "none"]) == []


def test_the_users_models_lie_where_the_platform_keeps_data(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue.Path, "home", lambda: tmp_path)
    for platform, folder in (
        ("linux", ".local/share"),
        ("darwin", "Library/Application Support"),
        ("win32", "AppData/Local"),
    ):
        monkeypatch.setattr(catalogue.sys, "platform", platform)
        assert user_models_folder() == tmp_path / folder / "medxlate" / "models"
